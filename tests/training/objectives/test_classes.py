"""Training of classes: targets, and heads with the names of the classes."""

import pytest
import torch

from raysp import Classify
from raysp.models import (
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)
from raysp.training.objectives.classify_task import ClassifyTask
from tests.models.oracles import make_oracle, transformers
from tests.training.criteria import classify_criterion, plan_of
from tests.training.objectives.originals import ENCODERS, model_pair, random_batch

EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)
NAMES = ["calm", "angry", "sad"]


def model_of(head: str, encoder: str = "wav2vec2 layer", **fields):
    return model_pair(encoder, ENCODERS[encoder][0] + head, num_labels=3, **fields)[1]


@pytest.fixture(scope="module")
def model():
    return model_of("ForSequenceClassification")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([[0], []], "row 1: 0 targets found, expected one class"),
        ([[0, 1], [0]], "row 0: 2 targets found, expected one class"),
    ],
)
def test_a_wrong_target_is_named_with_its_row(model, targets, message):
    with pytest.raises(ValueError, match=message):
        classify_criterion(model, EXTRACTOR)(random_batch(targets))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with a CTC head."""
    folder = tmp_path_factory.mktemp("ctc")
    make_oracle("Wav2Vec2ForCTC", classifier_proj_size=12).save_pretrained(folder)
    return folder


def load_classifier(folder, names, seed=0, **fields):
    task = ClassifyTask(Classify(str(folder), column="label", **fields), names)
    return task.model(plan_of(folder, seed=seed)).train()


def test_a_new_head_has_the_names_of_the_classes(folder, tmp_path):
    model = load_classifier(folder, NAMES, masks={"mask_time_prob": 0.2})
    assert isinstance(model, Wav2Vec2ForSequenceClassification)
    assert model.training
    assert model.classifier.out_features == 3
    assert model.config.mask_time_prob == 0.2
    model.save_pretrained(tmp_path)
    theirs = transformers.Wav2Vec2ForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.id2label == {0: "calm", 1: "angry", 2: "sad"}
    assert theirs.config.label2id == {"calm": 0, "angry": 1, "sad": 2}
    assert torch.equal(theirs.classifier.weight, model.classifier.weight)


def test_a_head_with_the_same_classes_stays_and_one_with_others_is_new(folder, tmp_path):
    first = load_classifier(folder, NAMES, seed=1)
    first.save_pretrained(tmp_path)
    same = load_classifier(tmp_path, NAMES, seed=2)
    assert torch.equal(same.classifier.weight, first.classifier.weight)
    for names in (["sad", "angry", "calm"], ["yes", "no"]):
        other = load_classifier(tmp_path, names, seed=2)
        assert other.config.id2label == dict(enumerate(names))
        assert other.classifier.weight.shape == (len(names), 12)
        assert not any(torch.equal(row, first.classifier.weight[0]) for row in other.classifier.weight)
        assert not other.classifier.bias.any()
        assert torch.equal(other.projector.weight, first.projector.weight)
