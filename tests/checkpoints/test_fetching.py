"""The digest of a checkpoint, and its copy on this machine: downloaded once, complete or not at all."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raysp import CheckpointError, StoreError
from raysp.checkpoints import fetching
from raysp.checkpoints.fetching import EVERY, digest_adapters, digest_files, fetch
from raysp.checkpoints.hub import with_file
from raysp.storage.stores import open_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raysp"


def folder_of(place: Path, **files: str) -> tuple[Path, list[Path]]:
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
    return place, sorted(place.iterdir())


def test_a_digest_is_of_names_and_contents_and_a_file_is_read_again_only_if_it_changed(tmp_path, monkeypatch):
    one, files = folder_of(tmp_path / "one", a="1", b="2")
    other, copies = folder_of(tmp_path / "other", a="1", b="2")
    expected = digest_files(one, files)
    assert digest_files(one, files[::-1]) == digest_files(other, copies) == expected
    for number, changed in enumerate(({"a": "1", "b": "3"}, {"a": "2", "b": "1"}, {"a": "1", "c": "2"}, {"a": "1"})):
        assert digest_files(*folder_of(tmp_path / str(number), **changed)) != expected
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.file_digest", lambda file, _: pytest.fail(f"{file} was read again"))
        assert digest_files(one, files) == expected
    (one / "a").write_text("3")
    os.utime(one / "a", ns=(1, files[0].stat().st_mtime_ns + 1))
    assert digest_files(one, files) != expected


@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff\xfe", b'{"x": 3}', None])
def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_alone(tmp_path, cache, damage, monkeypatch):
    folder, files = folder_of(tmp_path / "one", a="1")
    expected = digest_files(folder, files)
    if damage is None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        (cache / "digests.json").write_bytes(damage)
    assert digest_files(folder, files) == expected
    assert json.loads((cache / "digests.json").read_text())


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


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_files_that_a_model_needs_are_downloaded_once_and_again_when_one_changes(store, copies):
    first = fetch(store.url)
    assert first.parent == copies
    assert contents(first) == WANTED
    before = {file: file.stat().st_ino for file in first.iterdir()}
    assert fetch(store.url) == first
    assert {file: file.stat().st_ino for file in first.iterdir()} == before
    store.replace("vocab.json", b"{'a': 1}")
    second = fetch(store.url)
    assert second != first
    assert [(one / "vocab.json").read_bytes() for one in (first, second)] == [b"{}", b"{'a': 1}"]


def test_of_the_adapters_of_languages_those_that_are_used_are_downloaded_alone(store, copies):
    for language in ("eng", "deu", "fra", "ita"):
        store.create(f"adapter.{language}.safetensors", language.encode())
    store.create("tokenizer_config.json", b'{"target_lang": "eng"}')

    def there() -> set[str]:
        return {file.name.split(".")[1] for file in folder.glob("adapter.*")}

    folder = fetch(store.url, languages=[])
    assert there() == set()
    digest = digest_adapters(folder)
    assert fetch(store.url) == folder
    assert there() == {"eng"}
    assert fetch(store.url, languages=["deu", "xyz"]) == folder
    assert there() == {"eng", "deu"}
    assert with_file(folder, "adapter.fra.safetensors").read_bytes() == b"fra"
    assert with_file(folder, "adapter.xyz.safetensors") is None
    assert digest_adapters(folder) == digest
    assert [one.name for one in copies.iterdir() if ".part-" in one.name] == []
    for changed in (b"abc", b"italian"):
        store.replace("adapter.ita.safetensors", changed)
        with pytest.raises(StoreError, match="run again"):
            with_file(folder, "adapter.ita.safetensors")
    assert there() == {"eng", "deu", "fra"}
    other = fetch(store.url, languages=EVERY)
    assert other != folder
    assert len([*other.glob("adapter.*")]) == 4
    assert digest_adapters(other) != digest


def refuse_lock(*args: object) -> None:
    raise OSError(37, "No locks available")


@pytest.mark.parametrize("has_locks", [True, False])
def test_many_at_once_have_one_complete_copy(store, monkeypatch, has_locks):
    synced, sync = [], os.fsync
    monkeypatch.setattr("os.fsync", lambda file: (synced.append(file), sync(file)))
    if not has_locks:
        monkeypatch.setattr("fcntl.flock", refuse_lock)
    with ThreadPoolExecutor(8) as pool:
        [folder] = set(pool.map(lambda _: fetch(store.url), range(8)))
    assert contents(folder) == WANTED
    assert len(synced) == len(WANTED) or not has_locks


def test_a_killed_download_leaves_nothing_that_looks_complete(copies, tmp_path):
    source = tmp_path / "source"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    program = f"""
        import os, signal
        from raysp.checkpoints.fetching import fetch
        files = iter(range({len(WANTED)}))
        os.fsync = lambda _: next(files) == {len(WANTED) - 1} and os.kill(os.getpid(), signal.SIGKILL)
        fetch("file://{source}")
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = copies.glob("*.part-*")
    assert (left / "model.safetensors").is_file()
    assert contents(fetch(f"file://{source}")) == WANTED
    assert list(copies.glob("*.part-*")) == []


