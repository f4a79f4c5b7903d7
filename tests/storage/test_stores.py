"""The contract of every store: the same tests over a folder, memory and an object store."""

import threading
import uuid

import pytest

from raysp import StoreError
from raysp.storage.opened import content_of
from raysp.storage.store import TMP, probe
from raysp.storage.stores import expand, open_store
from tests import s3_servers
from tests.clouds.cloud import CLOUDS


@pytest.fixture(params=["local", "memory", f"s3-{s3_servers.kind()}", *CLOUDS])
def place(request, tmp_path):
    """A url that nothing is at yet, and its storage options."""
    if request.param == "local":
        return str(tmp_path / "not" / "there yet"), {}
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/deep", {}
    if request.param in CLOUDS:
        cloud = request.getfixturevalue(CLOUDS[request.param])
        return cloud.url(cloud.bucket(), "deep"), cloud.options
    s3 = request.getfixturevalue("s3")
    return f"s3://{s3.bucket()}/deep", s3.options


@pytest.fixture
def store(place):
    return open_store(*place)


def paths(store, prefix="") -> list[str]:
    return [entry.path for entry in store.list(prefix)]


def test_files_are_created_once_replaced_and_deleted(store):
    assert paths(store) == paths(store, "x/y") == []
    assert store.stat("a") is None
    store.delete("a/b")
    assert store.create("a/b", b"one") is True
    assert store.create("a/b", b"two") is False
    assert store.read("a/b") == b"one"
    assert paths(store) == ["a/b"]
    assert store.stat("a") is None  # a folder is not a file
    for data in (b"two", b"three"):
        store.replace("a/b", data)
        assert store.read("a/b") == data
    for _ in range(2):
        store.delete("a/b")
    assert store.stat("a/b") is None
    assert store.create("a/b", b"")
    assert (store.stat("a/b").num_bytes, store.read("a/b")) == (0, b"")
    with store.open("a/b") as file:
        assert (file.size(), file.read()) == (0, b"")
    for read in (store.read, store.open):
        with pytest.raises(StoreError, match=r"a\.parquet: cannot read it .*"):
            read("a.parquet")


def test_a_probe_and_a_scratch_file_that_is_not_published_leave_no_file(store):
    probe(store)
    with store.scratch() as scratch:
        scratch.write_bytes(b"half")
    assert paths(store) == []
    assert not scratch.exists()


def test_list_is_sorted_by_whole_path_and_narrowed_by_prefix(store):
    names = ["a.b", "a/b", "a/c/d", "a0", "ab/c", "b", "ä/ß", "z~/ +&%?#"]
    for name in reversed(names):
        store.create(name, b"")
    assert paths(store) == sorted(names)
    assert paths(store, "a/") == ["a/b", "a/c/d"]
    assert paths(store, "a") == ["a.b", "a/b", "a/c/d", "a0", "ab/c"]
    assert paths(store, "a/c/d") == ["a/c/d"]
    assert paths(store, "a/c/d/") == paths(store, "c") == []
    assert store.stat("z~/ +&%?#") is not None


