"""Searches of transducers in packs on the stand-in device: steps of one shape, which more rows do not add to."""

from collections import Counter

import numpy as np
import pytest

import raysp
from raysp.ops.transcripts.transducer_texts import Transducing
from tests.device.stand_in import NAME, counted
from tests.device.streams.test_packs_on_device import op
from tests.models.encoder.test_encoder_packs import Arithmetic
from tests.ops.test_labelling import block_of, labels
from tests.ops.test_precision import noise

KINDS = ("ParakeetForTDT", "ParakeetForRNNT")
SECONDS = (1.5, 0.6, 1.0, 2.4, 0.4)


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    return noise(SECONDS, seed=1)


@pytest.fixture
def searches(monkeypatch) -> list[tuple[Counter[tuple[object, ...]], int, int]]:
    """Layouts, launches and waits of each search of a pack."""
    found, search = [], Transducing._of_cohorts

    def seen(self, frames):
        with Arithmetic() as mode, counted() as counts:
            result = search(self, frames)
        found.append((mode.seen, counts.launches, sum(counts.waits.values())))
        return result

    monkeypatch.setattr(Transducing, "_of_cohorts", seen)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_has_the_same_ops_whoever_shares_the_pack(kind, waves, checkpoints, searches):
    one = op(checkpoints(kind), [raysp.Transcript(words=True)])
    for rows in [(3,), (0, 3), (4, 3, 1, 0, 2)]:
        labels(one, block_of([waves[row] for row in rows]))
    (alone, launches, waits), *others = searches
    assert launches > 100
    # The longest text is that of the longest row: steps are as many as when it is alone.
    for layouts, more_launches, more_waits in others:
        assert {*layouts} == {*alone}
        assert (more_launches, more_waits) == (launches, waits)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_in_packs_are_those_of_batches(kind, waves, checkpoints):
    in_packs = op(checkpoints(kind), [raysp.Transcript()], dtype="float16")
    alone = raysp.ops.labelling.Labelling(
        str(checkpoints(kind)),
        lambda loaded: [raysp.Transcript().op(loaded)],
        batch_seconds=1,
        dtype="float16",
        device=NAME,
        certified=False,
    )
    found, expected = labels(in_packs, block_of(waves)), labels(alone, block_of(waves))
    same = sum(found[row]["pred_text"] == expected[row]["pred_text"] for row in range(len(waves)))
    assert same >= len(waves) - 1
