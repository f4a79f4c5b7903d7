"""Sealed Parquet files: any reader reads them, and no changed byte of them is decoded."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysp.corpus.parquet import NotSealedError, SealedFile, seal

ROWS = 60
TABLE = pa.table(
    {
        "id": [f"r{row}" for row in range(ROWS)],
        "number": [row * 0.37 for row in range(ROWS)],
        "text": [None if row % 5 == 0 else f"word {row * row}" for row in range(ROWS)],
        "words": [[{"word": f"w{place}", "start": place / 8} for place in range(row % 4)] for row in range(ROWS)],
    }
)


@pytest.fixture(scope="module", params=["none", "zstd"])
def sealed(request, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("sealed") / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=40, compression=request.param, write_page_checksum=True)
    seal(path)
    return path.read_bytes()


def read(data: bytes) -> pa.Table:
    pages = SealedFile.of(pa.BufferReader(data)).pages()
    groups = range(pages.metadata.num_row_groups)
    batches = [batch for group in groups for batch in pages.batches(group, 1000)]
    return pa.Table.from_batches(batches, pages.schema)


def test_any_reader_reads_it(sealed):
    assert read(sealed).equals(TABLE)
    assert pq.read_table(io.BytesIO(sealed)).equals(TABLE)
    assert pq.read_table(io.BytesIO(sealed), columns=["words"]).equals(TABLE.select(["words"]))


def test_no_flipped_byte_changes_a_value(sealed):
    """Bytes that no reader looks at may be anything: the first magic bytes."""
    same = []
    for place in [0, 1, 2, 3, *range(4, len(sealed), 3)]:
        damaged = bytearray(sealed)
        damaged[place] ^= 1 << place % 8
        try:
            assert read(bytes(damaged)).equals(TABLE), place
            same.append(place)
        except (ValueError, OSError, pa.ArrowException):
            pass
    assert same == [0, 1, 2, 3]


def test_a_file_cut_anywhere_is_refused(sealed):
    for end in range(0, len(sealed), 7):
        with pytest.raises(NotSealedError):
            SealedFile.of(pa.BufferReader(sealed[:end])).pages()


def test_a_file_of_another_program_is_refused():
    file = io.BytesIO()
    pq.write_table(TABLE, file)
    with pytest.raises(NotSealedError, match="it has no digests before its footer"):
        SealedFile.of(pa.BufferReader(file.getvalue()))


def test_digests_of_another_file_are_refused(sealed, tmp_path):
    pq.write_table(TABLE.slice(0, 3), tmp_path / "a.parquet", write_page_checksum=True)
    seal(tmp_path / "a.parquet")
    other = (tmp_path / "a.parquet").read_bytes()
    (num_bytes,) = {int.from_bytes(other[-8:-4], "little")}
    with pytest.raises(NotSealedError, match=r"digest"):
        SealedFile.of(pa.BufferReader(sealed[:-100] + other[-num_bytes - 8 :]))