def test_open_reads_the_requested_ranges(store):
    for num_bytes in (1, 65_536, 65_537, 3_000_000):
        data = bytes(i * 7 % 251 for i in range(num_bytes))
        store.replace("a", data)
        with store.open("a") as file:
            assert file.size() == num_bytes
            for first, size in [(num_bytes - 1, 5), (0, 3), (num_bytes // 2, 1_000_000), (3, 1), (num_bytes, 1)]:
                file.seek(first)
                assert file.read(size) == data[first : first + size]
            file.seek(0)
            assert file.read() == data


def test_a_path_outside_is_refused(store):
    for path in ("../a", "/etc/passwd", "a/../../b", "a\0b"):
        for call in (store.read, store.stat, store.delete, lambda path: store.create(path, b"")):
            with pytest.raises(StoreError, match="is not a path inside this folder"):
                call(path)


def published(store, data: bytes, **how):
    with store.scratch() as scratch:
        scratch.write_bytes(data)
        found = store.publish(scratch, "x/l.parquet", **how)
    assert not scratch.exists()
    return found


def test_publish_makes_a_scratch_file_visible_once(store):
    with store.scratch() as scratch:
        scratch.write_bytes(b"whole")
        assert [path for path in paths(store) if not path.startswith(TMP)] == []
        assert store.publish(scratch, "x/l.parquet")
    assert not published(store, b"late")
    assert store.read("x/l.parquet") == b"whole"
    assert published(store, b"new", replace=True)
    assert store.read("x/l.parquet") == b"new"
    assert paths(store) == ["x/l.parquet"]


def test_publish_replaces_only_the_expected_version_and_returns_the_entry_that_stat_and_list_show(store):
    assert not published(store, b"nothing is there", replace=True, expected="0")
    versions, contents = [], set()
    for data, how in ((b"first", {}), (b"second", {"replace": True}), (b"third", {"replace": True, "expected": ""})):
        entry = published(store, data, **({**how, "expected": versions[-1]} if "expected" in how else how))
        assert [entry, store.stat("x/l.parquet"), *store.list("x/")] == [entry] * 3
        versions.append(entry.version)
        contents.add(content_of(entry))
    assert len({*versions}) == len(contents) == 3
    assert not published(store, b"late", replace=True, expected=versions[0])
    assert store.read("x/l.parquet") == b"third"


@pytest.mark.usefixtures("atomic_store")
def test_of_many_creators_one_wins_and_its_bytes_are_there(place):
    start, won, failed = threading.Barrier(8), [], []

    def work(k: int) -> None:
        try:
            store = open_store(*place)
            start.wait()
            if store.create("deep/er/name", str(k).encode() * 10_000):
                won.append(k)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(won) == 1
    assert open_store(*place).read("deep/er/name") == str(won[0]).encode() * 10_000


NAMES = (
    *("a/1.parquet", "a/2.parquet", "a/b/3.parquet", "c/4.parquet", "c/x.txt", "5.parquet", "[6].parquet"),
    *("_hidden/7.parquet", ".raysp/8.parquet", "a/_SUCCESS", "a/.9.parquet.crc", "dir.parquet/11.parquet"),
    *("c/_temporary/9.parquet", "_dir.parquet/10.parquet", "a/_1.parquet"),
)
ALL = ["5", "[6]", "a/1", "a/2", "a/_1", "a/b/3", "c/4", "dir.parquet/11"]
LISTINGS = [
    ("", "", ALL),
    ("/**/*.parquet", "", ALL),
    ("/*.parquet", "", ["5", "[6]"]),
    ("/a", "/a", ["1", "2", "_1", "b/3"]),
    ("/a/**", "/a", ["1", "2", "_1", "b/3"]),
    ("/**/b/*", "", ["a/b/3"]),
    ("/a/[!1].parquet", "/a", ["2"]),
    ("/?/?.parquet", "", ["a/1", "a/2", "c/4"]),
    ("/a/1.parquet", "/a", ["1"]),
    ("/[6].parquet", "", ["[6]"]),
    ("/[[]6].parquet", "", ["[6]"]),
    ("/_hidden", "/_hidden", ["7"]),
]


def test_a_url_has_the_same_files_as_a_shell_lists_without_hidden_folders(place, store):
    for name in NAMES:
        store.create(name, b"x")
    for pattern, root, expected in LISTINGS:
        listing = expand(f"{store.url}{pattern}", place[1])
        assert listing.root == f"{store.url}{root}", pattern
        assert [entry.path for entry in listing.entries] == [f"{name}.parquet" for name in expected], pattern
        if pattern in ("", "/a", "/a/1.parquet"):
            folder = open_store(listing.root, place[1])
            assert [folder.stat(entry.path) for entry in listing.entries] == list(listing.entries)
    for pattern, reason in (
        ("/missing.parquet", "no such file or folder; check the"),
        ("/a/9*", "no file matches"),
        ("/a/b/*.txt", "no file matches"),
    ):
        with pytest.raises(StoreError, match=reason):
            expand(f"{store.url}{pattern}", place[1])


def test_a_folder_whose_name_has_wildcards_is_that_folder():
    root = f"memory://{uuid.uuid4().hex}"
    open_store(f"{root}/au[d]io").create("x.parquet", b"x")
    open_store(f"{root}/audio").create("y.parquet", b"y")
    assert [entry.path for entry in expand(f"{root}/au[d]io").entries] == ["x.parquet"]
    assert [entry.path for entry in expand(f"{root}/aud[i]o/*.parquet").entries] == ["audio/y.parquet"]
