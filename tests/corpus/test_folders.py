"""Folders of audio files: slices of the sorted listing that stay as they were recorded."""

import json
from dataclasses import asdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp import ShardError
from raysp.corpus import folders, sources
from raysp.corpus.shards import Piece, Shard, cut_groups
from raysp.storage.store import Entry

names = st.sets(st.text("abc/é", min_size=1, max_size=4), max_size=20)


def entries(paths, version="1"):
    return [Entry(path, 10, version) for path in sorted(paths)]


@pytest.mark.slow
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


@pytest.mark.lengthy
def test_a_piece_carries_no_more_than_its_own_part():
    rng = Random(0)
    listing = sorted((f"{rng.randbytes(16).hex()}.flac", 100_000 + rng.randrange(10**6), n) for n in range(10_000))
    part = folders.pack(listing)
    found = sources.survey("folder", "/x", part)
    pieces = cut_groups(found.groups, most_rows=folders.FolderKind.piece_rows)
    assert [row for piece in pieces for row in range(piece.first, piece.end)] == list(range(10_000))
    shard = Shard("n", "/x", 1, folders.version(part), 10_000, "i", pieces, "folder", part)
    for piece in pieces:
        one = sources.narrow(shard, piece)
        assert len(json.dumps(asdict(one))) < 20_000
        assert sources.read_table(one, piece, ["id"]) == sources.read_table(shard, piece, ["id"])
        assert sources.column_names(one) == ["id", "audio"]
    inner = Piece(pieces[1].first + 3, pieces[1].first + 5)
    narrowed = sources.narrow(shard, pieces[1])
    assert sources.read_table(narrowed, inner, ["id"])["id"].to_pylist() == [
        listing[inner.first][0],
        listing[inner.first + 1][0],
    ]
    assert sources.read_table(narrowed, Piece(inner.first, inner.first), ["id"]).num_rows == 0


def test_a_damaged_listing_is_noticed_before_a_piece_is_sent():
    (part,) = folders.cut(entries(["a.wav"]), [])
    shard = Shard("n", "/x", 10, "another version", 1, "i", (Piece(0, 1),), "folder", part)
    with pytest.raises(ShardError, match="its recorded listing is damaged"):
        sources.narrow(shard, Piece(0, 1))


def test_ten_thousand_files_are_recorded_in_little():
    part = folders.pack(
        [(f"speaker-{n % 100}/chapter-{n % 977}/utterance-{n:06}.flac", 100_000 + n, n) for n in range(10_000)]
    )
    assert len(part) < 200_000
