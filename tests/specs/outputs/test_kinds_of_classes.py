"""Classes by the problem type of a checkpoint: one of several, independent ones, numbers; golden labels have them."""

import pytest

import raysp
from raysp import CheckpointError
from raysp.models import Wav2Vec2FeatureExtractor, check_checkpoint
from tests.models.oracles import make_oracle

KINDS = {
    "single": ("single_label_classification", 3),
    "multi": ("multi_label_classification", 3),
    "number": ("regression", 1),
    "numbers": ("regression", 3),
}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("single", {"threshold": 0.3}, "is for multi-label checkpoints; problem_type is 'single_label_classification'"),
        ("number", {"threshold": 0.3}, "is for multi-label checkpoints"),
        ("multi", {"top_k": 2}, "its classes are independent; give threshold=..., or top_k='all'"),
        ("number", {"top_k": 2}, "a regression with 1 number, which have no order; give top_k='all' or 1"),
        ("numbers", {}, "a regression with 3 numbers, which have no order; give top_k='all'$"),
    ],
)
def test_fields_without_a_meaning_are_refused(tmp_path, kind, fields, words):
    problem_type, num_labels = KINDS[kind]
    names = {number: f"c{number}" for number in range(num_labels)}
    model = make_oracle("UniSpeechForSequenceClassification", problem_type=problem_type, id2label=names)
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        raysp.Classes(**fields).check(check_checkpoint(tmp_path))
