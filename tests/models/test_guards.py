"""Guards of checkpoints, switched off one by one: the fault that each prevents happens then."""

import importlib.util
import json
import pickle
from pathlib import Path

import pytest
import torch

from raysp import CheckpointError
from raysp.models import check_checkpoint, load_model
from tests.corpora import CHECKPOINT


class Payload:
    """The effect of unpickling without the guard."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


class TestCheckpoints:
    """Fault 27: pickles and code that come with a checkpoint."""

    @pytest.fixture
    def copied(self, tmp_path) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        for file in CHECKPOINT.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    def test_a_field_of_an_encoder_named_decoder_means_nothing(self, copied):
        config = json.loads((copied / "config.json").read_text())
        (copied / "config.json").write_text(json.dumps({**config, "decoder": {"type": "beam"}}))
        assert check_checkpoint(copied).model_type == config["model_type"]

    def test_a_pickle_that_is_refused_would_have_run_its_code(self, copied, tmp_path):
        (copied / "model.safetensors").unlink()
        torch.save({"lm_head.weight": Payload(tmp_path / "ran")}, copied / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="pickled weights"):
            load_model(copied)
        assert not (tmp_path / "ran").exists()
        with pytest.raises(pickle.UnpicklingError):
            torch.load(copied / "pytorch_model.bin", weights_only=True)
        assert not (tmp_path / "ran").exists()
        torch.load(copied / "pytorch_model.bin", weights_only=False)
        assert (tmp_path / "ran").exists()

    def test_code_that_has_no_effect_would_have_had_one(self, copied, tmp_path):
        (copied / "evil.py").write_text(f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()")
        config = json.loads((copied / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCTC": "evil.Model"}
        (copied / "config.json").write_text(json.dumps(config))
        check_checkpoint(copied)
        load_model(copied)
        assert not (tmp_path / "ran").exists()
        spec = importlib.util.spec_from_file_location("evil", copied / "evil.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        assert (tmp_path / "ran").exists()
        (copied / "config.json").write_text(json.dumps({**config, "model_type": "evil"}))
        with pytest.raises(CheckpointError, match=r"model_type is 'evil', expected one of .*unispeech"):
            load_model(copied)
