"""The hash of a checkpoint: of names and contents, whatever the folder is called and the cache remembers.

And its copy on this machine: brought once, whole or not at all.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from raysp import CheckpointError, StoreError
from raysp.checkpoints import fetching
from raysp.checkpoints.fetching import EVERY, digest_adapters, digest_files, fetch
from raysp.checkpoints.hub import with_file
from raysp.storage import opened
from raysp.storage.stores import open_store
from tests import s3_servers


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raysp" / "digests.json"


def folder_of(place: Path, **files: str) -> tuple[Path, list[Path]]:
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
    return place, sorted(place.iterdir())


def test_it_does_not_depend_on_the_place_of_the_checkpoint_or_the_order_of_its_listing(tmp_path):
    one, files = folder_of(tmp_path / "one", a="1", b="2")
    other, copies = folder_of(tmp_path / "other", a="1", b="2")
    assert digest_files(one, files) == digest_files(one, files[::-1]) == digest_files(other, copies)


@pytest.mark.parametrize("files", [{"a": "1", "b": "3"}, {"a": "2", "b": "1"}, {"a": "1", "c": "2"}, {"a": "1"}])
def test_it_changes_with_a_name_a_content_or_a_file(tmp_path, files):
    original = digest_files(*folder_of(tmp_path / "one", a="1", b="2"))
    assert digest_files(*folder_of(tmp_path / "other", **files)) != original


def test_a_file_that_changed_is_read_again_although_it_was_cached(tmp_path):
    folder, files = folder_of(tmp_path / "one", a="1")
    before = digest_files(folder, files)
    (folder / "a").write_text("2")
    os.utime(folder / "a", ns=(1, files[0].stat().st_mtime_ns + 1))
    assert digest_files(folder, files) != before


def test_a_file_that_did_not_change_is_not_read_again(tmp_path, monkeypatch):
    folder, files = folder_of(tmp_path / "one", a="1")
    before = digest_files(folder, files)
    monkeypatch.setattr("hashlib.file_digest", lambda file, _: pytest.fail(f"{file} was read again"))
    assert digest_files(folder, files) == before


def test_the_hashes_of_the_last_files_are_kept(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(fetching, "KEPT_DIGESTS", 2)
    folder, files = folder_of(tmp_path / "one", a="1", b="2", c="3")
    for file in (*files, files[0]):
        digest_files(folder, [file])
    assert [Path(key.partition("\0")[0]).name for key in json.loads(cache.read_text())] == ["c", "a"]
    digest_files(folder, files)  # a checkpoint of more files than are kept
    monkeypatch.setattr("hashlib.file_digest", lambda file, _: pytest.fail(f"{file} was read again"))
    digest_files(folder, files)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"\xff\xfe", b"null", b'{"x": 3}'])
def test_a_damaged_cache_is_passed_over(tmp_path, cache, damage):
    folder, files = folder_of(tmp_path / "one", a="1")
    expected = digest_files(folder, files)
    cache.write_bytes(damage)
    assert digest_files(folder, files) == expected
    assert json.loads(cache.read_text())


def test_a_home_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    folder, files = folder_of(tmp_path / "one", a="1")
    expected = digest_files(folder, files)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert digest_files(folder, files) == expected


class TestFetch:
    FILES: ClassVar = {
        "config.json": b"{}",
        "model.safetensors": bytes(range(256)) * 1000,
        "vocab.json": b"{}",
        "README.md": b"---\nlicense: cc-by-4.0\n---\n",
        "pytorch_model.bin": b"a pickle",
        "checkpoint-100/optimizer.safetensors": b"of training",
    }
    WANTED = ("README.md", "config.json", "model.safetensors", "vocab.json")

    @pytest.fixture
    def copies(self, cache) -> Path:
        return cache.parent / "checkpoints"

    @pytest.fixture(params=["memory", f"s3-{s3_servers.kind()}"])
    def store(self, request):
        if request.param == "memory":
            store = open_store(f"memory://{uuid.uuid4().hex}/model")
        else:
            s3 = request.getfixturevalue("s3")
            store = open_store(f"s3://{s3.bucket()}/model", s3.options)
            store.options = s3.options
        for name, data in self.FILES.items():
            store.create(name, data)
        return store

    @staticmethod
    def fetch(store) -> Path:
        return fetch(store.url, getattr(store, "options", None))

    def test_only_the_files_that_a_model_needs_are_downloaded(self, store, copies):
        folder = self.fetch(store)
        assert folder.parent == copies
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
            name: self.FILES[name] for name in self.WANTED
        }

    def test_of_the_adapters_of_languages_those_that_are_used_are_downloaded_alone(self, store, copies):
        for language in ("eng", "deu", "fra"):
            store.create(f"adapter.{language}.safetensors", language.encode())
        store.create("tokenizer_config.json", b'{"target_lang": "eng"}')
        options = getattr(store, "options", None)

        def there() -> set[str]:
            return {file.name.split(".")[1] for file in folder.glob("adapter.*")}

        folder = fetch(store.url, options, languages=[])
        assert there() == set()
        digest = digest_adapters(folder)
        assert fetch(store.url, options) == folder
        assert there() == {"eng"}
        assert fetch(store.url, options, languages=["deu", "xyz"]) == folder
        assert there() == {"eng", "deu"}
        assert with_file(folder, "adapter.fra.safetensors").read_bytes() == b"fra"
        assert with_file(folder, "adapter.xyz.safetensors") is None
        assert digest_adapters(folder) == digest
        assert [one.name for one in copies.iterdir() if ".part-" in one.name] == []
        store.replace("adapter.fra.safetensors", b"french")
        other = fetch(store.url, options, languages=EVERY)
        assert other != folder
        assert len([*other.glob("adapter.*")]) == 3
        assert digest_adapters(other) != digest

    def test_an_adapter_that_changed_after_the_copy_was_made_is_refused(self, store):
        store.create("adapter.fra.safetensors", b"fra")
        folder = fetch(store.url, getattr(store, "options", None), languages=[])
        for changed in (b"abc", b"french"):
            store.replace("adapter.fra.safetensors", changed)
            with pytest.raises(StoreError, match="run again"):
                with_file(folder, "adapter.fra.safetensors")
        assert [*folder.glob("adapter.*")] == []

    def test_it_is_downloaded_once_and_again_when_it_changes(self, store, copies):
        first = self.fetch(store)
        before = {file: file.stat().st_ino for file in first.iterdir()}
        assert self.fetch(store) == first
        assert {file: file.stat().st_ino for file in first.iterdir()} == before
        store.replace("vocab.json", b"{'a': 1}")
        second = self.fetch(store)
        assert second != first
        assert (second / "vocab.json").read_bytes() == b"{'a': 1}"
        assert (first / "vocab.json").read_bytes() == b"{}"

    def test_many_at_once_bring_it_once(self, store, monkeypatch):
        copied = []
        really = fetching._copy
        monkeypatch.setattr(fetching, "_copy", lambda *args: (copied.append(args[1].path), really(*args)))
        with ThreadPoolExecutor(8) as pool:
            folders = list(pool.map(lambda _: self.fetch(store), range(8)))
        assert len(set(folders)) == 1
        assert sorted(copied) == [*self.WANTED]

    def test_where_nothing_can_be_locked_all_get_the_whole(self, store, monkeypatch):
        monkeypatch.setattr(opened.fcntl, "flock", refuse_lock)
        with ThreadPoolExecutor(8) as pool:
            folders = set(pool.map(lambda _: self.fetch(store), range(8)))
        [folder] = folders
        assert (folder / "model.safetensors").read_bytes() == self.FILES["model.safetensors"]

    def test_a_killed_download_leaves_nothing_that_looks_complete(self, s3, copies):
        url = f"s3://{s3.bucket()}/model"
        for name, data in self.FILES.items():
            open_store(url, s3.options).create(name, data)
        program = f"""
            import os, signal
            import raysp
            from raysp.checkpoints import fetching
            really = fetching._copy
            def copy(store, entry, place):
                if entry.path == "vocab.json":
                    os.kill(os.getpid(), signal.SIGKILL)
                really(store, entry, place)
            fetching._copy = copy
            options = {{"key": {s3.key!r}, "secret": raysp.Env("RAYSP_TEST_SECRET"), "endpoint_url": {s3.endpoint!r}}}
            fetching.fetch({url!r}, options)
        """
        killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=False)
        assert killed.returncode == -signal.SIGKILL
        [left] = copies.glob("*.part-*")
        assert (left / "model.safetensors").is_file()
        folder = fetch(url, s3.options)
        assert {file.name for file in folder.iterdir()} == {*self.WANTED}
        assert list(copies.glob("*.part-*")) == []

    def test_of_copies_that_no_process_uses_only_the_last_few_stay(self, store, copies, monkeypatch):
        monkeypatch.setattr(fetching, "KEPT_COPIES", 2)
        program = """
            import sys
            from pathlib import Path
            from raysp.checkpoints import fetching
            fetching.mark_used(Path(sys.argv[1]))
            print("used", flush=True)
            sys.stdin.read()
        """
        first = self.fetch(store)
        user = [sys.executable, "-c", textwrap.dedent(program), str(first)]
        with subprocess.Popen(user, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:
            assert elsewhere.stdout.readline() == b"used\n"
            for number in range(4):
                fetching.forget_used()  # as in a process of its own
                store.replace("vocab.json", f"{number}".encode())
                last = self.fetch(store)
            there = {copy for copy in copies.iterdir() if copy.is_dir()}
            assert len(there) == 3
            assert {first, last} < there  # the first one is the oldest, but in use
            assert (first / "model.safetensors").read_bytes() == self.FILES["model.safetensors"]
            elsewhere.stdin.close()
        fetching.forget_used()
        store.replace("vocab.json", b"one more")
        newest = self.fetch(store)
        assert {copy for copy in copies.iterdir() if copy.is_dir()} == {last, newest}

    def test_copies_take_no_more_room_than_they_may(self, store, copies, monkeypatch):
        monkeypatch.setattr(fetching, "KEPT_BYTES", 600_000)  # two of them
        for number in range(4):
            fetching.forget_used()
            store.replace("vocab.json", f"{number}".encode())
            self.fetch(store)
        assert len([copy for copy in copies.iterdir() if copy.is_dir()]) == 2

    def test_copies_in_use_by_this_process_are_kept_at_any_size(self, store, monkeypatch):
        monkeypatch.setattr(fetching, "KEPT_BYTES", 0)
        folders = []
        for number in range(3):
            store.replace("vocab.json", f"{number}".encode())
            folders.append(self.fetch(store))
        assert all((folder / "config.json").is_file() for folder in folders)

    def test_where_nothing_can_be_locked_nothing_is_removed(self, store, monkeypatch):
        monkeypatch.setattr(fetching, "KEPT_BYTES", 0)
        monkeypatch.setattr(opened.fcntl, "flock", refuse_lock)
        folders = []
        for number in range(3):
            fetching.forget_used()
            store.replace("vocab.json", f"{number}".encode())
            folders.append(self.fetch(store))
        assert all(folder.is_dir() for folder in folders)

    def test_a_checkpoint_that_changes_on_the_way_is_refused(self, store, monkeypatch):
        really = fetching._copy

        def copy(found, entry, place):
            really(found, entry, place)
            store.replace("README.md", b"changed")

        monkeypatch.setattr(fetching, "_copy", copy)
        with pytest.raises(StoreError, match="the checkpoint changed while it was downloaded; run again"):
            self.fetch(store)

    @pytest.mark.parametrize(
        ("missing", "message"),
        [
            ("config.json", "no config.json there, found .*vocab.json; expected a Hugging Face model folder"),
            (
                "model.safetensors",
                r"pickled weights \(pytorch_model.bin\).*expected model.safetensors: .*`raysp convert",
            ),
        ],
    )
    def test_a_folder_without_a_checkpoint_is_refused_with_its_files(self, store, missing, message):
        store.delete(missing)
        with pytest.raises(CheckpointError, match=message):
            self.fetch(store)

    def test_an_empty_folder_is_reported(self, s3):
        url = f"s3://{s3.bucket()}/nowhere"
        with pytest.raises(CheckpointError, match=r"nowhere': no config.json there, found nothing"):
            fetch(url, s3.options)

    def test_a_cache_that_cannot_be_written_is_named(self, store, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(StoreError, match=r"file/raysp/checkpoints: cannot keep a checkpoint in it"):
            self.fetch(store)


def refuse_lock(*args: object) -> None:
    raise OSError(37, "No locks available")
