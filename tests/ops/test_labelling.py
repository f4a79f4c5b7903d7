"""Labelling: the same label whatever the batch and the block, and a fault costs one row."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp.audio import decode
from raysp.devices import DeviceLostError
from raysp.models import LoadedCheckpoint
from raysp.ops.forward import Forward, Rows, Selected
from raysp.ops.labelling import Labelling
from raysp.ops.late_steps import joined
from raysp.ops.rows import RowStatus, statuses_table, with_waves
from tests.corpora import CHECKPOINT, DEMO

NUM_ROWS = 24


def block_of(waves: Sequence[np.ndarray | None], rows: Sequence[int] | None = None) -> pa.Table:
    statuses = [RowStatus(row) for row in (range(len(waves)) if rows is None else rows)]
    for row_status, wave in zip(statuses, waves, strict=True):
        if wave is None:
            row_status.fail("no_audio", "null")
        else:
            row_status.seconds = len(wave) / 16_000
    return with_waves(statuses_table(statuses), waves)


def labelling(batch_seconds: float = 60, checkpoint: Path = CHECKPOINT, extra: object = None, **options) -> Labelling:
    def outputs(loaded: LoadedCheckpoint) -> list[object]:
        return [raysp.Transcript().op(loaded.summary, loaded), *([extra] if extra else [])]

    return Labelling(str(checkpoint), outputs, batch_seconds=batch_seconds, **options)


def labels(op: Labelling, block: pa.Table) -> dict[int, dict[str, object]]:
    table, _ = op(block)
    return {row["row"]: row for row in table.to_pylist()}


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    file = next(iter(sorted((DEMO / "audio").glob("*.parquet"))))
    recordings = pq.ParquetFile(file).read_row_group(0, ["audio"]).column("audio").to_pylist()[:NUM_ROWS]
    return [decode(one["bytes"], sample_rate=16_000) for one in recordings]


@pytest.fixture(scope="module")
def op() -> Labelling:
    return labelling()


@pytest.fixture(scope="module")
def alone(waves, op) -> dict[int, tuple[str, float]]:
    """Text and score of every row when the model runs on it alone."""
    found = [labels(op, block_of([wave]))[0] for wave in waves]
    return {row: (one["pred_text"], one["pred_score"]) for row, one in enumerate(found)}


def assert_same(found: dict[int, dict[str, object]], alone: dict[int, tuple[str, float]]) -> None:
    assert found
    for row, label in found.items():
        text, score = alone[row]
        assert label["status"] == "ok"
        assert label["pred_text"] == text
        assert label["pred_score"] == pytest.approx(score, abs=5e-4)


@pytest.fixture
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_labels_of_several_passes_at_once_are_those_of_rows_alone(threads_as_before, waves, alone):
    mates = [None, np.zeros(3, np.float32), np.full(90_000, np.nan, np.float32)]
    op = labelling(batch_seconds=5, threads=6)
    table, figures = op(block_of([*waves, *mates]))
    found = {row["row"]: row for row in table.to_pylist()}
    assert_same({row: found[row] for row in range(NUM_ROWS)}, alone)
    assert [found[NUM_ROWS + i]["error_type"] for i in range(3)] == ["no_audio", "too_short", "model_output"]
    lengths = [len(wave) for wave in [*waves, mates[-1]]]
    assert (figures.windows, figures.audio_seconds) == (len(lengths), pytest.approx(sum(lengths) / 16_000))
    assert sum(lengths) / 16_000 <= figures.padded_seconds <= len(lengths) * max(lengths) / 16_000
    assert figures.busy_seconds > 0
    assert op(block_of([*waves, *mates]))[0].equals(table)  # bit for bit, whichever thread took a batch


@pytest.mark.lengthy
def test_an_op_from_outside_raysp_is_never_called_twice_at_once(threads_as_before, waves):
    class Alone(Fussy):
        inside = 0

        def is_refused(self, frames: Sequence[int]) -> bool:
            self.be_alone()
            return False

        def columns(self, arrays: Mapping[str, np.ndarray], rows: Rows) -> list[Sequence[object]]:
            self.be_alone()
            return super().columns(arrays, rows)

        def be_alone(self) -> None:
            self.inside += 1
            time.sleep(0.02)
            assert self.inside == 1
            self.inside -= 1

    found = labels(labelling(3, extra=Alone(ValueError()), threads=4), block_of(waves))
    assert {row["status"] for row in found.values()} == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize(("batch_seconds", "seed"), [(5, 1), (600, 2)])
def test_labels_are_the_same_for_any_budget_any_block_and_any_order_in_it(waves, alone, batch_seconds, seed):
    op, order = labelling(batch_seconds), np.random.default_rng(seed).permutation(len(waves))
    cut = seed * 7 + 3
    for rows in (order[:cut], order[cut:]):
        assert_same(labels(op, block_of([waves[row] for row in rows], rows)), alone)


class Fussy:
    """An output that cannot stand recordings of one length."""

    layers: tuple[int, ...] = ()

    def __init__(self, error: Exception) -> None:
        self.schema = pa.schema([("frames", pa.int64())])
        self.staged = pa.schema([])
        self.error = error
        self.calls: list[int] = []

    def select(self, forward: Forward) -> Selected:
        frames = forward.rows.lengths.frames
        self.calls.append(len(frames))
        if self.is_refused(frames):
            raise self.error
        return {"frames": forward.num_frames_B}

    def columns(self, arrays: Mapping[str, np.ndarray], rows: Rows) -> list[Sequence[object]]:
        return [arrays["frames"].tolist()]

    def is_refused(self, frames: Sequence[int]) -> bool:
        return 49 in frames

    def empty(self) -> tuple[object, ...]:
        return (0,)


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (KeyError("x"), "step_failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
    ],
)
def test_a_batch_that_fails_is_halved_down_to_the_row_at_fault(waves, alone, error, error_type, caplog):
    fussy = Fussy(error)
    op = labelling(600, extra=fussy)
    given = [wave for wave in waves if op.loaded.model.num_frames(torch.tensor([len(wave)])).item() != 49][:7]
    rows = [next(i for i, wave in enumerate(waves) if wave is one) for one in given]
    found = labels(op, block_of([*given, np.zeros(16_000, np.int16)], [*rows, 99]))
    failed = found.pop(99)
    assert (failed["status"], failed["error_type"]) == ("error", error_type)
    place = rf"the model failed: tests/ops/test_labelling\.py:\d+: {type(error).__name__}: "
    assert re.match(place, failed["error_message"])
    assert failed["pred_text"] is failed["frames"] is None
    assert_same(found, alone)
    assert len(found) == 7
    assert fussy.calls[0] == 8
    # 8, then 4 + 4, 2 + 2, 1 + 1; where memory is short, halves that are too large are not even tried
    assert len(fussy.calls) == 7 if error_type == "step_failed" else 7 <= len(fussy.calls) <= 9
    assert "a batch of 8 windows failed and is halved" in caplog.text


@pytest.mark.slow
def test_a_budget_that_does_not_fit_the_memory_is_halved_once_and_grows_back_slowly(waves, alone):
    small, rows = Fussy(torch.OutOfMemoryError("CUDA out of memory")), list(range(8))
    small.is_refused = lambda frames: len(frames) > 3
    op = labelling(600, extra=small)
    assert_same(labels(op, block_of([waves[row] for row in rows], rows)), alone)
    assert small.calls[:4] == [8, 4, 2, 2]
    small.calls.clear()
    assert_same(labels(op, block_of([waves[row] for row in rows], rows)), alone)
    assert max(small.calls) <= 3  # what did not fit is not tried again
    assert op.max_samples < op.budget
    for _ in range(80):
        op(block_of([], []))
    assert op.max_samples == op.budget


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceLostError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_lost_device_or_the_end_of_a_run_is_no_error_of_a_row(waves, raised, error):
    op = labelling(extra=Fussy(raised))
    with pytest.raises(error):
        op(block_of([np.zeros(16_000, np.int16), waves[0]], [0, 1]))


class Wrong(Fussy):
    """An output that selects or returns something else for recordings of one length."""

    __module__ = "levels"

    def __init__(self, selected: object = None, columns: Callable[[list[int]], object] | None = None) -> None:
        super().__init__(ValueError())
        self.selected, self.made = selected, columns

    def select(self, forward: Forward) -> Selected:
        is_wrong = self.selected is not None and self.is_refused(forward.rows.lengths.frames)
        return self.selected if is_wrong else {"frames": forward.num_frames_B}

    def columns(self, arrays: Mapping[str, np.ndarray], rows: Rows) -> list[Sequence[object]]:
        frames = arrays["frames"].tolist()
        return self.made(frames) if self.made and self.is_refused(frames) else [frames]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"selected": [1]}, "selected a list; expected a dict of tensors by name"),
        ({"columns": lambda frames: [[*frames, 0]]}, r"returned \d values for frames; expected 1"),
        ({"columns": lambda frames: [["many" for _ in frames]]}, "returned values for frames that are not int64: "),
    ],
)
def test_an_output_that_is_wrong_fails_its_row_alone_and_is_named(waves, alone, wrong, reason):
    op = labelling(600, extra=Wrong(**wrong))
    frames = [op.loaded.model.num_frames(torch.tensor([len(wave)])).item() for wave in waves[:12]]
    rows = [row for row, of_row in enumerate(frames) if of_row != 49][:5]
    found = labels(op, block_of([*(waves[row] for row in rows), np.zeros(16_000, np.int16)], [*rows, 99]))
    failed = found.pop(99)
    assert (failed["status"], failed["error_type"]) == ("error", "step_failed")
    assert re.match(f"levels:Wrong {reason}", failed["error_message"])
    assert_same(found, alone)
    assert [found[row]["frames"] for row in rows] == [frames[row] for row in rows]


@pytest.mark.parametrize("made", [None, (1, 2), ("many",)])
def test_an_output_that_joins_otherwise_fails_the_longer_row(made):
    wrong = Wrong()
    wrong.join = lambda windows: made
    row_status = RowStatus(0)
    assert joined([wrong], statuses_table([row_status]), row_status) is None
    assert (row_status.status, row_status.error_type) == ("error", "step_failed")
    assert row_status.error_message.startswith("levels:Wrong returned ")
