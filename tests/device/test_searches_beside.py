"""Texts of beams are searched beside the stand-in device: it goes on with other batches, and labels are the same."""

import threading

import numpy as np
import pytest

import raysp
from raysp.ops.labelling import Labelling
from raysp.ops.transcripts import searching
from raysp.ops.transcripts.search_processes import SearchProcesses
from tests.corpora import CHECKPOINT
from tests.device.conftest import assert_same
from tests.device.stand_in import NAME, counted
from tests.ops.test_labelling import block_of
from tests.ops.test_precision import noise

BATCHES = 4


class Waiting(SearchProcesses):
    """Processes of which none answers before the device has run all batches."""

    def __init__(self) -> None:
        super().__init__(BATCHES)
        self.all_ran = threading.Barrier(BATCHES)

    def start(self) -> None:
        """Start nothing."""

    def search(self, *_: object) -> None:
        """Return None, so that this process searches."""
        self.all_ran.wait(120)


def labels(device: str) -> list[dict[str, object]]:
    waves = [(wave * 32767 / 2).astype(np.int16) for wave in noise([1.5] * BATCHES, seed=1)]
    output = raysp.Transcript(beams=4, nbest=2)
    op = Labelling(
        str(CHECKPOINT), lambda loaded: [output.op(loaded.summary, loaded)], batch_seconds=1.5, device=device
    )
    return op(block_of(waves))[0].to_pylist()


def test_the_device_runs_further_batches_while_texts_are_searched(monkeypatch):
    processes = Waiting()
    monkeypatch.setattr(searching, "processes", lambda: processes)
    found = labels(NAME)
    assert not processes.all_ran.broken
    assert_same(found, labels("cpu"))


@pytest.mark.parametrize("beams", [1, 8])
def test_a_batch_has_one_copy_out_and_one_wait_whatever_its_search(beams):
    op = Labelling(
        str(CHECKPOINT),
        lambda loaded: [raysp.Transcript(beams=beams).op(loaded.summary, loaded)],
        batch_seconds=8,
        device=NAME,
    )
    block = block_of(noise([1.5, 1.2], seed=2))
    op(block)  # constants are made
    with counted() as counts:
        op(block)
    assert (sum(counts.copies_out.values()), sum(counts.waits.values()), counts.blocking) == (1, 1, {})
