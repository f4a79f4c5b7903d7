"""Weights that do not fit their configuration by name or shape: a check of the folder and a load refuse them alike."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import raysp
from raysp.models import UniSpeechForCTC, check_checkpoint, load_checkpoint
from tests.corpora import CHECKPOINT

HEAD, BIAS = "lm_head.weight", "lm_head.bias"
EMBED = "unispeech.masked_spec_embed"
Weights = dict[str, torch.Tensor]


def changed(folder: Path, change: Callable[[Weights], object]) -> Path:
    """Copy the demo checkpoint with other weights."""
    shutil.copytree(CHECKPOINT, folder / "checkpoint")
    file = folder / "checkpoint" / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    return folder / "checkpoint"


@pytest.fixture(params=[check_checkpoint, load_checkpoint])
def opened(request) -> Callable[[Path], object]:
    """The check of a folder, which reads headers, and the loader, which reads tensors."""
    return request.param


def refusal(opened: Callable[[Path], object], folder: Path) -> str:
    with pytest.raises(raysp.CheckpointError) as refused:
        opened(folder)
    where, _, reason = str(refused.value).partition(": ")
    assert where == str(folder)
    return reason


def resized(weights: Weights, *names: str) -> None:
    weights.update({name: torch.ones(4, 5) for name in names})


def test_missing_and_mismatched_weights_are_new_and_unexpected_ones_are_logged(tmp_path, caplog):
    def change(weights: Weights) -> None:
        del weights[BIAS]
        resized(weights, HEAD, "pooler")

    found = UniSpeechForCTC.from_pretrained(changed(tmp_path, change), ignore_mismatched_sizes=True, strict=False)
    assert "not used by UniSpeechForCTC: pooler" in caplog.text
    assert found.new_weights == {BIAS, HEAD}


def test_optional_names_may_be_missing_but_keep_their_shapes(opened, tmp_path):
    opened(changed(tmp_path / "without", lambda weights: weights.pop(EMBED)))
    folder = changed(tmp_path / "resized", lambda weights: resized(weights, EMBED))
    assert refusal(opened, folder) == (
        f"shapes of weights do not fit config.json: {EMBED} is (4, 5), expected (144,): "
        "use the config.json that was saved with these weights"
    )


def test_names_that_differ_are_refused_with_both_sides_before_shapes(opened, tmp_path):
    def change(weights: Weights) -> None:
        del weights[BIAS]
        resized(weights, HEAD, "pooler")

    assert refusal(opened, changed(tmp_path, change)) == (
        f"weights do not fit config.json: missing {BIAS}; unexpected pooler: "
        "use the config.json that was saved with these weights"
    )
