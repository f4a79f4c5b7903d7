"""Manifests: a line a row, slices that are never cut again, what strangers write into them."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import ShardError
from raysp.corpus import manifests, sources
from raysp.corpus.shards import Piece, Shard, cut_groups


def write(path, rows):
    data = b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def shards_of(path, recorded=()) -> list[Shard]:
    return shards_of_slices(path, manifests.cut(str(path), recorded))


def rows_of(shard: Shard, *columns: str) -> list[dict]:
    return sources.read_table(shard, Piece(0, shard.num_rows), columns or sources.column_names(shard)).to_pylist()


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    before=st.lists(st.integers(0, 9999), min_size=1, max_size=30),
    packed=st.booleans(),
    data=st.data(),
)
def test_a_changed_manifest_is_cut_again_behind_the_slices_that_did_not_change(tmp_path_factory, before, packed, data):
    path = tmp_path_factory.getbasetemp() / f"changed.jsonl{'.gz' if packed else ''}"
    rows = [{"audio_filepath": "x.wav", "n": number, "text": "-" * number} for number in before]
    after = list(rows)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(after)))
        new = [{"audio_filepath": "x.wav", "n": data.draw(st.integers(0, 9999))}] * data.draw(st.integers(0, 3))
        after[place : place + data.draw(st.integers(0, 12))] = new
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "LINES_A_SHARD", 4)
        first = shards_of(write(path, rows))
        write(path, after)
        parts, digests = [shard.part for shard in first], [shard.version for shard in first]
        second = shards_of_slices(path, manifests.cut(str(path), parts, None, digests))
    filled = [shard for shard in second if shard.num_rows]
    assert [row["n"] for shard in filled for row in rows_of(shard, "n")] == [row["n"] for row in after]
    same = next(
        (k for k in range(len(rows) // 4) if rows[4 * k : 4 * k + 4] != after[4 * k : 4 * k + 4]), len(rows) // 4
    )
    assert second[:same] == first[:same]
    assert len(second) >= len(first)


def shards_of_slices(path, slices) -> list[Shard]:
    made = []
    for one in slices:
        found = sources.survey("manifest", str(path), one.part)
        made.append(
            Shard("x", str(path), 1, one.digest, found.num_rows, "i", cut_groups(found.groups), "manifest", one.part)
        )
    return made


def test_rows_have_nemos_keys_and_all_others_as_columns(tmp_path):
    path = write(
        tmp_path / "m.jsonl",
        [
            {"audio_filepath": "a.wav", "duration": 1.5, "offset": 2, "text": "one", "speaker": "s1", "snr": 3},
            b"\n",
            {"audio_filepath": "b.wav", "id": "own", "snr": 2.5, "tags": ["x"], "mixed": 1},
            {"audio_filepath": "c.wav", "id": 7, "mixed": "two", "flag": True},
        ],
    )
    (shard,) = shards_of(path)
    found = rows_of(shard)
    assert [row.pop("audio") for row in found] == [{"bytes": None, "path": f"{name}.wav"} for name in "abc"]
    assert {key: [row[key] for row in found] for key in found[0]} == {
        "id": ["a.wav", "own", "7"],
        "offset": [2.0, None, None],
        "duration": [1.5, None, None],
        "audio_filepath": ["a.wav", "b.wav", "c.wav"],
        "text": ["one", None, None],
        "speaker": ["s1", None, None],
        "snr": [3.0, 2.5, None],
        "tags": [None, '["x"]', None],
        "mixed": [None, "1", "two"],
        "flag": [None, None, True],
    }


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=5,
    ),
    st.text(st.characters(), max_size=5),
)
def test_any_value_of_any_key_is_stored(tmp_path_factory, value, key):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    (shard,) = shards_of(write(path, [{"audio_filepath": value, "id": value, "offset": value, key: value}]))
    assert len(rows_of(shard)) == 1


def test_texts_are_stored_without_loss(tmp_path):
    texts = [
        "nul \0 here",
        "\u202eright to left",
        "emoji \U0001f600",
        "x" * 1_000_000,
        "\x1b[2J",
        "-->",
        "=cmd|' /C'!A0",
    ]
    rows = [{"audio_filepath": "a", "text": text, "id": text} for text in texts]
    (shard,) = shards_of(write(tmp_path / "m.jsonl", rows))
    assert rows_of(shard, "id", "text") == [{"id": text, "text": text} for text in texts]


def test_a_line_beyond_the_bound_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"audio_filepath": "a.wav", "x": "')
        for _ in range(40):
            file.write(b" " * 2**20)
        file.write(b'"}\n')
    with pytest.raises(ShardError, match="a line has more than 16,777,216 bytes; expected a manifest"):
        manifests.cut(str(path), ())


def test_slices_end_early_where_lines_are_long_and_no_line_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "MOST_SLICE_BYTES", 100)
    path = write(tmp_path / "m.jsonl", [{"audio_filepath": f"{n}.wav", "n": n, "x": "-" * 40} for n in range(9)])
    first = shards_of(path)
    assert [len(rows_of(shard)) for shard in first] == [2, 2, 2, 2, 1]
    again = manifests.cut(str(path), ["0-1"], None, ["changed"])
    rows = [row["n"] for shard in shards_of_slices(path, again) for row in rows_of(shard, "n")]
    assert rows == list(range(9))


def test_an_integer_of_5000_digits_is_text_in_its_own_row(tmp_path):
    digits = "7" * 5000
    rows = [b'{"audio_filepath": "a", "n": %s}\n' % digits.encode(), {"audio_filepath": "b", "n": 1}]
    (shard,) = shards_of(write(tmp_path / "m.jsonl", rows))
    assert rows_of(shard, "id", "n") == [{"id": "a", "n": digits}, {"id": "b", "n": "1"}]


def test_more_keys_than_columns_are_refused(tmp_path):
    rows = [{"audio_filepath": "a", **{f"{row} {n}": n for n in range(400)}} for row in range(3)]
    with pytest.raises(ShardError, match=r"m.jsonl: has 1,201 columns; expected at most 1,000"):
        shards_of(write(tmp_path / "m.jsonl", rows))


def test_a_lone_surrogate_is_the_escape_of_a_path_and_no_text(tmp_path):
    (shard,) = shards_of(write(tmp_path / "m.jsonl", [rb'{"audio_filepath": "a\ud800", "text": "b\udfff"}' + b"\n"]))
    assert rows_of(shard, "id", "text") == [{"id": r"a\ud800", "text": None}]


def test_a_line_that_is_not_an_object_is_named(tmp_path):
    for line in (b"{\n", b"[1]\n", b"3\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"a": }\n'):
        path = write(tmp_path / "m.jsonl", [{"audio_filepath": "a"}, line])
        with pytest.raises(ShardError, match=r"m.jsonl: line 2 of this slice"):
            shards_of(path)


def test_a_slice_that_changed_is_refused(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"audio_filepath": "a"}])
    (shard,) = shards_of(path)
    write(path, [{"audio_filepath": "b"}])
    with pytest.raises(ShardError, match=r"m.jsonl: changed since it was planned"):
        rows_of(shard)


def test_pieces_follow_the_durations(tmp_path):
    rows = [{"audio_filepath": "a", "duration": 3000}] * 5 + [{"audio_filepath": "a"}] * 5
    (shard,) = shards_of(write(tmp_path / "m.jsonl", rows))
    assert [(piece.first, piece.end) for piece in shard.pieces] == [(0, 2), (2, 4), (4, 10)]
