"""Recognisers of transformers: a row has the text that it has alone, which is that of transformers, in any batch."""

import numpy as np
import pytest

import raysp
from raysp.backends.hugging_face.padded_batches import PADDED, why_alone
from raysp.backends.hugging_face.recogniser_families import FAMILIES
from tests.backends.recognisers.loops import LANGUAGES, written
from tests.backends.recognisers.tiny import BUILDERS
from tests.backends.theirs import labelling, waves
from tests.ops.test_labelling import block_of, labels

LENGTHS = (24_000, 9_000, 16_000, 33_333)


def test_each_family_has_a_checkpoint_here():
    assert BUILDERS.keys() == FAMILIES.keys()
    assert {*BUILDERS} >= PADDED


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_texts_alone_and_together_are_those_of_transformers(recogniser, name):
    folder, recordings = recogniser(name), waves(LENGTHS)
    op = labelling(folder, raysp.Transcript(language=LANGUAGES.get(name)), windows_alone=bool(why_alone(name)))
    assert op.is_alone == (name not in PADDED)
    together = labels(op, block_of(recordings))
    alone = [labels(op, block_of([wave]))[0] for wave in recordings]
    assert {row["status"] for row in together.values()} == {"ok"}
    texts = [row["pred_text"] for row in alone]
    assert texts == [row["pred_text"] for row in together.values()]
    assert texts == written(folder, name, recordings)
    assert any(texts)
    scores = [[row["pred_score"] for row in rows] for rows in (together.values(), alone)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert max(scores[0]) < 0
