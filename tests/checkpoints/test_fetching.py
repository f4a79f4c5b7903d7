"""The digest of a checkpoint, and its copy on this machine: downloaded once, complete or not at all."""

import os
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raysp import CheckpointError, StoreError
from raysp.checkpoints.fetching import (
    KEPT_BYTES,
    KEPT_COPIES,
    fetch,
    forget_used,
)
from raysp.storage.stores import open_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raysp"


FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 1000,
    "vocab.json": b"{}",
    "README.md": b"---\nlicense: cc-by-4.0\n---\n",
    "pytorch_model.bin": b"a pickle",
    "checkpoint-100/optimizer.safetensors": b"of training",
}
WANTED = {name: FILES[name] for name in ("README.md", "config.json", "model.safetensors", "vocab.json")}


@pytest.fixture
def copies(cache) -> Path:
    return cache / "checkpoints"


@pytest.fixture
def store():
    made = open_store(f"memory://{uuid.uuid4().hex}/model")
    for name, data in FILES.items():
        made.create(name, data)
    return made


@pytest.fixture
def on_read():
    """Functions that are called with the path of a file of `memory://` that is read."""
    called = []

    class Memory(MemoryFileSystem):
        cachable = False

        def cat_file(self, path, start=None, end=None, **options):
            for function in called:
                function(path)
            return super().cat_file(path, start, end, **options)

    fsspec.register_implementation("memory", Memory, clobber=True)
    yield called
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_files_that_a_model_needs_are_downloaded_once_and_again_when_one_changes(on_read, store, copies):
    reads = []
    on_read.append(reads.append)
    with ThreadPoolExecutor(8) as pool:
        [first] = set(pool.map(lambda _: fetch(store.url), range(8)))
    assert first.parent == copies
    assert contents(first) == WANTED
    assert len(reads) == len(WANTED)
    store.replace("vocab.json", b"{'a': 1}")
    second = fetch(store.url)
    assert [(one / "vocab.json").read_bytes() for one in (first, second)] == [b"{}", b"{'a': 1}"]


PROGRAM = """
import os, signal, sys
from pathlib import Path
from raysp.checkpoints.fetching import fetch, mark_used
if sys.argv[1] == "use":
    mark_used(Path(sys.argv[2]))
    print("used", flush=True)
    sys.stdin.read()
else:
    files = iter(range(4))
    os.fsync = lambda _: next(files) == 3 and os.kill(os.getpid(), signal.SIGKILL)
    fetch(sys.argv[2])
"""


def test_a_killed_download_leaves_nothing_that_looks_complete(copies, tmp_path):
    for name, data in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    url = f"file://{tmp_path}/source"
    killed = subprocess.run([sys.executable, "-c", PROGRAM, "die", url], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = copies.glob("*.part-*")
    assert (left / "model.safetensors").is_file()
    assert contents(fetch(url)) == WANTED
    assert list(copies.glob("*.part-*")) == []


def renewed(store, number: int) -> Path:
    """Change the checkpoint, and return its copy as a process of its own has it, used at a second of that number."""
    forget_used()
    store.replace("vocab.json", f"{number}".encode())
    return used_at(number, fetch(store.url))


def used_at(second: int, copy: Path) -> Path:
    os.utime(copy.with_name(f"{copy.name}.used"), (second, second))
    return copy


def kept(copies: Path) -> set[Path]:
    return {copy for copy in copies.iterdir() if copy.is_dir()}


def test_of_copies_that_no_process_uses_the_last_few_stay_and_no_more_bytes_than_they_may_have(store, copies):
    first = renewed(store, 0)
    user = [sys.executable, "-c", PROGRAM, "use", str(first)]
    with subprocess.Popen(user, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:
        assert elsewhere.stdout.readline() == b"used\n"
        used_at(0, first)
        made = [renewed(store, number) for number in range(1, KEPT_COPIES + 3)]
        assert kept(copies) == {first, *made[-KEPT_COPIES:]}  # the first one is the oldest, but in use
        assert contents(first) == {**WANTED, "vocab.json": b"0"}
        elsewhere.stdin.close()
    newest = renewed(store, 100)
    assert kept(copies) == {*made[-KEPT_COPIES + 1 :], newest}
    os.truncate(newest / "model.safetensors", KEPT_BYTES)  # without taking as much
    last = renewed(store, 101)
    assert kept(copies) == {last, *made[-KEPT_COPIES + 2 :]}


def test_a_checkpoint_that_changes_on_the_way_is_refused(on_read, store):
    on_read.append(lambda path: path.endswith("vocab.json") and store.replace("README.md", b"changed"))
    with pytest.raises(StoreError, match="run again"):
        fetch(store.url)


def test_a_folder_without_a_checkpoint_and_a_cache_that_cannot_be_written_are_named(store, tmp_path, monkeypatch):
    store.delete("model.safetensors")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model.bin\).*expected model.safetensors: .*"):
        fetch(store.url)
    store.delete("config.json")
    with pytest.raises(CheckpointError, match=r"no config.json there, found .*vocab.json; expected a Hugging Face"):
        fetch(store.url)
    for name in ("config.json", "model.safetensors"):
        store.create(name, FILES[name])
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"file/raysp/checkpoints: cannot keep a checkpoint in it"):
        fetch(store.url)
