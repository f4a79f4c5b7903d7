"""Hub ids in `from_pretrained`, from a cache without a network."""

from pathlib import Path

import pytest
import torch

from raysp import CheckpointError
from raysp.models import (
    AutoModelForCTC,
    UniSpeechConfig,
    UniSpeechForCTC,
    Wav2Vec2Processor,
)
from tests.hub_server import lay_out, use_cache
from tests.models.oracles import save_checkpoint


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no network."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    use_cache(monkeypatch, folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_hub_id_is_read_from_the_cache_without_a_network(cache, tmp_path):
    hub = lay_out(cache, save_checkpoint(tmp_path / "pushed"))
    for options in ({}, {"revision": "v1.0"}, {"revision": hub.name}):
        model = UniSpeechForCTC.from_pretrained("owner/name", **options)
        expected = UniSpeechForCTC.from_pretrained(hub)
        assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert UniSpeechConfig.from_pretrained("owner/name").hidden_size == 32
    assert Wav2Vec2Processor.from_pretrained("owner/name").tokenizer.decode([5, 4, 6]) == "A B"
    with pytest.raises(CheckpointError, match=r"'owner/name': no such folder, and it cannot be loaded from"):
        UniSpeechForCTC.from_pretrained("owner/name", revision="v2.0")


@pytest.mark.parametrize("name", ["/no/such", "a/b/c", Path("owner/name")])
def test_a_path_never_goes_to_the_hub(name, cache):
    with pytest.raises(CheckpointError, match=r"config.json: not found"):  # and nothing of a cache
        UniSpeechForCTC.from_pretrained(name)


def test_files_missing_in_the_cache_are_named_with_a_remedy(cache):
    with pytest.raises(CheckpointError) as found:
        AutoModelForCTC.from_pretrained("owner/name")
    for part in (
        "'owner/name': no such folder",
        str(cache),
        "HF_HUB_OFFLINE",
        "give a folder",
        "Files requested, of those that exist: config",
    ):
        assert part in str(found.value)