USER = """
import sys
from pathlib import Path
from raysp.checkpoints import fetching
fetching.mark_used(Path(sys.argv[1]))
print("used", flush=True)
sys.stdin.read()
"""


def renewed(store, number: int) -> Path:
    """Change the checkpoint, and return its copy as a process of its own has it."""
    fetching.forget_used()
    store.replace("vocab.json", f"{number}".encode())
    return fetch(store.url)


def test_of_copies_that_no_process_uses_only_the_last_few_stay(store, copies, monkeypatch):
    monkeypatch.setattr(fetching, "KEPT_COPIES", 2)  # nine copies would show no more
    first = fetch(store.url)
    user = [sys.executable, "-c", USER, str(first)]
    with subprocess.Popen(user, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:
        assert elsewhere.stdout.readline() == b"used\n"
        last = [renewed(store, number) for number in range(4)][-1]
        there = {copy for copy in copies.iterdir() if copy.is_dir()}
        assert len(there) == 3
        assert {first, last} < there  # the first one is the oldest, but in use
        assert contents(first) == WANTED
        elsewhere.stdin.close()
    newest = renewed(store, 5)
    assert {copy for copy in copies.iterdir() if copy.is_dir()} == {last, newest}


@pytest.mark.parametrize("has_locks", [True, False])
def test_copies_take_no_more_room_than_they_may_if_it_is_known_which_are_in_use(store, copies, monkeypatch, has_locks):
    monkeypatch.setattr(fetching, "KEPT_BYTES", 600_000)  # two copies
    if not has_locks:
        monkeypatch.setattr("fcntl.flock", refuse_lock)
    for number in range(4):
        renewed(store, number)
    assert len([copy for copy in copies.iterdir() if copy.is_dir()]) == (2 if has_locks else 4)


def test_a_checkpoint_that_changes_on_the_way_is_refused(store, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: store.replace("README.md", b"changed"))
    with pytest.raises(StoreError, match="run again"):
        fetch(store.url)


def test_a_folder_without_a_checkpoint_and_a_cache_that_cannot_be_written_are_named(store, tmp_path, monkeypatch):
    store.delete("model.safetensors")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model.bin\).*expected model.safetensors: .*"):
        fetch(store.url)
    store.delete("config.json")
    with pytest.raises(CheckpointError, match=r"no config.json there, found .*vocab.json; expected a Hugging Face"):
        fetch(store.url)
    with pytest.raises(CheckpointError, match=r"nowhere': no config.json there, found nothing"):
        fetch(f"memory://{uuid.uuid4().hex}/nowhere")
    for name in ("config.json", "model.safetensors"):
        store.create(name, FILES[name])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"file/raysp/checkpoints: cannot keep a checkpoint in it"):
        fetch(store.url)
