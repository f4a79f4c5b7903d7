"""Hub ids: from a cache without a network, and from a server that stands in for the hub."""

import os
import shutil
from pathlib import Path

import pytest

from raysp import CheckpointError
from raysp.checkpoints import hub
from raysp.models import check_checkpoint
from tests import hub_server
from tests.corpora import CHECKPOINT
from tests.hub_server import COMMIT
from tests.storage.limited import MIB, bomb, limited

OTHER = "f" * 40


def test_a_hub_is_queried_once_for_a_commit_and_its_files(tmp_path, monkeypatch):
    old, new = (Path(shutil.copytree(CHECKPOINT, tmp_path / name)) for name in ("old", "new"))
    (new / "model.safetensors").write_bytes(b"trained further")
    (old / "optimizer.pt").write_bytes(b"left by training")
    (old / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    cache = tmp_path / "hub"
    with hub_server.serving() as server:
        hub_server.use_cache(monkeypatch, cache, server.url)
        server.push("owner/name", old)
        pinned = hub.pinned("owner/name")
        assert pinned == f"owner/name@{COMMIT}"
        assert not [asked for asked in server.asked if "safetensors" in asked]
        server.push("owner/name", new, OTHER)  # what main is from now on
        found = hub.local_checkpoint(pinned)
        assert sorted(os.listdir(found)) == sorted({*os.listdir(old)} - {"optimizer.pt"})
        assert (found / "model.safetensors").read_bytes() == (old / "model.safetensors").read_bytes()
        server.asked.clear()
        assert check_checkpoint(pinned).path == found
        assert not [asked for asked in server.asked if "owner" in asked]
        assert hub.pinned("owner/name") == f"owner/name@{OTHER}"
        for name, message in {
            "owner/none": r"correct the name; log in \(hf auth login, or HF_TOKEN\) if it is private; or give a folder",
            "owner/name@v9": "it has no revision 'v9': give a branch, tag or commit that it has",
        }.items():
            with pytest.raises(CheckpointError, match=message):
                check_checkpoint(name)
    with pytest.raises(CheckpointError, match=r"check that this machine can reach the hub \(HF_ENDPOINT, proxies\)"):
        check_checkpoint("owner/none")
    hub_server.use_cache(monkeypatch, cache)
    assert check_checkpoint(pinned).path == found


@pytest.mark.slow
def test_an_answer_of_the_hubs_api_that_decodes_to_gigabytes_is_read_to_the_bound(tmp_path):
    with hub_server.serving() as server:
        small = bomb(b'{"a": "', mib=100)
        server.answer = lambda path, **_: (200, {"Content-Encoding": "gzip", "Content-Type": "application/json"}, small)
        found = limited(
            "from raysp.models import check_checkpoint\nimport huggingface_hub.hf_api",
            "print(check_checkpoint('owner/name'))",
            more_bytes=200 * MIB,
            HF_ENDPOINT=server.url,
            HF_HOME=str(tmp_path),
            HF_HUB_OFFLINE="0",
        )
    assert any("/api/models/owner/name" in one for one in server.asked)
    assert "TooLargeError: the hub's answers have more than 67,108,864 bytes" in found
    assert len(found) < 700
