"""Labelling: the same label whatever the batch and its order, and a fault of an output costs one row."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import raysp
from tests.corpora import CHECKPOINT, digits_table, samples_of
from tests.user_specs import OPS, Given

WAVES = [samples_of(one["bytes"]) for one in digits_table(24).column("audio").to_pylist()]
RATE = 8_000  # of the recordings; the model wants 16,000
ODD = 49
"""Frames of a recording of a second, which no digit has."""
SECOND = np.zeros(RATE, np.float32)


@pytest.fixture(autouse=True)
def threads() -> Iterator[Callable[[int], None]]:
    """Set the threads of passes, one unless a test asks for more; later tests have those of before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def labeller(batch_seconds: float = 600, op: object = None, **label: object) -> raysp.Labeller:
    """Return a labeller of transcripts, with another output by an op."""
    outputs = [raysp.Transcript(), *([Given()] if op else [])]
    OPS["frames"] = op
    step = raysp.Label(str(CHECKPOINT), outputs=outputs, batch_seconds=batch_seconds, **label)
    return raysp.Labeller([raysp.Decode(), step])


@pytest.fixture(scope="module")
def alone() -> list[tuple[str, float]]:
    """Text and score of every row when the model runs on it alone."""
    with labeller() as of_row:
        rows = [of_row.arrays([wave], RATE).to_pylist()[0] for wave in WAVES]
    return [(row["pred_text"], row["pred_score"]) for row in rows]


def assert_same(rows: Sequence[dict[str, Any]], alone: Sequence[tuple[str, float]]) -> None:
    assert {row["status"] for row in rows} == {"ok"}
    assert [row["pred_text"] for row in rows] == [text for text, _ in alone]
    assert [row["pred_score"] for row in rows] == pytest.approx([score for _, score in alone], abs=5e-4)


@pytest.mark.slow
def test_labels_of_several_passes_at_once_are_those_of_rows_alone(threads, alone):
    threads(6)
    of_rows = labeller(5)
    found = of_rows.arrays([*WAVES, np.zeros(3, np.float32)], RATE)
    assert_same(found.to_pylist()[:-1], alone)
    assert found.to_pylist()[-1]["error_type"] == "too_short"
    again = of_rows.arrays([*WAVES, np.zeros(3, np.float32)], RATE)
    assert again.equals(found)  # bit for bit, whichever thread took a batch


@pytest.mark.slow
@pytest.mark.parametrize("batch_seconds", [5, 600])
def test_labels_are_the_same_for_any_budget_and_any_order(alone, batch_seconds):
    order = np.random.default_rng(0).permutation(len(WAVES))
    rows = labeller(batch_seconds).arrays([WAVES[row] for row in order], RATE).to_pylist()
    assert_same(rows, [alone[row] for row in order])


class Fussy:
    """Op of an output that cannot stand recordings of one length."""

    layers: tuple[int, ...] = ()

    def __init__(self, error: Exception | None = None) -> None:
        self.schema = pa.schema([("frames", pa.int64())])
        self.staged = pa.schema([])
        self.error = error
        self.calls: list[int] = []

    def select(self, forward: Any) -> Any:
        frames = forward.rows.lengths.frames
        self.calls.append(len(frames))
        if self.error and self.is_refused(frames):
            raise self.error
        return {"frames": forward.num_frames_B}

    def columns(self, arrays: Any, rows: Any) -> list[Sequence[object]]:
        return [arrays["frames"].tolist()]

    def is_refused(self, frames: Sequence[int]) -> bool:
        return ODD in frames

    def empty(self) -> tuple[object, ...]:
        return (0,)


@pytest.mark.lengthy
def test_an_op_from_outside_raysp_is_never_called_twice_at_once(threads):
    class Alone(Fussy):
        inside = 0

        def select(self, forward: Any) -> Any:
            self.be_alone()
            return super().select(forward)

        def columns(self, arrays: Any, rows: Any) -> list[Sequence[object]]:
            self.be_alone()
            return super().columns(arrays, rows)

        def be_alone(self) -> None:
            self.inside += 1
            time.sleep(0.02)
            assert self.inside == 1
            self.inside -= 1

    threads(4)
    rows = labeller(3, Alone()).arrays(WAVES, RATE).to_pylist()
    assert {row["status"] for row in rows} == {"ok"}


OOM = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (KeyError("x"), "step_failed"),
        (OOM, "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
    ],
)
def test_a_batch_that_fails_is_halved_down_to_the_row_at_fault(alone, error, error_type, caplog):
    fussy = Fussy(error)
    *rows, failed = labeller(op=fussy).arrays([*WAVES[:7], SECOND], RATE).to_pylist()
    assert (failed["status"], failed["error_type"]) == ("error", error_type)
    place = rf"the model failed: tests/ops/test_labelling\.py:\d+: {type(error).__name__}: "
    assert re.match(place, failed["error_message"])
    assert failed["pred_text"] is failed["frames"] is None
    assert_same(rows, alone[:7])
    assert fussy.calls[0] == 8
    # 8, then 4 + 4, 2 + 2, 1 + 1; where memory is short, halves that are too large are not even tried
    assert len(fussy.calls) == 7 if error_type == "step_failed" else 7 <= len(fussy.calls) <= 9
    assert "a batch of 8 windows failed and is halved" in caplog.text


@pytest.mark.slow
def test_a_budget_that_does_not_fit_the_memory_is_halved_once_and_grows_back_slowly(alone):
    small = Fussy(OOM)
    small.is_refused = lambda frames: len(frames) > 3
    of_rows = labeller(op=small)
    assert_same(of_rows.arrays(WAVES[:8], RATE).to_pylist(), alone[:8])
    assert small.calls[:4] == [8, 4, 2, 2]
    small.calls.clear()
    assert_same(of_rows.arrays(WAVES[:8], RATE).to_pylist(), alone[:8])
    assert max(small.calls) <= 3  # what did not fit is not tried again
    for _ in range(80):
        of_rows.arrays([], RATE)
    small.calls.clear()
    assert_same(of_rows.arrays(WAVES[:8], RATE).to_pylist(), alone[:8])
    assert small.calls[0] == 8


class Wrong(Fussy):
    """Op of an output that selects or returns something else for recordings of one length."""

    __module__ = "levels"

    def __init__(self, selected: object = None, columns: Callable[[list[int]], object] | None = None) -> None:
        super().__init__()
        self.selected, self.made = selected, columns

    def select(self, forward: Any) -> Any:
        is_wrong = self.selected is not None and self.is_refused(forward.rows.lengths.frames)
        return self.selected if is_wrong else super().select(forward)

    def columns(self, arrays: Any, rows: Any) -> list[Sequence[object]]:
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
def test_an_output_that_is_wrong_fails_its_row_alone_and_is_named(alone, wrong, reason):
    *rows, failed = labeller(op=Wrong(**wrong)).arrays([*WAVES[:5], SECOND], RATE).to_pylist()
    assert (failed["status"], failed["error_type"]) == ("error", "step_failed")
    assert re.match(f"levels:Wrong {reason}", failed["error_message"])
    assert_same(rows, alone[:5])
    assert [row["frames"] for row in rows] == [(2 * len(wave) - 400) // 320 + 1 for wave in WAVES[:5]]
