"""The store of a folder: what the system refuses, links, locks and urls."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raysp import StoreError
from raysp.storage import opened
from raysp.storage.store import (
    LocalStore,
    check_names,
    probe,
)
from raysp.storage.stores import expand, open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "not" / "there yet")


def paths(store: LocalStore, prefix: str = "") -> list[str]:
    return [entry.path for entry in store.list(prefix)]


class TestLocalStore:
    def test_a_file_that_is_written_while_it_is_read_is_refused(self, store):
        store.create("a", b"one two")
        opened = store.open_version("a", 3)
        assert (opened.head, opened.file.read(5)) == (b"one", b"one t")
        Path(store.url, "a").write_bytes(b"another")
        os.utime(Path(store.url, "a"), ns=(5, 5))
        with pytest.raises(StoreError, match="/a: it was replaced while it was read; run again"):
            opened.file.read(3)

    def test_linked_folders_are_listed_as_readers_list_them_and_loops_are_not(self, store, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        root = Path(store.url)
        root.mkdir(parents=True)
        (root / "linked").symlink_to(elsewhere)
        (root / "loop").symlink_to(root)
        (elsewhere / "back").symlink_to(root)
        (elsewhere / "itself").symlink_to(elsewhere)
        store.create("linked/b/1.parquet", b"")
        store.create("2.parquet", b"")
        assert paths(store) == ["2.parquet", "linked/b/1.parquet"]
        assert paths(store) == [entry.path for entry in expand(store.url).entries]
        assert paths(store, "linked/b/") == ["linked/b/1.parquet"]

    def test_links_in_its_own_folder_are_not_followed_since_gc_removes_listed_files(self, store, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "precious").write_text("")
        store.create(".raysp/tmp/left", b"")
        (Path(store.url) / ".raysp" / "tmp" / "link").symlink_to(tmp_path / "mine")
        assert paths(store, ".raysp/") == [".raysp/tmp/left"]

    def test_delete_takes_empty_folders_along_but_not_the_root(self, store):
        for name in ("a/b/c", "a/d"):
            store.create(name, b"")
        shutil.rmtree(Path(store.url, ".raysp"))
        store.delete("a/b/c")
        assert not Path(store.url, "a/b").exists()
        store.delete("a/d")
        assert list(Path(store.url).iterdir()) == []


class TestWhatTheSystemRefuses:
    def test_a_file_where_a_folder_is_needed(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match=r"file/labels: .*; a file is where a folder is needed"):
            probe(LocalStore(tmp_path / "file" / "labels"))
        with pytest.raises(StoreError, match="a file is where a folder is needed"):
            LocalStore(tmp_path).create("file/a", b"")

    def test_a_folder_where_a_file_is_needed(self, store):
        store.create("a/b", b"")
        for write in (store.create, store.replace):
            with pytest.raises(StoreError, match="a folder is where a file is needed"):
                write("a", b"")
        assert store.stat("a") is None

    def test_a_name_that_is_too_long(self, store):
        with pytest.raises(StoreError, match="the name is too long for this file system"):
            store.create("x" * 300, b"")

    def test_a_file_system_without_hard_links(self, store, monkeypatch):
        def refuse(*args):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
        with pytest.raises(StoreError, match="made visible by hard links, which this file system lacks"):
            probe(store)

    def test_no_permission(self, tmp_path):
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o555)
        with (
            as_nobody(),
            pytest.raises(StoreError, match=r"cannot .* \(Permission denied\); grant this user permission"),
        ):
            probe(LocalStore(locked / "labels"))

    def test_a_file_that_the_system_cuts_is_not_visible(self, store):
        store.create("a", b"one")
        with at_most(1000), pytest.raises(StoreError, match="the largest file allowed here is smaller"):
            store.replace("a", bytes(5000))
        with at_most(1000), pytest.raises(StoreError, match="the largest file allowed here is smaller"):
            store.create("b", bytes(5000))
        assert (paths(store), store.read("a")) == (["a"], b"one")


@contextmanager
def at_most(num_bytes: int) -> Iterator[None]:
    """Have the system refuse to write more of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to write everywhere, where the tests have it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestUrls:
    @pytest.mark.parametrize("call", [open_store, expand])
    @pytest.mark.parametrize(
        ("urls", "message"),
        [
            (["nowhere://b", "zip::file:///a", "s3::b"], "found the scheme '.*'; expected a local path, s3://, gs://"),
            (["s3a://b/labels", "s3n://b/labels", "S3A://b/labels"], r"only Hadoop uses; write s3://b/labels"),
            (["s3://", "s3:///a", "s3://b c/a"], "is not the name of a bucket; write s3://bucket/folder"),
        ],
    )
    def test_urls_that_no_store_has_are_refused(self, call, urls, message):
        for url in urls:
            with pytest.raises(StoreError, match=message):
                call(url)


class TestExpand:
    @pytest.mark.parametrize("files", [(), (".a.wav", "_SUCCESS", "_temporary/a.wav")])
    def test_a_folder_without_files_is_an_error_with_the_names_that_are_ignored(self, tmp_path, files):
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
        with pytest.raises(
            StoreError, match=r"no file matches; folders that begin with '\.' or '_' and files .* ignored"
        ):
            expand(str(tmp_path), folder_pattern="**/*")
        with pytest.raises(StoreError, match=r"/missing: cannot list it .*check the path"):
            expand(f"{tmp_path}/missing/*.parquet")

    def test_a_name_that_is_not_utf8_is_refused(self, tmp_path):
        with open(os.fsencode(tmp_path) + b"/\xff.parquet", "wb"):
            pass
        with pytest.raises(StoreError, match="is not valid UTF-8; rename the file"):
            check_names(expand(str(tmp_path)))


@pytest.fixture
def without_locks(constants):
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    constants(opened.fcntl, flock=refused)


HOLD = """
import sys
from pathlib import Path
from raysp.storage.opened import locked
with locked(Path(sys.argv[1])):
    print(1, flush=True)
    sys.stdin.read()
"""


class TestLocks:
    """The lock under which a file of an expected version is replaced."""

    def test_a_lock_that_is_held_is_waited_for_and_then_named_and_it_ends_with_its_process(self, tmp_path, constants):
        constants(opened, WAIT_SECONDS=0.1)
        place = tmp_path / "x" / "lock"
        command = [sys.executable, "-c", HOLD, str(place)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout.readline() == b"1\n"
        message = r"x/lock: another process has held this lock.*it is paused"
        with pytest.raises(StoreError, match=message), opened.locked(place):
            pass
        holder.kill()
        holder.communicate()
        for _ in range(2):
            with opened.locked(place):
                pass

    def test_a_file_system_without_locks_replaces_what_it_looked_at_and_is_named_once(
        self, store, without_locks, caplog
    ):
        store.create("a", b"one")
        version = store.stat("a").version
        for data, expected, is_published in ((b"two", version, True), (b"late", version, False)):
            with store.scratch() as scratch:
                scratch.write_bytes(data)
                assert bool(store.publish(scratch, "a", replace=True, expected=expected)) is is_published
        assert store.read("a") == b"two"
        (warning,) = [record.getMessage() for record in caplog.records]
        assert "files cannot be locked here" in warning
        assert warning.endswith("start one run at a time")
