"""Models with random weights in place of those of their checkpoints."""

from functools import partial

import pytest
import torch

from raysp.models import AutoModelForAudioFrameClassification, AutoModelForAudioXVector
from raysp.training.objectives.starting_model import load_head
from raysp.training.tasks.class_task import load_classifier
from raysp.training.tasks.pretraining_task import load_pretraining_model
from tests.recipes import tiny_checkpoint, tiny_listener

NAMES = ["calm", "angry"]
LOADERS = {
    "classes": (tiny_listener, partial(load_classifier, names=NAMES)),
    "frames": (tiny_listener, partial(load_head, AutoModelForAudioFrameClassification, names=NAMES)),
    "speakers": (tiny_listener, partial(load_head, AutoModelForAudioXVector, names=NAMES)),
    "pretraining": (tiny_checkpoint, load_pretraining_model),
}


@pytest.mark.parametrize("name", LOADERS)
def test_random_weights_are_those_of_the_seed_alone(name, tmp_path):
    write, load = LOADERS[name]
    folder = write(tmp_path / "checkpoint")
    kept = load(folder, seed=1).state_dict()
    first, again, other = (load(folder, seed=seed, random_weights=True).state_dict() for seed in (0, 0, 1))
    matrices = [key for key, value in first.items() if "encoder.layers" in key and value.dim() > 1]
    assert first.keys() == kept.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in matrices)
    assert not any(torch.equal(other[key], kept[key]) for key in matrices)
