"""Tar files of samples: rows, pieces, and archives that are damaged or hostile."""

import io
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest

from raysp import ShardError
from raysp.corpus import archive, sources, tars
from raysp.corpus.shards import Piece, Shard, cut_groups, input_id
from raysp.storage.ranged import open_ranged
from tests.corpora import wav

COLUMNS = ["id", "audio", "text", "speaker", "score", "words"]


def write_tar(path: Path, files: "list[tuple[str, bytes]]", format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        add_files(file, files, format)
    return path


def add_files(file: BinaryIO, files: "Iterable[tuple[str, bytes]]", format: int = tarfile.USTAR_FORMAT) -> None:
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def files_of(number: int, **values: object) -> "list[tuple[str, bytes]]":
    values = {"speaker": f"s{number}", "score": number, "words": ["one"], **values}
    return [
        (f"train/{number:04}.wav", wav(800 + number, seed=number)),
        (f"train/{number:04}.txt", f"text {number}\n".encode()),
        (f"train/{number:04}.json", json.dumps(values).encode()),
    ]


def shard_of(path: Path) -> Shard:
    found = sources.survey("tar", str(path), "")
    size = path.stat().st_size
    place = input_id(size, "1", found)
    return Shard("x.parquet", str(path), size, "1", found.num_rows, place, cut_groups(found.groups), "tar", found.part)


def read(shard: Shard, piece: Piece, columns: "list[str]") -> pa.Table:
    return sources.read_table(sources.narrow(shard, piece), piece, columns)


@pytest.fixture
def small_spans(monkeypatch):
    monkeypatch.setattr(tars, "SPAN_ROWS", 4)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_with_the_same_name_up_to_a_dot_are_a_row(tmp_path, format):
    long = "a" * 90 + "/" + "ü" * 40 if format != tarfile.USTAR_FORMAT else "a/b"
    files = [(f"./{long}.FLAC", b"f"), (f"./{long}.json", b'{"id": "own"}'), *files_of(1), (".hidden.wav", b"h")]
    files += [("README", b"r"), ("v1.0/x.left.ogg", b"o"), ("v1.0/x.cls", b"3"), ("only.txt", b"\xff\r\n")]
    shard = shard_of(write_tar(tmp_path / "x.tar", files, format))
    rows = read(shard, Piece(0, 4), COLUMNS).to_pylist()
    assert [row["id"] for row in rows] == ["own", "train/0001", "v1.0/x", "only"]
    recordings = [row["audio"] and row["audio"]["bytes"] for row in rows]
    assert recordings == [b"f", wav(801, seed=1), b"o", None]
    assert [row["text"] for row in rows] == [None, "text 1", None, None]
    assert [row["words"] for row in rows] == [None, '["one"]', None, None]
    assert read(shard, Piece(0, 4), COLUMNS).schema.field("score").type == pa.int64()


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("piece", [Piece(0, 10), Piece(3, 5), Piece(4, 8)])
def test_a_piece_reads_its_own_bytes_and_one_schema(tmp_path, monkeypatch, piece):
    scores = [1, None, 2, 3, 4, 5, 6, 7, 8.5, 9]
    files = [one for number in range(10) for one in files_of(number, score=scores[number])]
    shard = shard_of(write_tar(tmp_path / "x.tar", files))
    whole = sources.read_table(shard, Piece(0, 10), COLUMNS)
    places = []
    original = tars.read_members
    monkeypatch.setattr(tars, "read_members", lambda *given: places.append(given[1:]) or original(*given))
    assert read(shard, piece, COLUMNS) == whole.slice(piece.first, piece.num_rows)
    assert len(places) == (piece.end - 1) // 4 - piece.first // 4 + 1
    assert whole.schema.field("score").type == pa.float64()


def test_headers_of_large_members_are_read_in_few_bytes(tmp_path):
    files = [(f"{number}.wav", bytes(3_000_000)) for number in range(4)]
    data = write_tar(tmp_path / "x.tar", files).read_bytes()
    fetched = []
    file = open_ranged(len(data), lambda start, end: fetched.append(end - start) or data[start:end])
    opened = archive.ArchiveFile("x.tar", file, may_jump=False)
    assert tars.read_layout(opened, tars.samples_of(opened), tars.values_of).num_rows == 4
    assert sum(fetched) < len(data) / 10


def a_tar(*files: "tuple[str, bytes]") -> bytearray:
    held = io.BytesIO()
    add_files(held, files or [*files_of(0), *files_of(1)])
    return bytearray(held.getvalue())


def with_header(*changes: "tuple[int, bytes]") -> bytes:
    """Return an archive with changes in the first header, and the right checksum."""
    data = a_tar()
    for place, value in (*changes, (148, b" " * 8)):
        data[place : place + len(value)] = value
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


WHOLE = bytes(a_tar())
SECOND = 512 + 2048
"""Offset of the second header."""
DAMAGED = {
    "empty": (b"", "at byte 0: empty file"),
    "no tar": (b"RIFF" * 400, "at byte 0: .*expected a member of a tar file"),
    "gzip": (b"\x1f\x8b" + bytes(2000), "compressed by gzip.*gunzip"),
    "cut in a member": (WHOLE[:1000], "at byte 0: 'train/0000.wav' claims 1,644 bytes, the file has 488"),
    "cut in a header": (WHOLE[: SECOND + 100], f"at byte {SECOND:,}: .*without an end marker"),
    "cut between members": (WHOLE[:SECOND], f"at byte {SECOND:,}: the end of the file, without an end marker"),
    "checksum": (WHOLE[:SECOND] + b"?" + WHOLE[SECOND + 1 :], f"at byte {SECOND:,}: a header that begins with"),
    "joined": (WHOLE + WHOLE, "more data after it"),
    "link": (with_header((156, b"2")), "member 'train/0000.wav' is a link"),
    "device": (with_header((156, b"3")), "member 'train/0000.wav' is a link"),
    "sparse": (with_header((156, b"S")), "member 'train/0000.wav' is a link"),
    "claim": (with_header((124, b"77777777777")), "claims 8,589,934,591 bytes"),
    "negative": (with_header((124, b"\xff" * 12)), "claims -1"),
    "extended header": (with_header((156, b"x"), (124, b"00077777777")), "a header claims 16,777,216 bytes"),
    "twice": (a_tar(("a.wav", b"1"), ("a.wav", b"2")), "at byte 1,024: sample 'a' has two files 'wav'"),
    "apart": (a_tar(("a.wav", b"1"), ("b.wav", b"2"), ("a.txt", b"t")), "at byte 2,048: sample 'a' occurs again"),
    "two recordings": (a_tar(("a.wav", b"1"), ("a.flac", b"2")), "recordings 'a.wav', 'a.flac'; expected one"),
    "no JSON": (a_tar(("a.json", b"{")), "'a.json' is not JSON"),
    "no object": (a_tar(("a.json", b"[1]")), r"'a.json' is b'\[1\]'; expected a JSON object"),
    "audio in JSON": (a_tar(("a.json", b'{"audio": 1}')), "'a.json' has a key 'audio'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_archive_is_one_line_with_its_place(tmp_path, case):
    data, message = DAMAGED[case]
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(ShardError) as found:
        sources.survey("tar", str(path), "")
    assert str(found.value).startswith(f"{path}: ")
    assert re.search(message, str(found.value))
    assert "\n" not in str(found.value)


def test_names_that_lead_outside_are_ids_and_nothing_is_written(tmp_path):
    path = write_tar(tmp_path / "in" / "x.tar", [("../../out.wav", b"1"), ("/etc/raysp.wav", b"2")])
    found = read(shard_of(path), Piece(0, 2), ["id", "audio"]).to_pylist()
    assert [row["id"] for row in found] == ["../../out", "/etc/raysp"]
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["in", "x.tar"]
