"""The limit of memory of decoding, Parquet pages of every writer, and sealed files."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import bounds
from raysp.corpus.parquet import NotSealedError, SealedFile, seal
from raysp.corpus.shards import PIECE_BYTES
from tests import corpora
from tests.corpora import AUDIO, wav

MIB = bounds.MIB
MOST_MEGABYTES = 130
"""Of a reader beyond its start: its limit of 64 MB, and what it keeps."""

READ = """
import sys
from pathlib import Path
from raysp import bounds
from raysp.corpus import sources, tables
from raysp.corpus.shards import Piece, Shard, cut_groups, input_id
from raysp.devices import highest_resident_bytes
kind, path, columns = sys.argv[1:]
size = Path(path).stat().st_size
found = sources.survey("parquet", path, "", None, ("audio", "id") if kind == "dictionaries" else None)
pieces = cut_groups(found.groups)
shard = Shard("x", path, size, "1", found.num_rows, input_id(size, "1", found), pieces)
rows, before = 0, highest_resident_bytes()
if kind == "dictionaries":
    rows = sources.read_table(shard, Piece(0, 3500), [columns], as_dictionaries=(columns,)).num_rows
else:
    tables.BATCH_BYTES //= 16
    tables._half_of_memory = lambda: 0
    bounds.MOST_DECODED_BYTES //= 32
    try:
        for piece in pieces:
            rows += sum(part.num_rows for part in sources.read_batches(shard, piece, columns.split(",")))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", end="")
print(f"\\n{rows} {(highest_resident_bytes() - before) // 2**20}")
"""


def read_in_a_process(path, columns, kind="limits"):
    """Return what reading says, and the rows and megabytes that it took."""
    done = subprocess.run([sys.executable, "-c", READ, kind, str(path), columns], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, numbers = done.stdout.splitlines()
    return said, *map(int, numbers.split())


def differences(path, num_rows):
    """A value of a megabyte, and others that are stored as no difference to it."""
    table = pa.table({"id": pa.array(["x" * MIB] * num_rows, pa.large_string())})
    options = {"use_dictionary": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}, "store_schema": False}
    pq.write_table(table, path, compression="zstd", **options)


def test_values_that_refer_to_others_are_read_in_bounded_memory(tmp_path):
    differences(tmp_path / "a.parquet", 160)
    assert (tmp_path / "a.parquet").stat().st_size < 10 * MIB
    said, rows, megabytes = read_in_a_process(tmp_path / "a.parquet", "id")
    assert (said, rows) == ("", 160)
    assert megabytes < MOST_MEGABYTES


def shared_in_lists(path, num_rows):
    """A row whose list refers to a value of a megabyte again and again, and rows with empty lists."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(150, np.int32)), pa.array([b"x" * MIB]))
    lists = pa.ListArray.from_arrays(pa.array([0, *[150] * num_rows], pa.int32()), values)
    table = pa.table({"id": [str(row) for row in range(num_rows)], "texts": lists})
    pq.write_table(table, path, compression="zstd", store_schema=False)


def one_page(path, num_rows):
    audio = pa.array([{"bytes": b"\0" * 80 * MIB, "path": None}], AUDIO)
    pq.write_table(pa.table({"id": ["b"], "audio": audio}), path, compression="zstd", use_dictionary=False)


@pytest.mark.parametrize(("write", "column"), [(shared_in_lists, "texts"), (one_page, "audio")])
def test_a_row_that_takes_more_than_the_limit_is_refused_with_its_rows(tmp_path, write, column):
    write(tmp_path / "a.parquet", 300)
    assert (tmp_path / "a.parquet").stat().st_size < MIB
    said, _, megabytes = read_in_a_process(tmp_path / "a.parquet", column)
    assert "a.parquet: rows 0 to " in said
    assert "a row takes more memory to decode than the most allowed (64 MB). Write the shard again, without" in said
    assert megabytes < MOST_MEGABYTES


def write_repeats(path, *, in_struct: bool, num_rows: int = 10_000):
    """Write rows that repeat three recordings, as a file that holds each of them once."""
    distinct = pa.array([wav(140_000 + 1600 * seed, seed=seed) for seed in range(3)], pa.binary())
    audio = pa.DictionaryArray.from_arrays(pa.array(np.arange(num_rows) % 3, pa.int32()), distinct)
    if in_struct:
        audio = pa.StructArray.from_arrays([audio, pa.nulls(num_rows, pa.string())], ["bytes", "path"])
    table = pa.table({"id": [str(row) for row in range(num_rows)], "audio": audio})
    pq.write_table(table, path, store_schema=False)
    return path


