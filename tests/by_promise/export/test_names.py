"""Names of the files of rows: those of their recordings, on every system and after every kill."""

import csv
import hashlib
import io
import json
import shutil
import tarfile

import pysubs2
import pytest
import soundfile
import webvtt
from hypothesis import given
from hypothesis import strategies as st
from praatio import textgrid as praat

import raysp
from raysp import TrustError
from raysp.corpus.shards import Piece, Shard
from raysp.text.formats.safe_values import key_of, safe_path
from raysp.verbs.export.row_names import IdNames, PathNames, first_rows_of
from tests.by_promise.export.sinks import WORDS, digits, exported, make_folder_sink, make_sink, with_errors
from tests.corpora import CHECKPOINT, a_pipeline, rows_table, wav, write_shard
from tests.exports import export_to
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


CLASHING = ["a", "A", "a~0", "a~1", "a~1~", "b/a", "B/a", "ﬁ", "é", "e\u0301"]
PATHS = st.one_of(st.none(), st.sampled_from(CLASHING), st.text(max_size=4))


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
    def test_files_have_the_names_and_folders_of_their_recordings(self, folder, tmp_path):
        assert files(folder / "out", tmp_path / "dest") == SRT
        found = raysp.export(str(folder / "out"), to="srt", dest=str(tmp_path / "dest"))
        assert (found.names, found.not_by_path) == ("path", "")

    def test_ids_name_files_if_they_are_asked_for(self, folder, tmp_path):
        found = files(folder / "out", tmp_path / "dest", names="id")
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
    def test_excerpts_of_one_file_are_numbered_by_their_line(self, manifest, tmp_path):
        assert files(manifest / "out", tmp_path / "dest", trust=True) == ["long.srt", "long~2.srt", "short.srt"]

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
        assert files(manifest / "out", tmp_path / "trusted", trust=True)[0] == "long.srt"

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
        (tmp_path / "in").mkdir()
        with tarfile.open(tmp_path / "in" / "t.tar", "w") as tar:
            for name in ("2024/rec 1.wav", "2024/REC 1.wav", "a.wav"):
                data = digits().column("audio")[0].as_py()["bytes"]
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
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


class TestSafePaths:
    @pytest.mark.parametrize(
        ("path", "safe"),
        [
            ("interviews/rec 48", "interviews/rec 48"),
            ("../../etc/passwd", "x/x/etc/passwd"),
            ("/etc//./passwd", "etc/passwd"),
            (".raysp/done/x", "x.raysp/done/x"),
            ("a.srt/b", "a_srt/b"),
            ("old~/b", "old/b"),
            ("con/aux.1", "xcon/xaux.1"),
            ("a:b/c\0d\\e", "a_b/c_d_e"),
            ("می\u200cخواهم/\u202egpj.exe", "می\u200cخواهم/_gpj.exe"),
            ("ש" * 200, "ש" * 100),
            ("", "x"),
        ],
    )
    def test_examples(self, path, safe):
        assert safe_path(path, ".srt") == safe

    @given(st.lists(st.text(max_size=30), max_size=6).map("/".join))
    def test_no_path_leaves_its_folder_or_meets_the_record(self, path):
        *folders, name = safe_path(path, ".srt").split("/")
        for part in (*folders, name):
            assert part not in ("", ".", "..")
            assert part[0] != "."
            assert not set(part) & set('\0\\:*?"<>|\n')
            assert len(f"{part}~1234567890.12.TextGrid".encode()) <= 255
        assert not any(part.endswith(("~", ".", " ")) or part.lower().endswith(".srt") for part in folders)

    @given(st.lists(st.lists(PATHS, max_size=8), min_size=1, max_size=4))
    def test_no_two_rows_have_one_file_whatever_their_paths(self, shards):
        made = [
            Shard(f"s{n}.parquet", f"/s{n}", 1, "1", len(paths), "0", (Piece(0, len(paths)),))
            for n, paths in enumerate(shards)
        ]
        by_name = dict(zip((one.name for one in made), shards, strict=True))
        names = PathNames(made, first_rows_of(made), lambda one: by_name[one.name], IdNames(".srt", "~"), ".srt")
        found = []
        for one in made:
            name = names.of(one)
            found += [name({"row": row, "id": "a"}) for row in range(one.num_rows)]
        assert len({key_of(name) for name in found}) == len(found)
        natural = [safe_path(path, ".srt") for paths in shards for path in paths if path is not None]
        of_paths = [
            name for name, path in zip(found, (p for paths in shards for p in paths), strict=True) if path is not None
        ]
        keys = [key_of(name) for name in natural]
        for place, (name, plain) in enumerate(zip(of_paths, natural, strict=True)):
            assert (name == plain) == (keys.index(keys[place]) == place)


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
