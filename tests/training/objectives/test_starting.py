"""Models with random weights in place of those of their checkpoints."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysp import Classify, Schedule, Speakers, finetune
from tests.recipes import a_recipe, write_words

pytestmark = pytest.mark.slow

OBJECTIVES = {
    "classes": (Classify, {"column": "speaker"}),
    "speakers": (Speakers, {"column": "speaker", "crop_seconds": 0.5}),
}


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    return write_words(tmp_path_factory.mktemp("words"), 6)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_random_weights_are_those_of_the_seed_alone(words, listener, tmp_path, name):
    kind, fields = OBJECTIVES[name]
    checkpoint = Path(listener)
    ones = Path(shutil.copytree(checkpoint, tmp_path / "ones"))
    save_file({key: torch.ones_like(one) for key, one in weights(checkpoint).items()}, ones / "model.safetensors")
    found = []
    for folder, seed in ((checkpoint, 0), (ones, 0), (checkpoint, 1)):
        sink = tmp_path / f"{folder.name}-{seed}"
        objective = kind(str(folder), random_weights=True, **fields)
        schedule = Schedule(steps=1, learning_rate=1e-30)  # so that no weight but a zero changes
        finetune(a_recipe(words, folder, sink, objective=objective, schedule=schedule, seed=seed))
        found.append(weights(sink))
    first, again, other = found
    matrices = [key for key, value in first.items() if "encoder.layers" in key and value.dim() > 1]
    kept = {key.partition("encoder.layers")[2]: value for key, value in weights(checkpoint).items()}
    assert matrices
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in matrices)
    assert not any(torch.equal(other[key], kept[key.partition("encoder.layers")[2]]) for key in matrices)
