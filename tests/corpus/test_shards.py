"""Shards: footers of strangers, pieces that cover every row once, rows as they were written."""

import re
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests import corpora
from tests.corpora import a_pipeline, rows_table, write_shard

DAMAGED = [
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
]


def unreadable(folder: Path) -> dict[str, str]:
    """Return why shards beside one that can be read cannot be, by the names of their files."""
    write_shard(folder / "good.parquet", 1)
    found = raysp.plan(a_pipeline(str(folder), folder.with_name("out"))).corpus.unreadable
    return {Path(url).name: reason for url, reason in found.items()}


def test_damaged_files_are_refused_with_their_name_and_their_content(tmp_path):
    for number, (spoil, _) in enumerate(DAMAGED):
        path = write_shard(tmp_path / "in" / f"{number}.parquet")
        path.write_bytes(spoil(path.read_bytes()))
    found = unreadable(tmp_path / "in")
    for number, (_, message) in enumerate(DAMAGED):
        assert re.search(rf"{number}\.parquet: {message}", found[f"{number}.parquet"])


def test_any_content_of_a_footer_is_read_or_refused_by_name(tmp_path):
    draw, data = Random(0), write_shard(tmp_path / "x.parquet").read_bytes()
    (tmp_path / "in").mkdir()
    footer = int.from_bytes(data[-8:-4], "little")
    for number in range(80):
        raw = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw) - 8 - footer, len(raw))] = draw.randrange(256)
        (tmp_path / "in" / f"{number}.parquet").write_bytes(raw)
    found = unreadable(tmp_path / "in")
    assert 10 < len(found) < 80
    for name, reason in found.items():
        assert f"{name}: " in reason
        assert "\n" not in reason


@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"compression": "none"}], ids=str)
def test_joined_files_of_one_layout_are_refused_and_not_read_in_part(tmp_path, options):
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    for path, prefix in zip(paths, "uv", strict=False):
        pq.write_table(rows_table(3, prefix=prefix), path, row_group_size=2, **options)
    paths[2].write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
    message = rf"c\.parquet: a Parquet file ends at byte {paths[0].stat().st_size:,} of .*, and another foll"
    assert re.search(message, corpora.refusal(paths[2]))


def test_an_index_that_is_larger_than_the_rows_is_no_second_file(tmp_path):
    table = rows_table(2000, audio=b"x")
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, write_page_index=True, data_page_size=1, write_batch_size=1)
    assert raysp.plan(a_pipeline(str(path), tmp_path / "out")).num_rows == 2000


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
