"""Tar files of samples: rows, pieces, and archives that are damaged or hostile."""

import json
import re
import tarfile
from pathlib import Path

import pytest

import raysp
from tests import corpora
from tests.corpora import tar_of, wav, write_tar


def files_of(number: int, **values: object) -> "list[tuple[str, bytes]]":
    values = {"speaker": f"s{number}", "score": number, "words": ["one"], **values}
    return [
        (f"train/{number:04}.wav", wav(800 + number, seed=number)),
        (f"train/{number:04}.txt", f"text {number}\n".encode()),
        (f"train/{number:04}.json", json.dumps(values).encode()),
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_with_the_same_name_up_to_a_dot_are_a_row(tmp_path, format):
    long = "a" * 90 + "/" + "ü" * 40 if format != tarfile.USTAR_FORMAT else "a/b"
    files = [(f"./{long}.FLAC", wav(900)), (f"./{long}.json", b'{"id": "own"}'), *files_of(1), (".hidden.wav", b"h")]
    files += [("README", b"r"), ("v1.0/x.left.ogg", wav(902)), ("v1.0/x.cls", b"3"), ("only.txt", b"\xff\r\n")]
    (tmp_path / "x.tar").write_bytes(tar_of(files, format))
    rows = corpora.read(tmp_path / "x.tar", "text", "words", "score")
    assert [row["id"] for row in rows] == ["own", "train/0001", "v1.0/x", "only"]
    assert [row["seconds"] for row in rows] == [900 / 16_000, 801 / 16_000, 902 / 16_000, None]
    assert [row["text"] for row in rows] == [None, "text 1", None, None]
    assert [row["words"] for row in rows] == [None, '["one"]', None, None]
    assert [row["score"] for row in rows] == [None, 1, None, None]


def test_rows_of_many_pieces_have_the_columns_of_the_whole_file(tmp_path):
    """Archives are read in spans of 400 samples; of a column of integers the last value is none."""
    scores = [None if row % 7 == 1 else row for row in range(999)] + [8.5]
    files = [(f"{row:04}.json", json.dumps({"score": score}).encode()) for row, score in enumerate(scores)]
    found = corpora.read(write_tar(tmp_path / "x.tar", [*files, ("0999.wav", b"1")]), "score")
    assert [(row["id"], row["score"]) for row in found] == [(f"{row:04}", score) for row, score in enumerate(scores)]


def a_tar(*files: "tuple[str, bytes]") -> bytearray:
    return bytearray(tar_of(files or [*files_of(0), *files_of(1)], tarfile.USTAR_FORMAT))


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
    "cut in a member": (WHOLE[:1000], "at byte 0: 'train/0000.wav' claims 1,644 bytes, but the file has 488"),
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


def test_a_damaged_archive_is_one_line_with_its_place(tmp_path):
    for number, (data, _) in enumerate(DAMAGED.values()):
        write_tar(tmp_path / "in" / f"{number}.tar", []).write_bytes(data)
    write_tar(tmp_path / "in" / "good.tar", files_of(0))
    plan = raysp.plan(corpora.a_pipeline(f"{tmp_path}/in", tmp_path / "out"))
    unreadable = {Path(name).stem: reason for name, reason in plan.corpus.unreadable.items()}
    assert len(unreadable) == len(DAMAGED)
    for number, (_, message) in enumerate(DAMAGED.values()):
        found = unreadable[f"{number}"]
        assert re.search(rf"/{number}\.tar: .*{message}", found)
        assert "\n" not in found


def test_names_that_lead_outside_are_ids_and_nothing_is_written(tmp_path):
    path = write_tar(tmp_path / "in" / "x.tar", [("../../out.wav", b"1"), ("/etc/raysp.wav", b"2")])
    assert [row["id"] for row in corpora.read(path)] == ["../../out", "/etc/raysp"]
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["in", "x.tar"]