@pytest.mark.parametrize("in_struct", [False, True])
def test_recordings_that_a_shard_repeats_are_cut_by_their_decoded_bytes_and_held_once(tmp_path, in_struct):
    path = write_repeats(tmp_path / "x.parquet", in_struct=in_struct)
    assert path.stat().st_size < MIB
    [shard] = raysp.plan(corpora.a_pipeline(str(path), tmp_path / "out")).corpus.shards
    assert max(piece.num_rows for piece in shard.pieces) * 280_044 <= 1.01 * PIECE_BYTES
    said, rows, megabytes = read_in_a_process(path, "audio", "dictionaries")
    assert (said, rows) == ("", 3500)
    assert megabytes < 200  # of a gigabyte
    found = corpora.read(write_repeats(tmp_path / "y.parquet", in_struct=in_struct, num_rows=30))
    assert [row["seconds"] for row in found] == [8.75, 8.85, 8.95] * 10


def test_a_piece_of_rows_that_are_read_by_path_holds_a_bounded_number_of_them(tmp_path):
    audio = pa.array([{"bytes": None, "path": f"{row}.wav"} for row in range(25_000)], AUDIO)
    pq.write_table(pa.table({"id": [str(row) for row in range(25_000)], "audio": audio}), tmp_path / "x.parquet")
    source = raysp.Shards(f"{tmp_path}/x.parquet", audio_root=str(tmp_path))
    [shard] = raysp.plan(corpora.a_pipeline(source, tmp_path / "out")).corpus.shards
    assert max(piece.num_rows for piece in shard.pieces) <= 10_000


FRAMES = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
"""First bytes of data of zstd and LZ4."""


def announcing(data, announced):
    """Return an Arrow file in which the compressed buffer of 5 MiB announces other bytes."""
    for frame in FRAMES:
        place = data.find((5 * MIB).to_bytes(8, "little") + frame)
        if place >= 0:
            return data[:place] + announced.to_bytes(8, "little") + data[place + 8 :]
    raise AssertionError("no such buffer")


@pytest.mark.parametrize("writer", [pa.ipc.new_file, pa.ipc.new_stream])
def test_buffers_that_announce_terabytes_are_refused(tmp_path, writer):
    file = io.BytesIO()
    table = pa.table({"id": ["a"], "audio": pa.array([b"\0" * 5 * MIB], pa.large_binary())})
    with writer(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writing:
        writing.write_table(table)
    (tmp_path / "b.arrow").write_bytes(file.getvalue())
    assert len(corpora.read(tmp_path / "b.arrow")) == 1
    (tmp_path / "a.arrow").write_bytes(announcing(file.getvalue(), 64 << 40))
    [found] = corpora.failures(tmp_path / "a.arrow", lambda: None).values()
    assert re.search(
        r"a\.arrow: takes more memory to decode than the most allowed \([\d,]+ MB\)\. Write the shard", found
    )


# Sealed files --------------------------------------------------------------------------------------------------------

ROWS = 60
TABLE = pa.table(
    {
        "id": [f"r{row}" for row in range(ROWS)],
        "number": [row * 0.37 for row in range(ROWS)],
        "text": [None if row % 5 == 0 else f"word {row * row}" for row in range(ROWS)],
        "words": [[{"word": f"w{place}", "start": place / 8} for place in range(row % 4)] for row in range(ROWS)],
    }
)


def sealed_file(path: Path, table: pa.Table, compression: str = "none") -> bytes:
    pq.write_table(table, path, row_group_size=40, compression=compression, write_page_checksum=True)
    seal(path)
    return path.read_bytes()


@pytest.fixture(scope="module", params=["none", "zstd"])
def sealed(request, tmp_path_factory) -> bytes:
    return sealed_file(tmp_path_factory.mktemp("sealed") / "a.parquet", TABLE, request.param)


def read_sealed(data: bytes) -> pa.Table:
    pages = SealedFile.of(pa.BufferReader(data)).pages()
    groups = range(pages.metadata.num_row_groups)
    batches = [batch for group in groups for batch in pages.batches(group, 1000)]
    return pa.Table.from_batches(batches, pages.schema)


def test_no_flipped_byte_of_a_sealed_file_changes_a_value(sealed):
    """Bytes that no reader looks at may be anything: the first magic bytes."""
    assert read_sealed(sealed).equals(TABLE)
    assert pq.read_table(io.BytesIO(sealed)).equals(TABLE)
    same = []
    for place in [0, 1, 2, 3, *range(4, len(sealed), 11)]:
        damaged = bytearray(sealed)
        damaged[place] ^= 1 << place % 8
        try:
            assert read_sealed(bytes(damaged)).equals(TABLE), place
            same.append(place)
        except (ValueError, OSError, pa.ArrowException):
            pass
    assert same == [0, 1, 2, 3]


def test_a_sealed_file_that_is_cut_or_has_the_digests_of_another_one_or_none_is_refused(sealed, tmp_path):
    other = sealed_file(tmp_path / "a.parquet", TABLE.slice(0, 3))
    num_bytes = int.from_bytes(other[-8:-4], "little")
    plain = io.BytesIO()
    pq.write_table(TABLE, plain)
    cuts = [sealed[:end] for end in range(0, len(sealed), 61)]
    for data in (plain.getvalue(), sealed[:-100] + other[-num_bytes - 8 :], *cuts):
        with pytest.raises(NotSealedError):
            SealedFile.of(pa.BufferReader(data)).pages()
