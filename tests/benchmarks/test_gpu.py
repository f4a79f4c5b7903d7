"""Parts of `python -m benchmarks gpu`: their order, their errors, and what feeds the actor."""

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from benchmarks.gpu import command, encoded, kernels, models, process, speech
from benchmarks.gpu.part import Case, Setting, line
from raysp.ops.blocks import windowing_of
from raysp.ops.rows import waves_of


def test_parts_that_do_not_fit_into_the_time_are_left_out_the_least_important_first():
    limits = {"a": 50.0, "b": 30.0, "c": 20.0}
    assert command.chosen(["a", "b", "c"], limits, 100) == (["a", "b", "c"], [])
    assert command.chosen(["a", "b", "c"], limits, 60) == (["a"], ["c", "b"])


def test_all_parts_fit_into_ten_minutes():
    from importlib import import_module

    assert sum(import_module(f"benchmarks.gpu.{name}").SECONDS for name in command.PARTS) <= 600


@pytest.mark.slow
def test_a_part_that_crashes_or_takes_too_long_is_recorded(monkeypatch, tmp_path):
    setting = Setting("cpu", tmp_path)
    monkeypatch.setattr(command, "_run", _crash)
    assert command.run_part("a", setting, 60)["ended"] == "exit code -6"
    monkeypatch.setattr(command, "_run", _hang)
    assert command.run_part("a", setting, 1)["ended"] == "not done in 1 s"


def _crash(*_: object) -> None:
    os.abort()


def _hang(*_: object) -> None:
    import time

    time.sleep(600)


def test_a_case_that_fails_lacks_a_package_or_comes_too_late_is_recorded_and_printed():
    def fail() -> dict[str, object]:
        raise ValueError("no\nsuch kernel")

    row = process._row(Case("a", fail), float("inf"), "cpu")
    assert row["error"] == "ValueError: no such kernel"
    assert any("test_gpu.py" in place for place in row["trace"])
    assert line(row).startswith("  a: error ValueError: no such kernel, took")
    assert (
        process._row(Case("a", fail, ("no_such_package",)), float("inf"), "cpu")["dropped"] == "needs no_such_package"
    )
    assert process._row(Case("a", fail), 0.0, "cpu")["dropped"] == "out of time"


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures for minutes where there is a GPU")
def test_without_a_gpu_nothing_is_measured_and_the_command_says_how_to_try_it(tmp_path):
    with pytest.raises(SystemExit, match="--device stand-in"):
        command.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def works() -> Iterator[kernels.Work]:
    yield kernels.Work("kernel a", 0, 100)
    yield kernels.Work("kernel b", 50, 150)  # on another stream
    yield kernels.Work("Memcpy HtoD", 200, 300)
    yield kernels.Work("kernel a", 1300, 1400)


def test_gaps_are_the_time_in_which_no_kernel_and_no_copy_runs():
    found = kernels.timeline(works())
    assert (found["kernels"], found["copies"]) == (3, 1)
    assert (found["busy ms"], found["gaps ms"], found["largest gap ms"]) == (0.35, 1.05, 1.0)
    assert found["longest"][0] == "0.20 ms kernel a"


@pytest.mark.slow
@pytest.mark.parametrize("kind", encoded.KINDS)
def test_readers_decode_a_piece_again_and_again_into_the_rows_that_were_encoded(kind):
    waves = speech.rows([1.0, 2.5, 1.7])
    windowing = windowing_of(
        models.make("wav2vec2-base 94M", "cpu", "float32").summary, window_seconds=30, overlap_seconds=5
    )
    readers = encoded.Readers(encoded.encode(waves, kind), 2, windowing, 3.0)
    blocks = [*readers.blocks(3)]
    found = sorted((len(wave) for block in blocks for wave in waves_of(block)), reverse=True)
    assert found == sorted([len(one) for one in waves] * 3, reverse=True)
    assert all(one.column("error_type").null_count == len(one) for one in blocks)
    if kind != "opus 48 kHz":
        of_one = [wave for block in blocks for wave in waves_of(block) if len(wave) == len(waves[1])]
        assert all(np.array_equal(one, waves[1]) for one in of_one)


def test_what_a_reader_raises_ends_the_reading_and_no_thread_is_left(monkeypatch):
    def fail(*_: object) -> Iterator[object]:
        raise ValueError("no such recording")

    monkeypatch.setattr(encoded._ByTheStandardLibrary, "read", fail)
    monkeypatch.setattr(encoded, "BY_RAYSP", ("no_such_package",))
    before = threading.active_count()
    with pytest.raises(ValueError, match="no such recording"):
        list(encoded.Readers(encoded.encode(speech.rows([1.0]), "wav"), 3, None, 3.0).blocks(5))
    assert threading.active_count() == before


def test_without_the_packages_of_raysp_wav_is_read_by_the_standard_library(monkeypatch):
    monkeypatch.setattr(encoded, "BY_RAYSP", ("no_such_package",))
    assert encoded.usual_kind() == "wav"
    waves = speech.rows([1.0, 2.0])
    blocks = [*encoded.Readers(encoded.encode(waves, "wav"), 1, None, 1.5).blocks(2)]
    assert [len(wave) for block in blocks for wave in waves_of(block)] == [32_000, 16_000] * 2
