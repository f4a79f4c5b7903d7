"""Checkpoints without safetensors: what is said of them, by hub id and by folder, wherever they are opened."""

import shutil

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
from tests.hub_server import serving, use_cache
from tests.models.tokenizers.small import TINY

pytestmark = pytest.mark.lengthy

NAME = "owner/encoder"


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint, its weights taken away."""
    folder = tmp_path / "checkpoint"
    Wav2Vec2Model(Wav2Vec2Config(**TINY, architectures=["Wav2Vec2Model"])).init_weights().save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as served:
        use_cache(monkeypatch, tmp_path / "hub", served.url)
        yield served


def label_by(checkpoint) -> None:
    raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Embedding()])])


OPENINGS = {"a step": label_by, "a description": check_checkpoint, "a model": AutoModel.from_pretrained}


def test_a_repository_with_pickles_is_refused_with_the_command_which_converts_each_revision(
    hub, checkpoint, tmp_path, monkeypatch
):
    for commit, revision in (("e" * 40, "main"), ("f" * 40, "branch")):
        folder = shutil.copytree(checkpoint, tmp_path / revision)
        torch.save({revision: torch.ones(1)}, folder / "pytorch_model.bin")
        hub.push(NAME, folder, commit, revision)
    for opened in OPENINGS.values():
        message = rf"pickled weights \(pytorch_model.bin\).*`raysp convert {NAME} FOLDER`.* and use FOLDER$"
        with pytest.raises(CheckpointError, match=message):
            opened(NAME)
    with pytest.raises(CheckpointError, match=rf"raysp convert {NAME}@branch FOLDER"):
        check_checkpoint(f"{NAME}@branch")
    assert not [path for path in hub.asked if path.startswith("GET") and path.endswith(".bin")]
    convert_checkpoint(f"{NAME}@branch", tmp_path / "converted")
    assert [*load_file(tmp_path / "converted" / "model.safetensors")] == ["branch"]
    use_cache(monkeypatch, tmp_path / "hub")
    hub.asked.clear()
    convert_checkpoint(f"{NAME}@branch", tmp_path / "again")
    assert hub.asked == []
    with pytest.raises(CheckpointError, match=rf"no safetensors in the cache.*raysp convert {NAME} FOLDER"):
        check_checkpoint(NAME)


OTHERS = {
    "CTranslate2": (["model.bin", "vocabulary.json"], "found model.bin, .*CTranslate2 .*that it was made from"),
    "Flax": (["flax_model.msgpack"], "found flax_model.msgpack.*of Flax or TensorFlow.* transformers 4"),
    "fairseq": (["hubert_base_ls960.pt", "dict.ltr.txt"], r"found hubert_base_ls960.pt.*of fairseq or another program"),
    "NeMo": (["parakeet.nemo"], "found parakeet.nemo.*raysp convert FILE.nemo FOLDER`; Canary is not read"),
    "PEFT": (["adapter_model.bin", "adapter_config.json"], "found adapter_model.bin.*PEFT.*merge_and_unload"),
    "ONNX": (["model.onnx"], "found model.onnx.*the checkpoint that they were exported from"),
    "pickles and others": (["pytorch_model.bin", "tf_model.h5", "x.pt"], "pickled weights .pytorch_model.bin."),
}


def test_weights_in_other_formats_are_refused_with_a_way_out(hub, checkpoint, tmp_path):
    """In a folder, on the hub and at a URL."""
    for kind, (files, message) in OTHERS.items():
        folder = shutil.copytree(checkpoint, tmp_path / kind.split()[0])
        for name in files:
            (folder / name).touch()
        if kind == "CTranslate2":
            (folder / "config.json").write_text('{"alignment_heads": [[1, 2]], "suppress_ids": []}')
        hub.push(f"owner/{folder.name}", folder)
        for opened in OPENINGS.values():
            with pytest.raises(CheckpointError, match=message):
                opened(str(folder))
        for name in (f"owner/{folder.name}", f"file://{folder}"):
            with pytest.raises(CheckpointError, match=message):
                label_by(name)
