"""Manifests: a line a row, and what strangers write into them."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import RayspError
from tests import corpora


def write(path, rows):
    data = b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_rows_have_nemos_keys_and_all_others_as_columns(tmp_path):
    (tmp_path / "a.wav").write_bytes(corpora.wav(64_000))
    path = write(
        tmp_path / "m.jsonl",
        [
            {"audio_filepath": "a.wav", "duration": 1.5, "offset": 2, "text": "one", "speaker": "s1", "snr": 3},
            b"\n",
            {"audio_filepath": "b.wav", "id": "own", "snr": 2.5, "tags": ["x"], "mixed": 1},
            {"audio_filepath": "a.wav", "id": 7, "mixed": "two", "flag": True},
        ],
    )
    expected = {
        "id": ["a.wav", "own", "7"],
        "seconds": [1.5, None, 4.0],
        "error_type": ["filtered", "not_found", "filtered"],
        "audio_filepath": ["a.wav", "b.wav", "a.wav"],
        "text": ["one", None, None],
        "speaker": ["s1", None, None],
        "snr": [3.0, 2.5, None],
        "tags": [None, '["x"]', None],
        "mixed": [None, "1", "two"],
        "flag": [None, None, True],
    }
    found = corpora.read(path, "audio_filepath", "text", "speaker", "snr", "tags", "mixed", "flag")
    assert {name: [row[name] for row in found] for name in expected} == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=2)
@given(st.lists(st.tuples(VALUES, st.text(st.characters(), max_size=5)), min_size=20, max_size=20))
def test_any_value_of_any_key_is_stored(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    for number, (value, key) in enumerate(rows):
        write(folder / f"{number}.jsonl", [{"audio_filepath": value, "id": value, "offset": value, key: value}])
    assert len(corpora.read(f"{folder}/*.jsonl")) == len(rows)


def test_texts_are_stored_without_loss(tmp_path):
    digits = "7" * 5000
    texts = ["nul \0 here", "\u202eright to left", "emoji \U0001f600", "x" * 1_000_000, "\x1b[2J", "=cmd|' /C'!A0"]
    rows = [{"audio_filepath": "a", "text": text, "id": text, "n": 1} for text in texts]
    rows += [rb'{"audio_filepath": "a\ud800", "text": "b\udfff", "n": %s}' % digits.encode() + b"\n"]
    found = corpora.read(write(tmp_path / "m.jsonl", rows), "text", "n")
    assert [(row["id"], row["text"]) for row in found] == [*((text, text) for text in texts), (r"a\ud800", None)]
    assert [row["n"] for row in found] == ["1"] * len(texts) + [digits]


def test_what_is_no_manifest_is_refused_with_the_first_line_at_fault(tmp_path):
    for line in (b"{\n", b"[1]\n", b"3\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"a": }\n'):
        path = write(tmp_path / "m.jsonl", [{"audio_filepath": "a"}, line])
        assert "m.jsonl: line 2 of this slice" in corpora.refusal(path)
    rows = [{"audio_filepath": "a", **{f"{row} {n}": n for n in range(400)}} for row in range(3)]
    path = write(tmp_path / "m.jsonl", rows)
    assert "m.jsonl: has 1,201 columns; expected at most 1,000" in corpora.refusal(path)


def test_a_line_beyond_the_bound_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"audio_filepath": "a.wav", "x": "')
        for _ in range(40):
            file.write(b" " * 2**20)
        file.write(b'"}\n')
    with pytest.raises(RayspError, match="a line has more than 16,777,216 bytes; expected a manifest"):
        corpora.refusal(path)


def test_a_slice_that_changed_is_refused(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"audio_filepath": "a"}])
    found = corpora.failures(path, lambda: write(path, [{"audio_filepath": "b"}]))
    assert "m.jsonl: changed since it was planned" in found[""]
