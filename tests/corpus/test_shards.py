"""Shards: footers of strangers, pieces that cover every row once, rows as they were written."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp import PlanError, ShardError
from raysp.corpus.parquet import read_footer
from raysp.corpus.shards import Group, Shard, cut_groups, only_first_rows
from raysp.corpus.sources import survey
from tests import corpora
from tests.corpora import a_pipeline, rows_table, write_shard


class TestReadFooter:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda data: b"", "found 0 bytes; expected a Parquet file"),
            (lambda data: data[:11], "found 11 bytes"),
            (
                lambda data: data[: len(data) // 2],
                r"ends in b'.*'; expected b'PAR1', the end of a Parquet file. Copy the shard",
            ),
            (lambda data: b"\0" * len(data), r"ends in b'\\x00"),
            (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "its footer length is 2,147,483,647 bytes in a file of"),
            (lambda data: data[:-8] + b"\0\0\0\0PAR1", "its footer length is 0 bytes"),
            (lambda data: data[:-8] + b"\5\0\0\0PAR1", "its footer cannot be read"),
            (lambda data: b"PAR1" + b"\0" * 200 + b"\xc8\0\0\0PAR1", "its footer cannot be read"),
        ],
    )
    def test_a_damaged_file_is_refused_with_its_name_and_its_content(self, tmp_path, spoil, message):
        path = write_shard(tmp_path / "x.parquet")
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(ShardError, match=rf"x.parquet: {message}"):
            read_footer(str(path))

    @pytest.mark.slow
    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_any_content_of_a_footer_is_read_or_refused_by_name(self, data, tmp_path_factory):
        path = tmp_path_factory.getbasetemp() / "fuzzed.parquet"
        write_shard(path, 3)
        raw = bytearray(path.read_bytes())
        footer = int.from_bytes(raw[-8:-4], "little")
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(len(raw) - 8 - footer, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw)
        refused = None
        try:
            found = read_footer(str(path))
        except ShardError as error:
            refused = str(error)
        if refused is None:
            pieces = cut_groups(survey("parquet", str(path), "").groups)
            assert sum(piece.num_rows for piece in pieces) == found.metadata.num_rows
        else:
            assert "fuzzed.parquet: " in refused
            assert "\n" not in refused


class TestJoinedFiles:
    @pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"compression": "none"}], ids=str)
    def test_joined_files_of_one_layout_are_refused_and_not_read_in_part(self, tmp_path, options):
        paths = [tmp_path / f"{name}.parquet" for name in "abc"]
        for path, prefix in zip(paths, "uv", strict=False):
            pq.write_table(rows_table(3, prefix=prefix), path, row_group_size=2, **options)
        paths[2].write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
        size = paths[0].stat().st_size
        with pytest.raises(
            ShardError, match=rf"c\.parquet: a Parquet file ends at byte {size:,} of .*, and another foll"
        ):
            read_footer(str(paths[2]))
        assert [read_footer(str(path)).metadata.num_rows for path in paths[:2]] == [3, 3]

    def test_an_index_that_is_larger_than_the_rows_is_no_second_file(self, tmp_path):
        table = pa.table({"a": ["x" * 60] * 2000})
        pq.write_table(table, tmp_path / "a.parquet", write_page_index=True, data_page_size=1, write_batch_size=1)
        assert read_footer(f"{tmp_path}/a.parquet").metadata.num_rows == 2000


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 500))
def test_a_try_out_takes_the_first_rows_and_no_more(sizes, num_rows):
    corpus = [
        Shard(f"{i}.parquet", "u", 1, "1", rows, "i", cut_groups([Group(rows, 0, 0.0)], most_rows=10))
        for i, rows in enumerate(sizes)
    ]
    found = only_first_rows(corpus, num_rows)
    total = sum(shard.num_rows for shard in corpus)
    assert sum(shard.num_rows for shard in found) == min(num_rows, total)
    for shard, original in zip(found, corpus, strict=False):
        assert shard.name == original.name
        rows = [row for piece in shard.pieces for row in range(piece.first, piece.end)]
        assert rows == list(range(shard.num_rows))


def changed_since(path: Path) -> None:
    write_shard(path, 4)


def damaged_pages(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4:200] = b"\xff" * 196
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed_since, r"x\.parquet: changed since it was planned"),
        (Path.unlink, r"x\.parquet: cannot read it .*check the path"),
        (damaged_pages, r"x\.parquet: rows 0 to 50: .+\. Copy the shard again"),
    ],
)
def test_a_shard_that_is_not_the_planned_one_is_refused(tmp_path, change, message):
    path = write_shard(tmp_path / "x.parquet", 50)
    assert re.search(message, corpora.failures(path, lambda: change(path))[""])


@pytest.mark.parametrize(
    ("names", "column", "message"),
    [
        (["id", "audio"], "lang", r"x\.parquet: has no column 'lang', expected one; its columns are id, audio"),
        (["id", "audio", "speaker"], "speakr", r"has no column 'speakr' \(did you mean 'speaker'\?\), expected one;"),
        (["id", "audio", "id"], None, r"has 2 columns 'id', expected one"),
        (["id", "recordings"], None, r"has no column 'audio', expected one; its columns are id, recordings"),
    ],
)
def test_columns_that_are_missing_or_there_twice_are_named(tmp_path, names, column, message):
    columns = [rows_table(1).column("audio" if name in ("audio", "recordings") else "id") for name in names]
    path = write_shard(tmp_path / "x.parquet", table=pa.Table.from_arrays(columns, names))
    with pytest.raises(PlanError, match=message):
        raysp.plan(a_pipeline(raysp.Shards(str(path), text=column), tmp_path / "out"))


@pytest.mark.parametrize("row_group_size", [1, 7, 60])
def test_the_rows_of_row_groups_are_read_in_order(tmp_path, row_group_size):
    path = write_shard(tmp_path / "x.parquet", table=rows_table(60, audio=b"bytes"), row_group_size=row_group_size)
    found = corpora.read(path, "language")
    assert [(row["id"], row["language"]) for row in found] == [(f"u{n}", "en" if n % 2 else "de") for n in range(60)]
