"""Names of the files of rows: those of their recordings, on every system and after every kill."""

import csv
import hashlib
import io
import json
import shutil

import pysubs2
import pytest
import soundfile
import webvtt
from praatio import textgrid as praat

import raysp
from raysp import TrustError
from tests.by_promise.export.sinks import WORDS, digits, make_folder_sink, make_sink, with_errors
from tests.corpora import CHECKPOINT, a_pipeline, rewrite, rows_table, wav, with_columns, write_shard, write_tar
from tests.exports import export_to, exported
from tests.ops.channels.calls import encoded, side

pytestmark = pytest.mark.lengthy

NAMES = [
    "interviews/rec 48.wav",
    "interviews/rec 49.flac",
    "interviews/rec 49.wav",
    "interviews/deep/é.v2.wav",
    "x.wav",
]
SRT = ["interviews/deep/é.v2.srt", "interviews/rec 48.srt", "interviews/rec 49.srt", "interviews/rec 49~3.srt", "x.srt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder `in` of recordings in folders, and its labels `out`."""
    made = tmp_path_factory.mktemp("names")
    make_folder_sink(made, NAMES)
    return made


def files(sink, dest, to="srt", **options) -> list[str]:
    export_to(to, str(sink), dest=str(dest), **options)
    return sorted(exported(dest))


class TestFolders:
    def test_files_have_the_names_and_folders_of_their_recordings_or_ids_if_they_are_asked_for(self, folder, tmp_path):
        assert files(folder / "out", tmp_path / "dest") == SRT
        found = raysp.export(str(folder / "out"), to="srt", dest=str(tmp_path / "dest"))
        assert (found.names, found.not_by_path) == ("path", "")
        found = files(folder / "out", tmp_path / "by id", names="id")
        assert found[-1] == "in-00000/x.wav.srt"
        assert "in-00000/interviews_rec_48.wav~1.srt" in found

    def test_new_recordings_are_added_and_a_name_keeps_its_recording(self, tmp_path):
        pipeline = make_folder_sink(tmp_path, ["b.wav"])
        assert files(tmp_path / "out", tmp_path / "dest") == ["b.srt"]
        before = exported(tmp_path / "dest")["b.srt"]
        for name in ("a.wav", "b.mp3"):
            shutil.copy(tmp_path / "in" / "b.wav", tmp_path / "in" / name)
        raysp.run(pipeline, engine="here", progress=False)
        found = raysp.export(str(tmp_path / "out"), to="srt", dest=str(tmp_path / "dest"))
        assert sorted(exported(tmp_path / "dest")) == ["a.srt", "b.srt", "b~2.srt"]
        assert exported(tmp_path / "dest")["b.srt"] == before
        assert (found.shards, found.shards_before) == (2, 1)

    def test_a_list_of_names_that_leads_out_of_the_folder_removes_nothing(self, folder, tmp_path):
        sink = shutil.copytree(folder / "out", tmp_path / "out")
        files(sink, tmp_path / "dest")
        (tmp_path / "mine.srt").write_text("mine")
        [record] = (tmp_path / "dest" / ".raysp" / "shards").iterdir()
        content = hashlib.sha256(b"mine").hexdigest()
        paths = ["../mine.srt", str(tmp_path / "mine.srt"), ".raysp/export.json.srt"]
        written = json.loads(record.read_text())
        written["rows"] |= {path: [content] for path in paths}
        record.write_text(json.dumps(written | {"files": {path: [content] for path in paths}}))
        with_errors(sink / "in-00000.parquet", rows={1})
        assert "interviews/rec 48.srt" not in files(sink, tmp_path / "dest")
        assert (tmp_path / "mine.srt").exists()


class TestOtherSources:
    def test_without_trust_a_manifest_is_not_read_and_the_result_has_the_reason(self, manifest, tmp_path):
        found = raysp.export(str(manifest / "out"), to="srt", dest=str(tmp_path / "dest"))
        assert sorted(exported(tmp_path / "dest")) == [
            "m-00000/long.wav.srt",
            "m-00000/long.wav~2.srt",
            "m-00000/short.wav.srt",
        ]
        assert found.names == "id"
        assert found.facts["names"].startswith("by id, not by path: ")
        assert "--trust" in found.facts["names"]
        with pytest.raises(TrustError, match="--trust"):
            raysp.export(str(manifest / "out"), to=raysp.Srt(names="path"), dest=str(tmp_path / "other"))
        assert files(manifest / "out", tmp_path / "trusted", trust=True) == ["long.srt", "long~2.srt", "short.srt"]

    def test_paths_of_a_parquet_file_are_relative_to_their_root(self, tmp_path):
        make_folder_sink(tmp_path / "made", ["calls/a.wav", "calls/b.wav"])
        table = rows_table(3)
        paths = [f"{tmp_path}/made/in/calls/a.wav", "calls/b.wav", None]
        audio = [{"bytes": None if path else wav(6000), "path": path} for path in paths]
        table = table.set_column(table.column_names.index("audio"), "audio", [audio])
        write_shard(tmp_path / "rows" / "p.parquet", table=table.cast(rows_table(3).schema))
        source = raysp.Shards(f"{tmp_path}/rows", audio_root=f"{tmp_path}/made/in")
        raysp.run(a_pipeline(source, f"{tmp_path}/out", label={"outputs": [WORDS]}), engine="here", progress=False)
        assert files(tmp_path / "out", tmp_path / "dest", trust=True) == ["calls/a.srt", "calls/b.srt", "p~/u2.srt"]

    def test_members_of_tar_files_keep_their_folders(self, tmp_path):
        data = digits().column("audio")[0].as_py()["bytes"]
        names = ("2024/rec 1.wav", "2024/REC 1.wav", "a.wav")
        write_tar(tmp_path / "in" / "t.tar", dict.fromkeys(names, data))
        raysp.run(
            a_pipeline(f"{tmp_path}/in", f"{tmp_path}/out", label={"outputs": [WORDS]}), engine="here", progress=False
        )
        assert files(tmp_path / "out", tmp_path / "dest") == ["t/2024/REC 1~1.srt", "t/2024/rec 1.srt", "t/a.srt"]

    def test_channels_follow_the_name_of_their_recording(self, tmp_path):
        (tmp_path / "in" / "a").mkdir(parents=True)
        for name in ("rec.wav", "rec.1.wav"):
            (tmp_path / "in" / "a" / name).write_bytes(encoded([side(0, [0]), side(1, [0.3])]))
        steps = [raysp.Decode(channel="each"), raysp.Label(str(CHECKPOINT), outputs=[WORDS])]
        raysp.run(a_pipeline(f"{tmp_path}/in", f"{tmp_path}/out", steps=steps), engine="here", progress=False)
        found = files(tmp_path / "out", tmp_path / "dest")
        assert found == [f"a/rec{name}.srt" for name in (".1.1", ".1.2", ".1", ".2")]
        with_errors(tmp_path / "out" / "in-00000.parquet", rows={0})
        assert files(tmp_path / "out", tmp_path / "dest") == found[2:]


HOSTILE = {
    "interviews/rec 48": "interviews/rec 48",
    "../../etc/passwd": "x/x/etc/passwd",
    "/etc//./passwd": "etc/passwd",
    ".raysp/done/x": "x.raysp/done/x",
    "a.srt/b": "a_srt/b",
    "old~/b": "old/b",
    "con/aux": "xcon/xaux",
    "a:b/c\\e": "a_b/c_e",
    "\u0645\u06cc\u200c\u062e\u0648/\u202egpj": "\u0645\u06cc\u200c\u062e\u0648/_gpj",
    "\u05e9" * 200: "\u05e9" * 100,
    "a": "a",
    "A": "A~11",
    "a~0": "a~0",
    "a~1~": "a~1~",
    "b/a": "b/a",
    "B/a": "B/a~15",
    "\ufb01": "\ufb01",
    "\u00e9": "\u00e9",
    "e\u0301": "e\u0301~18",
}
"""Names of members of a tar file, and of their files: those that systems do not allow or take for one have others."""


def test_no_name_leaves_the_folder_or_is_that_of_another_row_on_any_system(tmp_path):
    write_tar(tmp_path / "in" / "t.tar", {f"{name}.wav": wav(20) for name in HOSTILE})
    raysp.run(a_pipeline(f"{tmp_path}/in", f"{tmp_path}/out"), engine="here", progress=False)
    number = len(HOSTILE)
    columns = {"status": ["ok"] * number, "seconds": [1.0] * number, "pred_text": ["x"] * number}
    columns |= dict.fromkeys(("error_type", "error_message"), [None] * number)
    rewrite(tmp_path / "out" / "t.parquet", lambda table: with_columns(table, columns))
    assert {*files(tmp_path / "out", tmp_path / "dest")} == {f"t/{name}.srt" for name in HOSTILE.values()}


@pytest.mark.parametrize("to", ["srt", "textgrid"])
def test_a_recording_without_words_has_a_file_that_its_readers_open(tmp_path, to):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "quiet.wav", [0.0] * 8000, 16_000)
    raysp.run(
        a_pipeline(f"{tmp_path}/in", f"{tmp_path}/out", label={"outputs": [WORDS]}), engine="here", progress=False
    )
    [name] = files(tmp_path / "out", tmp_path / "dest", to)
    path = str(tmp_path / "dest" / name)
    if to == "textgrid":
        grid = praat.openTextgrid(path, includeEmptyIntervals=True)
        assert [[one.label for one in tier.entries] for tier in grid.tiers] == [[""], [""]]
        assert grid.maxTimestamp == pytest.approx(0.5)
    else:
        assert [one.text for one in pysubs2.load(path)] == [""]
        assert list(webvtt.from_srt(path)) == []


class TestAllRows:
    @pytest.mark.parametrize(("kept", "to", "one_file"), [("all", "jsonl", False), ("ok", "csv", True)])
    def test_rows_without_a_text_have_the_reason(self, tmp_path, kept, to, one_file):
        make_sink(tmp_path, rows=kept)
        found = export_to(to, str(tmp_path / "out"), dest=str(tmp_path / "dest"), rows="all", one_file=one_file)
        assert (found.rows, found.left_out, found.files) == (8, {}, 1 if one_file else 2)
        texts = [data.decode() for _, data in sorted(exported(tmp_path / "dest").items())]
        if to == "csv":
            rows = [row for text in texts for row in csv.DictReader(io.StringIO(text, newline=""))]
        else:
            rows = [json.loads(line) for text in texts for line in text.splitlines()]
        assert [int(row["row"]) for row in rows] == [0, 1, 2, 3, 4, 0, 1, 2]
        [bad] = [row for row in rows if row["status"] != "ok"]
        assert (bad["row"], bad["error_type"], bad["pred_text"] or None) == (
            type(bad["row"])(4),
            "unsupported_format",
            None,
        )
        assert bad["error_message"]
        assert next(row["pred_text"] for row in rows if row["status"] == "ok") == "THREE"
