import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raysp import StoreError
from raysp.storage.fsspec_store import FsspecStore
from raysp.storage.s3 import S3Store
from raysp.storage.store import LocalStore, UnusableError, check_names, join_url, normalise, probe, split_url
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

    @pytest.mark.parametrize("call", ["hardlink_to", "replace"])
    def test_a_write_that_fails_before_the_atomic_step_leaves_nothing_visible(self, store, monkeypatch, call):
        def die(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, call, die)
        with pytest.raises(KeyboardInterrupt):
            (store.create if call == "hardlink_to" else store.replace)("a", b"one")
        assert store.stat("a") is None


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

    def test_a_missing_file_is_named(self, store):
        for read in (store.read, store.open):
            with pytest.raises(StoreError, match=r"yet/a\.parquet: cannot read it \(No such file.*; check the path"):
                read("a.parquet")

    def test_a_place_of_the_kernel(self):
        with pytest.raises(StoreError, match="/proc/raysp: cannot write to it"):
            probe(LocalStore("/proc/raysp"))

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

    @pytest.mark.parametrize(
        ("number", "message", "is_unusable"),
        [
            (errno.ENOSPC, r"/a: cannot write it \(No space left on device\); free space", True),
            (errno.EDQUOT, "Disk quota exceeded", True),
            (errno.EROFS, "the file system is read-only: choose another place", True),
            (errno.EACCES, "grant this user permission", True),
            (errno.EFBIG, "the largest file allowed here is smaller", False),
            (errno.ECONNRESET, "cannot write it", False),
        ],
    )
    def test_errors_that_every_other_file_would_have_are_distinguished(
        self, store, monkeypatch, number, message, is_unusable
    ):
        def refuse(*args):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(StoreError, match=message) as caught:
            store.create("a", b"")
        assert isinstance(caught.value, UnusableError) == is_unusable
        assert store.stat("a") is None


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
    def test_the_scheme_selects_the_store(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for url in (*("{}", "file://{}", "local://{}", "{}/", "{}/x/.."), "."):
            assert open_store(url.format(tmp_path)).url == str(tmp_path)
        for url, kind, root in (
            ("s3://bucket", S3Store, "s3://bucket"),
            ("S3://bucket/a/b//", S3Store, "s3://bucket/a/b"),
            ("memory://a/b/", FsspecStore, "memory://a/b"),
            ("https://host/a", FsspecStore, "https://host/a"),
        ):
            assert (type(open_store(url)), open_store(url).url) == (kind, root)

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

    def test_a_file_is_split_from_its_folder_and_joined_again(self):
        for url, folder, name in (
            ("s3://bucket/a/b.parquet", "s3://bucket/a", "b.parquet"),
            ("s3://bucket/b.parquet", "s3://bucket", "b.parquet"),
            ("memory://b.parquet", "memory://", "b.parquet"),
            ("/b.parquet", "/", "b.parquet"),
        ):
            assert split_url(url) == (folder, name)
            assert join_url(folder, name) == url
        assert split_url("b.parquet") == (".", "b.parquet")

    def test_urls_are_written_as_listings_write_them(self):
        urls = {"/a/../b/": "/b", "file:///a": "/a", "s3://b/c/": "s3://b/c", "S3://b/c/../d": "s3://b/c/../d"}
        assert {url: normalise(url) for url in urls} == urls


class TestExpand:
    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Path:
        for name in [
            *("a/1.parquet", "a/2.parquet", "a/b/3.parquet", "c/4.parquet", "c/x.txt", "5.parquet", "[6].parquet"),
            *("_hidden/7.parquet", ".raysp/8.parquet", "a/_SUCCESS", "a/.9.parquet.crc", "dir.parquet/11.parquet"),
            *("c/_temporary/9.parquet", "_dir.parquet/10.parquet"),
        ]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        return tmp_path

    @pytest.mark.parametrize(
        ("pattern", "reason"),
        [
            ("/missing", "no such file or folder; check the path"),
            ("/a/9*", "no file matches"),
            ("/a/b/*.txt", "no file matches"),
            ("/missing/*.parquet", "/missing: cannot list it .*check the path"),
            ("/c/x.txt/*", "a file is where a folder is needed"),
        ],
    )
    def test_a_missing_path_is_an_error_with_a_message(self, corpus, pattern, reason):
        with pytest.raises(StoreError, match=reason):
            expand(f"{corpus}{pattern}")

    @pytest.mark.parametrize("files", [(), (".a.wav", "_SUCCESS", "_temporary/a.wav")])
    def test_a_folder_without_files_is_an_error_with_the_names_that_are_ignored(self, tmp_path, files):
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
        with pytest.raises(
            StoreError, match=r"no file matches; folders that begin with '\.' or '_' and files .* ignored"
        ):
            expand(str(tmp_path), folder_pattern="**/*")

    def test_links_are_followed_and_loops_are_not(self, corpus, tmp_path_factory):
        linked = tmp_path_factory.mktemp("linked")
        (linked / "corpus").symlink_to(corpus / "a")
        (linked / "one.parquet").symlink_to(corpus / "5.parquet")
        (linked / "loop").symlink_to(linked)
        (linked / "broken.parquet").symlink_to(linked / "nothing")
        assert [entry.path for entry in expand(str(linked)).entries] == [
            *("broken.parquet", "corpus/1.parquet", "corpus/2.parquet", "corpus/b/3.parquet", "one.parquet")
        ]

    def test_a_name_that_is_not_utf8_is_refused(self, tmp_path):
        with open(os.fsencode(tmp_path) + b"/\xff.parquet", "wb"):
            pass
        with pytest.raises(StoreError, match="is not valid UTF-8; rename the file"):
            check_names(expand(str(tmp_path)))
