from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from raysp import StoreError
from raysp.models import (
    AutoProcessor,
    UniSpeechConfig,
    UniSpeechForCTC,
)
from tests.models.oracles import TINY

SAVED = [
    *("preprocessor_config.json", "processor_config.json", "special_tokens_map.json", "tokenizer_config.json"),
    "vocab.json",
]


@pytest.fixture
def sent(monkeypatch):
    """Uploads to a hub that accepts everything."""
    calls = []

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}", private=private)

    def upload_folder(self, *, repo_id, folder_path, **options):
        names = sorted(path.name for path in Path(folder_path).iterdir())
        calls.append((self.token, repo_id, names, options))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    return calls


def test_models_and_what_belongs_to_them_are_sent_as_they_are_saved(sent, checkpoint):
    shared = {
        "model": (UniSpeechForCTC(UniSpeechConfig(**TINY)), ["config.json", "model.safetensors"]),
        "config": (UniSpeechConfig(**TINY), ["config.json"]),
        "processor": (
            AutoProcessor.from_pretrained(checkpoint),
            SAVED,
        ),
    }
    for name, (value, files) in shared.items():
        address = value.push_to_hub(f"owner/{name}", token="hf_x", revision="v2")
        assert address == f"https://hub/owner/{name}/commit/1"
        token, repo_id, names, options = sent.pop()
        assert (token, repo_id, names) == ("hf_x", f"owner/{name}", files)
        assert options == {"commit_message": "Upload by raysp", "revision": "v2", "create_pr": False}


def test_a_processor_is_uploaded_when_saved_and_only_on_request(sent, checkpoint, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.save_pretrained(save_directory=tmp_path / "deep" / "mine", push_to_hub=False)
    assert not sent
    assert sorted(path.name for path in (tmp_path / "deep" / "mine").iterdir()) == SAVED
    processor.save_pretrained(tmp_path / "deep" / "mine", push_to_hub=True)
    processor.save_pretrained(tmp_path / "other", push_to_hub=True, repo_id="owner/name", commit_message="First")
    assert [(repo_id, names) for _, repo_id, names, _ in sent] == [("me/mine", SAVED), ("owner/name", SAVED)]
    assert sent[1][3]["commit_message"] == "First"
    with pytest.raises(TypeError, match="repo_id given without push_to_hub=True"):
        processor.save_pretrained(tmp_path / "other", repo_id="owner/name")


def test_a_hub_that_refuses_is_named_with_the_reason(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        StoreError, match=r"'owner/name': the Hugging Face hub rejects the upload \(OfflineModeIsEnabled: "
    ):
        UniSpeechConfig().push_to_hub("owner/name", token="hf_x")
