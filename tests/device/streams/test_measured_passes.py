"""Sizes of passes that are measured on the stand-in device, whose time and memory are made up."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp.ops import budget, labelling
from raysp.ops.labelling import Labelling, OneBatch
from raysp.ops.passes import pass_measuring
from tests.corpora import CHECKPOINT, DEMO, write_shard
from tests.device.conftest import assert_same
from tests.device.crossing_cases import spoken
from tests.device.stand_in import NAME
from tests.ops.test_labelling import block_of

ROOT = Path(__file__).parents[3]
PLANNED = 4.0
MB = 2**20


class Made:
    """Time and memory of passes: seconds of each pass and of each padded second, bytes of each padded second."""

    def __init__(self) -> None:
        self.each, self.a_second, self.bytes_a_second, self.memory = 0.0, 1e-3, 8 * MB, 10**6 * MB
        self.now, self.held, self.highest = 0.0, 100 * MB, 100 * MB
        self.tried: list[float] = []

    def ran(self, seconds: float) -> None:
        self.tried.append(seconds)
        needed = int(self.bytes_a_second * seconds)
        if self.held + needed > self.memory:
            raise torch.OutOfMemoryError("out of memory")
        self.now += self.each + self.a_second * seconds
        self.highest = max(self.highest, self.held + needed)


@pytest.fixture
def made(monkeypatch) -> Iterator[Made]:
    made, module = Made(), torch.get_device_module(NAME)
    functions = {
        "memory_allocated": lambda _: made.held,
        "max_memory_allocated": lambda _: made.highest,
        "reset_peak_memory_stats": lambda _: setattr(made, "highest", made.held),
        "mem_get_info": lambda _: (made.memory - made.held, made.memory),
        "get_device_name": lambda _: "made card",
    }
    for name, function in functions.items():
        monkeypatch.setattr(module, name, function, raising=False)
    monkeypatch.setattr(pass_measuring, "time", SimpleNamespace(perf_counter=lambda: made.now))
    try_out = OneBatch.try_out

    def tried(batch: OneBatch) -> None:
        made.ran(batch.padded.arrays[0].size / 16_000)
        try_out(batch)

    monkeypatch.setattr(OneBatch, "try_out", tried)
    return made


def op_of(measured: dict[str, float] | None, *, dtype: str = "float32", device: str = NAME) -> Labelling:
    def outputs(loaded):
        return [raysp.Transcript(words=True).op(loaded)]

    return Labelling(str(CHECKPOINT), outputs, batch_seconds=PLANNED, dtype=dtype, device=device, measured=measured)


def block(windows: int = 12) -> pa.Table:
    waves = spoken()[0]
    return block_of([waves[place % len(waves)] for place in range(windows)])


@pytest.mark.parametrize(("each", "share"), [(0.1, 2), (0.0, 0.25), (3e-5, 0.5)])
def test_the_measured_size_is_used_and_labels_are_those_of_the_cpu(made, each, share):
    made.each = each
    op = op_of({})
    found, figures = op(block())
    assert figures.measured.card == "made card"
    assert figures.measured.seconds == share * PLANNED
    assert figures.measured.frames == share * PLANNED * 50
    assert figures.measured.is_used
    assert op.budget == op.max_samples == share * PLANNED * 16_000
    assert_same(found.to_pylist(), op_of(None, device="cpu")(block())[0].to_pylist())
    again, figures = op(block())
    assert figures.measured is None
    assert_same(again.to_pylist(), found.to_pylist())


def test_each_size_is_run_twice_and_the_faster_pass_counts(made):
    def first_is_slow(seconds: float) -> None:
        made.now += 5.0 * (seconds not in made.tried)
        ran(seconds)

    ran, made.ran = made.ran, first_is_slow
    _, figures = op_of({})(block())
    assert sorted(set(made.tried)) == made.tried[::2] == made.tried[1::2]
    assert [round(one.rate) for one in figures.measured.passes] == [1000] * len(figures.measured.passes)


@pytest.mark.parametrize(("most", "sizes"), [(1.5, 1), (3.0, 2), (7.0, 3), (0.1, 0)])
def test_passes_that_exceed_the_memory_end_the_measurement_and_no_row_fails(made, most, sizes):
    made.each, made.memory = 0.1, made.held + int(most * made.bytes_a_second)
    op = op_of({})
    found, figures = op(block())
    assert {row["status"] for row in found.to_pylist()} == {"ok"}
    if not sizes:
        assert figures.measured is None
        assert op.budget == PLANNED * 16_000
        return
    assert len(figures.measured.passes) <= sizes
    assert figures.measured.seconds == figures.measured.passes[-1].seconds <= most


def test_what_is_left_of_the_memory_bounds_passes_in_hand(made):
    made.each = 0.1
    op = op_of({})
    needed = 4 * made.bytes_a_second
    made.memory = int((made.held + needed) / 0.9)  # a pass of four seconds fits, one of eight could run alone
    _, figures = op(block())
    assert figures.measured.seconds == 4.0
    assert max(made.tried) <= 4.0


def test_where_labels_may_depend_on_the_batch_it_is_measured_and_not_used(made):
    made.each = 0.1
    op, other = op_of({}, dtype="bfloat16"), op_of(None, dtype="bfloat16")
    found, figures = op(block())
    assert not figures.measured.is_used
    assert figures.measured.seconds == 2 * PLANNED
    assert op.budget == PLANNED * 16_000
    assert found.to_pylist() == other(block())[0].to_pylist()


def test_a_recorded_size_is_used_without_a_measurement(made):
    op = op_of({"made card": 2.0, "other card": 7.0})
    assert op.budget == 2 * 16_000
    assert op(block())[1].measured is None
    assert made.tried == []


def test_a_given_size_is_not_measured(made):
    op = op_of(None)
    assert op(block())[1].measured is None
    assert (op.budget, made.tried) == (PLANNED * 16_000, [])


def test_a_block_with_less_audio_than_a_pass_leaves_it_to_the_next(made):
    op = op_of({})
    assert op(block(1))[1].measured is None
    assert made.tried == []
    assert op(block())[1].measured is not None


def test_a_model_that_fails_is_left_to_labelling(made):
    def fails(seconds: float) -> None:
        raise ValueError("the model fails")

    made.ran = fails
    found, figures = op_of({})(block())
    assert figures.measured is None
    assert {row["status"] for row in found.to_pylist()} == {"ok"}


def test_other_blocks_wait_until_passes_are_measured(made):
    op, goes_on, is_measuring = op_of({}), threading.Event(), threading.Event()
    ran, waited = made.ran, []

    def wait(seconds: float) -> None:
        is_measuring.set()
        waited.append(goes_on.wait(60))
        ran(seconds)

    made.ran = wait
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(op, block())
        assert is_measuring.wait(60)
        second = threads.submit(op, block())
        with pytest.raises(TimeoutError):
            second.result(0.3)
        goes_on.set()
        assert (first.result()[1].measured is None, second.result()[1].measured) == (False, None)
    assert all(waited)


SMALL_PASSES = (
    "import sys, raysp.ops.budget as budget; budget.GPU_BATCH_SECONDS = 2.0; from raysp.cli import main; main()"
)


def test_a_run_records_the_size_and_the_next_one_uses_it(tmp_path, monkeypatch, raysp_command, without_ray):
    """The first run is a command, whose process of its own measures; all else is done here."""
    monkeypatch.chdir(tmp_path)
    for module in (budget, labelling):
        monkeypatch.setattr(module, "GPU_BATCH_SECONDS", 2.0)
    installed = tmp_path / "code" / "standin-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: standin\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[torch.backends]\nstandin = tests.device.stand_in:install\n")
    table = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0).slice(0, 8)
    (tmp_path / "audio").mkdir()
    write_shard(tmp_path / "audio" / "a.parquet", table=table)
    (tmp_path / "label.py").write_text(
        f"import raysp\noutputs = [raysp.Transcript()]\n"
        f"label = raysp.Label({str(CHECKPOINT)!r}, outputs=outputs, dtype='float32', device={NAME!r})\n"
        "pipeline = raysp.Pipeline(raysp.Shards('audio/*.parquet'), steps=[raysp.Decode(), label], "
        "sink=raysp.Parquet('out'))\n"
    )

    def command(*words: str) -> str:
        ran = raysp_command(*words)
        assert ran.code == 0, ran.err
        return ran.out + ran.err

    assert "2 padded seconds a pass, to be measured" in command("plan", "label.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "code"), str(ROOT)])}
    started = [sys.executable, "-c", SMALL_PASSES, "run", "label.py"]
    ran = subprocess.run(started, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    [recorded] = [json.loads(file.read_text()) for file in (tmp_path / "out/.raysp/budgets").iterdir()]
    assert recorded["measured"]["card"] == NAME
    seconds = recorded["measured"]["seconds"]
    assert f"(measured as fastest: {NAME} {seconds:g} s, " in command("plan", "label.py")
    write_shard(tmp_path / "audio" / "b.parquet", table=table)
    command("run", "label.py")
    events = [
        json.loads(line)
        for file in sorted((tmp_path / "out/.raysp/log").glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    [measured] = [one for one in events if one["kind"] == "passes_measured"]
    assert measured["is_recorded"]
    assert measured["passes"] == recorded["measured"]["passes"]
    assert len({one["run"] for one in events if "run" in one}) == 2
    assert f"{seconds:g} s, " in command("status", "out", "--verbose")
