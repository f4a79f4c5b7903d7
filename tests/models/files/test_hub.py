"""Hub ids in `from_pretrained`, from a cache without a network; uploads of files as they are saved, to a stand-in."""

from pathlib import Path

import pytest
import torch

from raysp import CheckpointError, StoreError, models
from raysp.models import UniSpeechConfig, UniSpeechForCTC
from tests.hub_server import lay_out, serving, use_cache
from tests.models.oracles import random_model

SAVED = ["preprocessor_config.json", "processor_config.json", "special_tokens_map.json"]
SAVED += ["tokenizer_config.json", "vocab.json"]


def test_models_and_what_belongs_to_them_are_sent_as_they_are_saved(checkpoint, tmp_path, monkeypatch):
    processor, folder = models.AutoProcessor.from_pretrained(checkpoint), tmp_path / "deep" / "mine"
    with serving() as hub:
        hub.owners, hub.token, hub.space = {"owner"}, "hf_x", tmp_path / "hub"
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        use_cache(monkeypatch, tmp_path / "cache", hub.url)
        for name, value, files in (
            ("model", random_model(), ["config.json", "model.safetensors"]),
            ("config", UniSpeechConfig(), ["config.json"]),
            ("processor", processor, SAVED),
        ):
            address = value.push_to_hub(f"owner/{name}", token="hf_x")
            assert address == f"{hub.url}/models/owner/{name}/commit/{1:040x}"
            assert sorted(path.name for path in hub.head(f"models/owner/{name}").iterdir()) == files
        processor.save_pretrained(folder, push_to_hub=True, repo_id="owner/name", token="hf_x")
        for place in (folder, hub.head("models/owner/name")):
            assert sorted(path.name for path in place.iterdir()) == SAVED
        with pytest.raises(StoreError, match=r"'you/model': the Hugging Face hub rejects the upload \("):
            UniSpeechConfig().push_to_hub("you/model", token="hf_x")
    with pytest.raises(TypeError, match="repo_id given without push_to_hub=True"):
        processor.save_pretrained(tmp_path / "other", repo_id="owner/name")


def test_a_hub_id_is_read_from_the_cache_without_a_network(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_cache(monkeypatch, tmp_path / "cache")
    with pytest.raises(CheckpointError, match=r"config.json: not found"):
        UniSpeechForCTC.from_pretrained(Path("owner/name"))  # a path never goes to the hub
    with pytest.raises(CheckpointError, match=r"'owner/name': no such folder, .*HF_HUB_OFFLINE.*give a folder"):
        models.AutoModelForCTC.from_pretrained("owner/name")
    snapshot = lay_out(tmp_path / "cache", checkpoint)
    expected = UniSpeechForCTC.from_pretrained(snapshot)
    for options in ({}, {"revision": "v1.0"}, {"revision": snapshot.name}):
        model = UniSpeechForCTC.from_pretrained("owner/name", **options)
        assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert UniSpeechConfig.from_pretrained("owner/name").hidden_size == 32
    assert models.Wav2Vec2Processor.from_pretrained("owner/name").tokenizer.decode([5, 4, 6]) == "A B"
    with pytest.raises(CheckpointError, match=r"'owner/name': no such folder, and it cannot be loaded from"):
        UniSpeechForCTC.from_pretrained("owner/name", revision="v2.0")
