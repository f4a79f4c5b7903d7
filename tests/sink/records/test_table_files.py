"""Files of tables: every part comes back, and no damage passes for one."""

import io
from pathlib import Path

import pyarrow as pa
import pytest

from raysp import StoreError
from raysp.corpus import tables
from raysp.sink import table_files
from raysp.storage.store import LocalStore
from tests.corpus.test_pages import announcing

REMEDY = "restore it"
TABLE = pa.table({"row": [0, 1, 2], "text": ["a", None, "ü"], "list": [[1.5], [], [2.0, 3.0]]})


def written(*parts: pa.Table, compression: str | None = None) -> bytes:
    file = io.BytesIO()
    with table_files.Writer(file, compression) as writer:
        for part in parts:
            writer.write(part)
    return file.getvalue()


def of_bytes(*parts: bytes) -> bytes:
    """Return a file with right digests of any bytes as its parts."""
    index = b"".join(len(part).to_bytes(8, "little") + table_files.digest_of(part) for part in parts)
    end = len(parts).to_bytes(8, "little") + table_files.digest_of(index) + b"raysp.1\n"
    return b"".join(parts) + index + end


def read(folder: Path, data: bytes, schema: pa.Schema | None = None) -> list[pa.Table]:
    (folder / "x.arrow").write_bytes(data)
    return list(table_files.read(LocalStore(folder), "x.arrow", REMEDY, schema))


def test_a_flipped_byte_and_a_truncation_anywhere_are_named(tmp_path):
    data = written(TABLE, TABLE.slice(1))
    for place in range(0, len(data), 5):
        with pytest.raises(table_files.DamagedTableError, match=r"x\.arrow: damaged \(.*\); restore it"):
            read(tmp_path, data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
        with pytest.raises(table_files.DamagedTableError, match=r"x\.arrow: damaged"):
            read(tmp_path, data[:place])
    with pytest.raises(table_files.DamagedTableError):
        read(tmp_path, data + b"\0")
    assert isinstance(table_files.DamagedTableError("x"), StoreError)


def test_buffers_that_announce_gigabytes_are_refused_though_the_digest_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_half_of_memory", lambda: 0)
    stream, table = io.BytesIO(), pa.table({"a": [b"\0" * 100_000]})
    with pa.ipc.new_stream(stream, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    with pytest.raises(table_files.DamagedTableError, match="takes more memory to decode"):
        read(tmp_path, of_bytes(announcing(stream.getvalue(), 100_000)))


def test_extension_types_of_ray_are_refused(tmp_path):
    field = pa.field("a", pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    with pytest.raises(table_files.DamagedTableError, match="extension type of Ray"):
        read(tmp_path, written(pa.table({"a": [b"x"]}, schema=pa.schema([field]))))
