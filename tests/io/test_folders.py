"""Folders of audio files: slices of the sorted listing that stay as they were recorded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.io import folders, sources
from raysp.io.shards import Piece, Shard
from raysp.io.store import Entry

names = st.sets(st.text("abc/é", min_size=1, max_size=4), max_size=20)


def entries(paths, version="1"):
    return [Entry(path, 10, version) for path in sorted(paths)]


@given(names, names, names)
def test_files_keep_their_slices_and_new_ones_make_new_slices(first, gone, new):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "FILES_A_SHARD", 3)
        parts = folders.cut(entries(first), [])
        later = folders.cut(entries((first - gone) | new), parts)
    assert later[: len(parts)] == parts
    assert [path for part in parts for path, _, _ in folders.unpack(part)] == sorted(first)
    added = [path for part in later[len(parts) :] for path, _, _ in folders.unpack(part)]
    assert added == sorted(new - first)
    assert all(0 < len(folders.unpack(part)) <= 3 for part in later)


def test_a_file_that_changed_gives_its_slice_another_version():
    (part,) = folders.cut(entries(["a", "b"]), [])
    (same,) = folders.cut(entries(["a", "b"]), [part])
    (other,) = folders.cut([Entry("a", 11, "1"), Entry("b", 10, "1")], [part])
    (touched,) = folders.cut(entries(["a", "b"], version="2"), [part])
    assert folders.version(part) == folders.version(same)
    assert len({folders.version(one) for one in (part, other, touched)}) == 3


def test_rows_are_paths_below_the_folder():
    (part,) = folders.cut(entries(["a.wav", "b/c.wav", "d.wav"]), [])
    found = sources.survey("folder", "/x", part)
    shard = Shard("n", "/x", 30, folders.version(part), 3, "i", found.pieces, "folder", part)
    assert sources.read_table(shard, Piece(1, 3), ["id", "audio"]).to_pylist() == [
        {"id": "b/c.wav", "audio": {"bytes": None, "path": "b/c.wav"}},
        {"id": "d.wav", "audio": {"bytes": None, "path": "d.wav"}},
    ]
    assert sources.read_table(shard, Piece(0, 0), ["id"]).num_rows == 0


def test_ten_thousand_files_are_recorded_in_little():
    part = folders.pack(
        [(f"speaker-{n % 100}/chapter-{n % 977}/utterance-{n:06}.flac", 100_000 + n, n) for n in range(10_000)]
    )
    assert len(part) < 200_000
