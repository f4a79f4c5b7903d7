"""Classes by the problem type of a checkpoint: one of several, independent ones, numbers; equal to transformers."""

import functools

import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.models import Wav2Vec2FeatureExtractor, check_checkpoint
from tests.corpora import labels_alone, samples_of, wav
from tests.models.oracles import make_oracle, transformers

NAMES = ["joy", "anger", "fear"]
KINDS = {
    "single": ("single_label_classification", 3),
    "multi": ("multi_label_classification", 3),
    "number": ("regression", 1),
    "unnamed number": (None, 1),
    "numbers": ("regression", 3),
}


@pytest.fixture(scope="module")
def oracles(tmp_path_factory):
    """Classifiers of transformers of each kind, with their folders."""

    @functools.cache
    def make(name: str):
        problem_type, num_labels = KINDS[name]
        folder, names = tmp_path_factory.mktemp("kind"), dict(enumerate(NAMES[:num_labels]))
        model = make_oracle("UniSpeechForSequenceClassification", problem_type=problem_type, id2label=names)
        model.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
        return model, folder

    return make


def logits_of(model, samples: torch.Tensor) -> torch.Tensor:
    values = transformers.Wav2Vec2FeatureExtractor()(samples.numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        return model(values.input_values).logits[0]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("single", {"top_k": "all"}),
        ("multi", {}),
        ("multi", {"threshold": 0.3}),
        ("multi", {"top_k": "all"}),
        ("number", {}),
        ("unnamed number", {"top_k": "all"}),
        ("numbers", {"top_k": "all"}),
    ],
)
def test_they_are_those_of_the_logits_of_transformers(oracles, kind, fields):
    model, folder = oracles(kind)
    output = raysp.Classes(**fields)
    output.check(check_checkpoint(folder))
    recordings = [wav(n, seed=n) for n in (4_000, 9_000, 24_000)]
    for row, recording in zip(labels_alone(folder, output, recordings, batch_seconds=4), recordings, strict=True):
        logits = logits_of(model, torch.from_numpy(samples_of(recording)))
        if kind == "multi":
            scores, least = logits.sigmoid(), -1 if fields.get("top_k") == "all" else fields.get("threshold", 0.5)
            order = [i for i in scores.argsort(descending=True).tolist() if scores[i] > least]
        elif kind == "single":
            scores = logits.softmax(-1)
            order = scores.argsort(descending=True).tolist()
        else:
            scores, order = logits, list(range(len(logits)))
        labels, values = row["pred_label"], row["pred_label_scores"]
        if not isinstance(labels, list):
            labels, values = [labels], [values]
        assert labels == [NAMES[i] for i in order]
        assert values == pytest.approx(scores[order].tolist(), abs=1e-4)


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
def test_fields_without_a_meaning_are_refused(oracles, kind, fields, words):
    with pytest.raises(CheckpointError, match=words):
        raysp.Classes(**fields).check(check_checkpoint(oracles(kind)[1]))
