"""Checkpoints without safetensors: what is said of them, by hub id and by folder, wherever they are opened."""

import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import CheckpointError
from raysp.models import (
    AutoModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    check_checkpoint,
    convert_checkpoint,
)
from tests.checkpoints.pickles.test_conversion import SMALL, assert_equal
from tests.corpora import a_pipeline, write_shard
from tests.hub_server import serving, use_cache

pytestmark = pytest.mark.lengthy

NAME = "owner/encoder"
WEIGHTS = "model.safetensors"
PROPOSAL = "f" * 40


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "safe"
    Wav2Vec2Model(Wav2Vec2Config(**SMALL, architectures=["Wav2Vec2Model"])).init_weights().save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture
def pickled(checkpoint, tmp_path):
    state = Wav2Vec2Model.from_pretrained(checkpoint).state_dict()
    folder = shutil.copytree(checkpoint, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path, pickled):
    with serving() as served:
        use_cache(monkeypatch, tmp_path / "hub", served.url)
        served.push(NAME, pickled)
        yield served


def label_by(checkpoint: str) -> None:
    """Plan a run whose step names a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "in" / "a.parquet", 1)
        step = raysp.Label(checkpoint, outputs=[raysp.Embedding()])
        raysp.plan(a_pipeline(f"{folder}/in/*.parquet", f"{folder}/out", steps=[raysp.Decode(), step]))


OPENINGS = {
    "a step": label_by,
    "a description": check_checkpoint,
    "a model": AutoModel.from_pretrained,
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_repository_with_pickles_is_refused_with_the_command(hub, opening):
    message = rf"pickled weights \(pytorch_model.bin\).*`raysp convert {NAME} FOLDER`.* and use FOLDER$"
    with pytest.raises(CheckpointError, match=message):
        OPENINGS[opening](NAME)
    assert not [path for path in hub.asked if path.startswith("GET") and path.endswith(".bin")]


def test_a_revision_is_converted(hub, pickled, tmp_path):
    folder = shutil.copytree(pickled, tmp_path / "branch")
    torch.save({"other": torch.ones(1)}, folder / "pytorch_model.bin")
    hub.push(NAME, folder, PROPOSAL, "branch")
    with pytest.raises(CheckpointError, match=rf"raysp convert {NAME}@branch FOLDER"):
        check_checkpoint(f"{NAME}@branch")
    convert_checkpoint(f"{NAME}@branch", tmp_path / "out")
    assert [*load_file(tmp_path / "out" / WEIGHTS)] == ["other"]


def test_a_hub_id_is_converted_from_the_hub_and_from_the_cache(hub, checkpoint, tmp_path, monkeypatch):
    convert_checkpoint(NAME, tmp_path / "out")
    assert_equal(load_file(tmp_path / "out" / WEIGHTS), load_file(checkpoint / WEIGHTS))
    use_cache(monkeypatch, tmp_path / "hub")
    hub.asked.clear()
    convert_checkpoint(NAME, tmp_path / "again")
    assert hub.asked == []
    with pytest.raises(CheckpointError, match=rf"no safetensors in the cache.*raysp convert {NAME} FOLDER"):
        check_checkpoint(NAME)


OTHERS = {
    "CTranslate2": (
        ["model.bin", "vocabulary.json"],
        "found model.bin, .*CTranslate2 .*that it was made from",
    ),
    "Flax": (["flax_model.msgpack"], "found flax_model.msgpack.*of Flax or TensorFlow.* transformers 4"),
    "TensorFlow": (["tf_model.h5"], "found tf_model.h5.*of Flax or TensorFlow"),
    "fairseq": (["hubert_base_ls960.pt", "dict.ltr.txt"], r"found hubert_base_ls960.pt.*of fairseq or another program"),
    "NeMo": (["parakeet.nemo"], "found parakeet.nemo.*raysp convert FILE.nemo FOLDER`; Canary is not read"),
    "PEFT": (["adapter_model.bin", "adapter_config.json"], "found adapter_model.bin.*PEFT.*merge_and_unload"),
    "ONNX": (["model.onnx"], "found model.onnx.*the checkpoint that they were exported from"),
    "pickles and others": (["pytorch_model.bin", "tf_model.h5", "x.pt"], "pickled weights .pytorch_model.bin."),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_weights_in_other_formats_are_refused_with_a_way_out(hub, checkpoint, kind):
    """In a folder, on the hub and at a URL."""
    files, message = OTHERS[kind]
    (checkpoint / "model.safetensors").unlink()
    for name in files:
        (checkpoint / name).touch()
    if kind == "CTranslate2":
        (checkpoint / "config.json").write_text('{"alignment_heads": [[1, 2]], "suppress_ids": []}')
    hub.push("owner/other", checkpoint, PROPOSAL)
    for name, openings in (
        (str(checkpoint), OPENINGS.values()),
        ("owner/other", OPENINGS.values()),
        (f"file://{checkpoint}", [label_by]),
    ):
        for opened in openings:
            with pytest.raises(CheckpointError, match=message):
                opened(name)
