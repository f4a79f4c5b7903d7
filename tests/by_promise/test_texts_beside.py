"""Texts of rows: read where they stand; one that cannot be read costs its row, and the plan names it."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests import kit
from tests.corpora import AUDIO, a_pipeline, wav, write_tar

pytestmark = pytest.mark.usefixtures("without_ray")
LATIN = "größe".encode("latin-1")
UNREADABLE = "unreadable_text"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "recordings"
    place.mkdir()

    def add(name, data=b""):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
        return place

    for name in ("a.wav", "b/c.wav"):
        add(name, wav(8000))
    return add


def pipeline(place, text="text", **fields):
    return a_pipeline(raysp.Shards(str(place), text=text, **fields), raysp.Parquet(f"{place.parent}/labels"))


def labels(place):
    """Return the rows of the labels of a folder by id."""
    return {row["id"]: row for row in kit.rows(place.parent / "labels")}


def texts(place):
    """Label a folder, and return the texts by id."""
    raysp.run(pipeline(place), progress=False)
    return {name: row["text"] for name, row in labels(place).items()}


def test_a_text_is_read_from_a_file_of_the_same_name(folder):
    folder("a.txt", b"\xef\xbb\xbfONE  two\r\n")
    folder("b/c.LAB", "größe\n".encode("utf-16"))
    folder("b/c.json", b'{"text": "another"}')
    place = folder("b/notes.txt", b"of no recording")
    plan = raysp.plan(pipeline(place))
    assert plan.corpus.listed.passed_over == {".json": 1, ".txt": 1}
    assert texts(place) == {"a.wav": "ONE  two", "b/c.wav": "größe"}


def test_of_two_files_of_a_recording_the_txt_is_read_and_metadata_before_both(folder):
    folder("a.lab", b"lab")
    place = folder("a.txt", b"txt")
    assert (
        "1 recording without metadata or a text beside it: other columns are null" in raysp.plan(pipeline(place)).notes
    )
    assert texts(place) == {"a.wav": "txt", "b/c.wav": None}
    folder("metadata.csv", b"file_name,text\na.wav,listed\n")
    with pytest.raises(PlanError, match="its content changed since it was planned"):
        raysp.plan(pipeline(place))


def test_without_a_column_of_texts_nothing_beside_recordings_is_read(folder):
    place = folder("a.txt", LATIN)
    plan = raysp.plan(pipeline(place, text=None))
    assert plan.corpus.listed.passed_over == {".txt": 1}
    without = plan.fingerprint, [shard.version for shard in plan.corpus.shards]
    (place / "a.txt").unlink()
    plan = raysp.plan(pipeline(place, text=None))
    assert (plan.fingerprint, [shard.version for shard in plan.corpus.shards]) == without


def latin(place):
    (place / "a.txt").write_bytes(LATIN)
    return r"b'\\xf6' at byte 2; expected UTF-8, or UTF-16 with a byte order mark"


def large(place):
    with (place / "a.txt").open("wb") as file:
        file.truncate(17 * 2**20)
    return r"'a\.txt', has 17,825,792 bytes; expected at most 16,777,216"


def linked_out(place):
    (place.parent / "secret").write_text("TOPSECRET")
    (place / "a.txt").symlink_to(place.parent / "secret")
    return r"a link leads out of the folder, to '.*/secret'.* set source\.audio_root"


@pytest.mark.parametrize("spoil", [latin, large, linked_out])
def test_a_text_that_cannot_be_read_costs_its_row_and_a_retry_finds_it_corrected(folder, spoil, raysp_command):
    place = folder("b/c.txt", b"fine")
    message = spoil(place)
    plan = raysp.plan(pipeline(place))
    [note] = [note for note in plan.notes if UNREADABLE in note]
    assert note.startswith("1 text beside recordings cannot be read: their rows become errors (unreadable_text). ")
    assert plan.json["texts_unreadable"] == 1
    raysp.run(pipeline(place), progress=False)
    rows = labels(place)
    assert [rows[name]["status"] for name in ("a.wav", "b/c.wav")] == ["error", "ok"]
    assert (rows["a.wav"]["text"], rows["a.wav"]["error_type"]) == (None, UNREADABLE)
    assert re.search(message, rows["a.wav"]["error_message"]), rows["a.wav"]["error_message"]
    assert re.search(message, note), note

    (place / "a.txt").unlink()
    (place / "a.txt").write_text("corrected")
    done = raysp_command("retry", f"{place.parent}/labels", "--trust")
    assert done.code == 0, done.err
    again = labels(place)
    assert {name: (row["status"], row["text"]) for name, row in again.items()} == {
        "a.wav": ("ok", "corrected"),
        "b/c.wav": ("ok", "fine"),
    }
    assert again["b/c.wav"] == rows["b/c.wav"]
    plan = raysp.plan(pipeline(place))
    assert not plan.todo
    assert not [note for note in plan.notes if UNREADABLE in note]


def tar(place):
    texts = {"0.txt": b"fine", "1.txt": LATIN, "2.json": b'{"text": "\\ud800", "other": 1}'}
    write_tar(place / "x.tar", dict(sorted({**{f"{n}.wav": wav(8000) for n in range(3)}, **texts}.items())))
    return place / "x.tar", ["'1.txt' in .*/x.tar has b'.xf6' at byte 2", "'text' has the lone surrogate '.ud800'"]


def manifest(place):
    lines = [{"audio_filepath": "a.wav", "id": str(n), "text": "fine"} for n in range(3)]
    lines[1]["text"] = "\udfff and more"
    lines[2] |= {"text": "fine", "other": {"of": "\ud800"}}  # JSON of an object keeps its escapes
    (place / "a.wav").write_bytes(wav(8000))
    (place / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place / "m.jsonl", ["'text' has the lone surrogate '.udfff'; expected text of Unicode", None]


def shard_of(texts):
    def make(place):
        audio = pa.array([{"bytes": wav(8000), "path": None}] * 3, AUDIO)
        pq.write_table(pa.table({"id": ["0", "1", "2"], "audio": audio, "text": texts}), place / "p.parquet")
        return place / "p.parquet", ["column 'text' has b'.xf6' at byte 2; expected UTF-8", "column 'text' has b'.xf6'"]

    return make


RAW = pa.array([b"fine", LATIN, LATIN], pa.binary())
SOURCES = {
    "tar": tar,
    "manifest": manifest,
    "strings": shard_of(RAW.view(pa.string())),
    "dictionary": shard_of(RAW.dictionary_encode()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_text_that_is_no_utf_8_is_the_error_of_its_row_in_every_source(tmp_path, kind):
    (tmp_path / "in").mkdir()
    source, messages = SOURCES[kind](tmp_path / "in")
    raysp.run(a_pipeline(raysp.Shards(str(source), text="text"), tmp_path / "out"), progress=False)
    rows = kit.rows(tmp_path / "out")
    assert rows[0]["text"] in ("fine", b"fine")
    for row, message in zip(rows, [None, *messages], strict=True):
        assert row["status"] == ("error" if message else "ok"), row
        if message:
            assert (row["text"], row["error_type"]) == (None, UNREADABLE)
            assert re.search(message, row["error_message"]), row["error_message"]
