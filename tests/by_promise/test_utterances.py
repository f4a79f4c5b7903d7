"""Utterances: labels of a line equal those of the same samples as a file of its own, whatever holds the recordings."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from raysp import PlanError, ShardError
from tests.corpora import a_pipeline, digits_table, labelled, samples_of, write_tar
from tests.kit import AUDIO, failing_files, rows
from tests.soaked import soaked

RATES = (16_000, 8000, 22_050, 44_100)
FORMATS = ("WAV", "FLAC", "FLAC", "WAV")
CUTS = {"min_seconds": 0.3, "max_seconds": 2.0}
WORDS = raysp.Transcript(words=True)
KINDS = ("manifest", "parquet", "tar", *soaked(["folder", "arrow"]))


def talks() -> list[bytes]:
    """Return recordings of nine digits each, at several rates and in two formats."""
    spoken = [samples_of(row["audio"]["bytes"]) for row in digits_table(9).to_pylist()]
    whole = np.concatenate([part for samples in spoken for part in (np.zeros(5000, np.float32), samples)])
    recordings = []
    for number, (rate, kind) in enumerate(zip(RATES, FORMATS, strict=True)):
        shifted = np.roll(whole, 977 * number)
        places = np.arange(int(len(shifted) * rate / 16_000) - 37 * number) * 16_000 / rate
        file = io.BytesIO()
        soundfile.write(file, np.interp(places, np.arange(len(shifted)), shifted), rate, format=kind, subtype="PCM_16")
        recordings.append(file.getvalue())
    return recordings


def write_source(kind: str, folder: Path, recordings: Sequence[bytes]) -> raysp.Shards:
    """Write the recordings as a source of some kind."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"t{number}.{kind.lower()}" for number, kind in enumerate(FORMATS)]
    ids = [name.partition(".")[0] for name in names]
    audio = pa.array([{"bytes": data, "path": None} for data in recordings], AUDIO)
    if kind == "parquet":
        table = pa.table({"id": ids, "voice": [f"v{id_}" for id_ in ids], "sound": audio})
        pq.write_table(table, folder / "talks.parquet", row_group_size=2)
        return raysp.Shards(f"{folder}/talks.parquet", audio="sound")
    if kind == "arrow":
        table = pa.table({"id": ids, "audio": audio})
        with pa.OSFile(f"{folder}/talks.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
        return raysp.Shards(f"{folder}/talks.arrow")
    if kind == "tar":
        write_tar(folder / "talks.tar", dict(zip(names, recordings, strict=True)))
        return raysp.Shards(f"{folder}/talks.tar")
    for name, data in zip(names, recordings, strict=True):
        (folder / name).write_bytes(data)
    if kind == "folder":
        return raysp.Shards(str(folder))
    lines = [{"audio_filepath": name, "offset": 0.25, "voice": f"v{name}"} for name in names]
    (folder / "m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return raysp.Shards(f"{folder}/m.jsonl")


def label(source: raysp.Shards, sink: object, *outputs: object, **fields: object) -> Any:
    return raysp.run(
        a_pipeline(source, sink, label={"outputs": list(outputs) or [WORDS]}, **fields), engine="here", progress=False
    )


def export(folder: Path, **options: object) -> Any:
    restart = bool(options.pop("restart", False))
    spec = raysp.Utterances(**{**CUTS, **options})
    return raysp.export(f"{folder}/out", spec, f"{folder}/utterances", trust=True, restart=restart)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted((folder / "utterances").rglob("*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def read_by(folder: Path, exported: Any) -> raysp.Shards:
    return raysp.Shards(f"{folder}/utterances/*.jsonl", audio_root=exported.audio_root)


@pytest.fixture(scope="module")
def recordings() -> list[bytes]:
    return talks()


@pytest.fixture(scope="module")
def made(tmp_path_factory, recordings):
    """Function that returns the folder of a labelled source of some kind with its utterances, and their export."""
    folders: dict[str, tuple[Path, Any]] = {}

    def make(kind: str) -> tuple[Path, Any]:
        if kind not in folders:
            folder = tmp_path_factory.mktemp(kind)
            source = write_source(kind, folder / "in", recordings)
            keep = ["voice"] if kind in ("parquet", "manifest") else []
            label(source, raysp.Parquet(f"{folder}/out", keep=keep))
            folders[kind] = folder, export(folder)
        return folders[kind]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_labels_equal_those_of_the_same_samples_as_files(made, recordings, kind, tmp_path):
    folder, exported = made(kind)
    lines = lines_of(folder)
    assert (exported.utterances, exported.rows, exported.clips) == (len(lines), len(RATES), None)
    assert len(lines) >= 3 * len(RATES)
    label(read_by(folder, exported), tmp_path / "there")
    (tmp_path / "alone").mkdir()
    for number, line in enumerate(lines):
        samples, rate = soundfile.read(io.BytesIO(recordings[line["row"]]), dtype="int16")
        first = round(line["offset"] * rate)
        part = samples[first : first + round(line["duration"] * rate)]
        soundfile.write(tmp_path / "alone" / f"{number:04}.wav", part, rate, subtype="PCM_16")
    label(raysp.Shards(f"{tmp_path}/alone"), tmp_path / "files")
    there, files = rows(tmp_path / "there"), rows(tmp_path / "files")
    assert {row["status"] for row in there} == {"ok"}
    assert [row["id"] for row in there] == [line["id"] for line in lines]
    for name in ("pred_text", "pred_words", "pred_score"):
        assert [row[name] for row in there] == [row[name] for row in files]
    assert [row["seconds"] for row in there] == pytest.approx([row["seconds"] for row in files], abs=1e-4)


def test_lines_name_their_row_and_have_the_keys_of_nemo(made):
    folder, exported = made("parquet")
    first, *_ = lines = lines_of(folder)
    keys = ["id", "audio_filepath", "offset", "duration", "text", "score", "source_id", "shard", "row", "voice"]
    assert [*first] == keys
    assert first["audio_filepath"] == f"{folder}/in/talks.parquet#row=0&column=sound"
    assert {(line["source_id"], line["row"], line["voice"]) for line in lines} == {
        (f"t{row}", row, f"vt{row}") for row in range(len(RATES))
    }
    labels = rows(folder / "out")
    for row, label_row in enumerate(labels):
        words = " ".join(line["text"] for line in lines if line["row"] == row)
        assert words == " ".join(word["word"] for word in label_row["pred_words"])
    seconds = sum(line["duration"] for line in lines)
    assert exported.seconds == pytest.approx(seconds, abs=0.01)
    assert f"Shards('{folder}/utterances/**/*.jsonl', audio_root='{folder}/in')" in exported.facts["read by"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "parquet", *soaked(["manifest", "arrow", "tar"])])
def test_recordings_that_were_replaced_after_the_export_are_found(kind, recordings, tmp_path):
    label(write_source(kind, tmp_path / "in", recordings), tmp_path / "out")
    source = read_by(tmp_path, export(tmp_path))
    label(source, tmp_path / "labels")
    write_source(kind, tmp_path / "in", [recordings[0], *recordings[:3]])
    checked = raysp.verify(str(tmp_path / "labels"), trust=True)
    assert checked.exit_code
    with pytest.raises((ShardError, PlanError), match=r"changed since|replaced"):
        raysp.export(f"{tmp_path}/out", raysp.Utterances(**CUTS), f"{tmp_path}/again", trust=True)


HOSTILE = {
    "behind the last row": ("{in}/talks.parquet#row=4&column=sound", "not_found"),
    "no such column": ("{in}/talks.parquet#row=0", "no_audio"),
    "no column of recordings": ("{in}/talks.parquet#row=0&column=id", "no_audio"),
    "no shard": ("{in}/gone.parquet#row=0", "not_found"),
    "a negative row": ("{in}/talks.parquet#row=-1", "not_found"),
    "a recording": ("{in}/t.wav#row=0", "not_readable"),
    "a manifest": ("{in}/m.jsonl#row=0", "not_readable"),
    "damage": ("{in}/damaged.parquet#row=0", "not_readable"),
    "a folder": ("{in}#row=0", "path_not_allowed"),
    "another folder": ("{other}/talks.parquet#row=0&column=sound", "path_not_allowed"),
    "a way out": ("../other/talks.parquet#row=0&column=sound", "path_not_allowed"),
    "a link out": ("link.parquet#row=0&column=sound", "path_not_allowed"),
    "another scheme": ("s3://bucket/talks.parquet#row=0", "path_not_allowed"),
}


@pytest.mark.slow
def test_hostile_lines_are_error_rows(recordings, tmp_path):
    write_source("parquet", tmp_path / "in", recordings)
    write_source("parquet", tmp_path / "other", recordings)
    (tmp_path / "in" / "link.parquet").symlink_to(tmp_path / "other" / "talks.parquet")
    (tmp_path / "in" / "t.wav").write_bytes(recordings[0])
    (tmp_path / "in" / "m.jsonl").write_text('{"audio_filepath": "t.wav"}\n')
    (tmp_path / "in" / "damaged.parquet").write_bytes((tmp_path / "in" / "talks.parquet").read_bytes()[:-4000])
    good = f"{tmp_path}/in/talks.parquet#row=3&column=sound"
    paths = [
        path.replace("{in}", f"{tmp_path}/in").replace("{other}", f"{tmp_path}/other") for path, _ in HOSTILE.values()
    ]
    lines = [{"audio_filepath": path, "offset": 0.5, "duration": 1.0} for name in paths for path in (good, name)]
    (tmp_path / "u.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    label(raysp.Shards(f"{tmp_path}/u.jsonl", audio_root=f"{tmp_path}/in"), tmp_path / "out")
    found = rows(tmp_path / "out")
    assert {row["status"] for row in found[::2]} == {"ok"}
    assert {name: row["error_type"] for name, row in zip(HOSTILE, found[1::2], strict=True)} == {
        name: kind for name, (_, kind) in HOSTILE.items()
    }


TURNS = [
    {"start": 0.0, "end": 4.0, "speaker": 0, "score": 0.75},
    {"start": 3.0, "end": 8.0, "speaker": 1, "score": 0.5},
    {"start": 8.5, "end": 9.0, "speaker": 0, "score": 1.0},
]
SPEECH = [{"start": 0.5, "end": 3.0, "score": 0.5}, {"start": 5.5, "end": 9.0, "score": 1.0}]
SPOKEN = (("One", 0.5, 1.5), ("two.", 1.6, 2.5), ("Three", 4.5, 5.5), ("four", 5.6, 7.0), ("five.", 8.6, 9.0))


def cut(folder: Path, **options: object) -> list[tuple[Any, ...]]:
    is_there = (folder / "utterances").exists()
    export(folder, **{"min_seconds": 0.1, "max_seconds": 20, "max_pause": 5, "padding": 0, **options}, restart=is_there)
    keys = ("offset", "duration", "text", "speaker")
    return [tuple(line.get(key) for key in keys) for line in lines_of(folder)]


def test_the_cuts_by_words_sentences_turns_and_speech(tmp_path):
    words = [{"word": word, "start": start, "end": end, "score": 0.5} for word, start, end in SPOKEN]
    columns = {"seconds": [10.0], "pred_words": [words], "pred_turns": [TURNS], "pred_speech": [SPEECH]}
    labelled(tmp_path, columns, [WORDS], source={"language": ["en"], "text": ["all"], "score": [7]})
    assert cut(tmp_path) == [(0.5, 8.5, "One two. Three four five.", None)]
    assert cut(tmp_path, max_pause=1.5) == [
        (0.5, 2.0, "One two.", "speaker_0"),
        (4.5, 2.5, "Three four", "speaker_1"),
        (8.6, 0.4, "five.", "speaker_0"),
    ]
    assert cut(tmp_path, by="sentences", max_seconds=5) == [
        (0.5, 2.0, "One two.", "speaker_0"),
        (4.5, 4.5, "Three four five.", None),
    ]
    assert cut(tmp_path, by="turns") == cut(tmp_path, max_pause=1.5)
    assert cut(tmp_path, by="speech", max_pause=1) == [(0.5, 2.5, None, "speaker_0"), (5.5, 3.5, None, "speaker_1")]
    assert cut(tmp_path, max_pause=1.5, padding=0.1)[0] == (0.4, 2.2, "One two.", "speaker_0")


def test_rows_of_shards_in_an_object_store_are_read(recordings, tmp_path):
    write_source("parquet", tmp_path / "in", recordings)
    with failing_files() as files:
        files.put(tmp_path / "in", "in")
        source = raysp.Shards(f"{files.url('in')}/talks.parquet", audio="sound")
        label(source, tmp_path / "out")
        exported = export(tmp_path)
        assert exported.audio_root == files.url("in")
        assert lines_of(tmp_path)[0]["audio_filepath"] == f"{files.url('in')}/talks.parquet#row=0&column=sound"
        label(read_by(tmp_path, exported), tmp_path / "there")
        assert [row["status"] for row in rows(tmp_path / "there")] == ["ok"] * len(lines_of(tmp_path))
