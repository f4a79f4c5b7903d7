"""Embeddings of several layers and of their learned sum: of which the golden labels have the values."""

import pytest

import raysp
from raysp import CheckpointError, SpecError
from raysp.models import Wav2Vec2FeatureExtractor, check_checkpoint
from tests.models.oracles import make_oracle


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layer": ()}, "expected different layers, at least one"),
        ({"layer": (1, -2)}, "greater than or equal to -1"),
        ({"layer": "all", "pooling": "xvector"}, "reads no layer"),
    ],
)
def test_layers_that_cannot_be_are_refused(fields, words):
    with pytest.raises(SpecError, match=words):
        raysp.Embedding(**fields)


def test_layers_that_a_checkpoint_lacks_are_refused(tmp_path):
    make_oracle("UniSpeechForSequenceClassification").save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"layer=3, found 2 layers; give -1 to 2"):
        raysp.Embedding(layer=(0, 3)).check(check_checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match=r"layer='mix', but no head of UniSpeechForSequenceClassification has"):
        raysp.Embedding(layer="mix").check(check_checkpoint(tmp_path))
