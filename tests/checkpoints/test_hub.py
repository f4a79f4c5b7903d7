"""Hub ids: from a cache without a network, and from a server that stands in for the hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raysp.checkpoints import hub
from raysp.checkpoints.hub import hub_id
from raysp.checkpoints.hub_api import licence_of
from tests import hub_server
from tests.corpora import CHECKPOINT
from tests.hub_server import COMMIT, lay_out
from tests.storage.limited import MIB, limited
from tests.storage.test_bounds import bomb

OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no network."""
    folder = tmp_path / "hub"
    hub_server.use_cache(monkeypatch, folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_an_id_is_pinned_to_its_commit_and_a_folder_stays_a_folder(cache):
    lay_out(cache, CHECKPOINT)
    for name in ("owner/name", "owner/name@v1.0", f"owner/name@{COMMIT}"):
        assert hub.pinned(name) == f"owner/name@{COMMIT}"
    assert hub.pinned("owner/name", revision="v1.0") == f"owner/name@{COMMIT}"
    assert hub.pinned(f"owner/none@{OTHER}") == f"owner/none@{OTHER}"  # what is pinned is not looked up
    for folder in (CHECKPOINT, str(CHECKPOINT)):
        assert hub.pinned(folder) is folder
    assert hub_id(f"owner/name@{COMMIT}") == hub_id("owner/name") == "owner/name"  # of a base model
    assert [hub_id(elsewhere) for elsewhere in (str(CHECKPOINT), "s3://bucket/name", "name")] == [None] * 3


ANSWERS = """
import json, sys
from raysp.checkpoints import hub
found = []
for code in sys.argv[1:]:
    try:
        found.append(eval(code))
    except hub.CheckpointError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def answers(hub_url: str, home: Path, *codes: str, **environment: str) -> list[str]:
    """Return values or error messages of code in a process that finds the hub at a url, and writes no errors."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub_url, "HF_HOME": str(home), "HF_HUB_ETAG_TIMEOUT": "2", **environment}
    command = [sys.executable, "-c", ANSWERS, *codes]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_a_hub_is_queried_once_for_a_commit_and_its_files(tmp_path):
    old, new = (Path(shutil.copytree(CHECKPOINT, tmp_path / name)) for name in ("old", "new"))
    (new / "model.safetensors").write_bytes(b"trained further")
    (old / "optimizer.pt").write_bytes(b"left by training")
    (old / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    folder_of = "str(hub.local_checkpoint({!r}))"
    with hub_server.serving() as server:
        server.push("owner/name", old)
        [pinned] = answers(server.url, tmp_path / "home", "hub.pinned('owner/name')")
        assert pinned == f"owner/name@{COMMIT}"
        assert not [asked for asked in server.asked if "safetensors" in asked]
        server.push("owner/name", new, OTHER)  # what main is from now on
        [found] = answers(server.url, tmp_path / "home", folder_of.format(pinned))
        assert sorted(os.listdir(found)) == sorted({*os.listdir(old)} - {"optimizer.pt"})
        assert licence_of(Path(found)) == "cc-by-4.0"
        assert Path(found, "model.safetensors").read_bytes() == (old / "model.safetensors").read_bytes()
        server.asked.clear()
        assert answers(server.url, tmp_path / "home", folder_of.format(pinned)) == [found]
        assert not [asked for asked in server.asked if "owner" in asked]
        codes = "hub.pinned('owner/name')", folder_of.format("owner/none"), folder_of.format("owner/name@v9")
        pushed, private, unknown = answers(server.url, tmp_path / "home", *codes)
        assert pushed == f"owner/name@{OTHER}"
        assert "correct the name; log in (hf auth login, or HF_TOKEN) if it is private; or give a folder" in private
        assert "it has no revision 'v9': give a branch, tag or commit that it has" in unknown
    assert answers(server.url, tmp_path / "home", folder_of.format(pinned), HF_HUB_OFFLINE="1") == [found]
    [error] = answers(server.url, tmp_path / "home", folder_of.format("owner/none"))
    assert "check that this machine can reach the hub (HF_ENDPOINT, proxies), or download the files" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "question", ["hub.local_folder('owner/name', ['config.json'])", "describe('owner/name', None)"]
)
def test_an_answer_of_the_hubs_api_that_decodes_to_gigabytes_is_read_to_the_bound(tmp_path, question):
    with hub_server.serving() as server:
        small = bomb(b'{"a": "', mib=300)
        server.answer = lambda path, **_: (200, {"Content-Encoding": "gzip", "Content-Type": "application/json"}, small)
        found = limited(
            "from raysp.checkpoints import hub\nfrom raysp.checkpoints.hub_api import describe\n"
            "import huggingface_hub.hf_api",
            f"print({question})",
            more_bytes=200 * MIB,
            HF_ENDPOINT=server.url,
            HF_HOME=str(tmp_path),
            HF_HUB_OFFLINE="0",
        )
    assert any("/api/models/owner/name" in one for one in server.asked)
    expected = "TooLargeError: the hub's answers have more than 67,108,864 bytes" if "local" in question else "None\n"
    assert expected in found
    assert len(found) < 700
