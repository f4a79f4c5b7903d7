"""Exports to formats of text, opened by other libraries."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pysubs2
import pytest
import webvtt
from praatio import textgrid as praat

import raysp
from raysp import PlanError
from tests.corpora import rewrite
from tests.exports import export_to, exported

TEXTS = {"a/b": "THREE", "a b": "FIVE", "u2": "FOUR", "U2": "SIX", "שלום": "TWO", "nul": "SEVEN", "u7": "FOUR"}
FILES = ["a/U2~3", "a/a_b~0", "a/a_b~1", "a/u2", "more/b/u7", "more/b/xnul~1", "more/b/שלום"]


def with_column(sink, folder, column: str, values: pa.Array):
    """Copy a sink and add a column to its label shards."""
    copied = shutil.copytree(sink, folder)
    for path in copied.rglob("*.parquet"):
        rewrite(path, lambda table: table.append_column(column, values.take(pa.array([0] * table.num_rows))))
    return copied


@pytest.mark.slow
@pytest.mark.parametrize("to", ["srt", "vtt"])
def test_each_row_has_its_subtitles_in_the_folder_of_its_shard(export, tmp_path, to):
    found = export(to)
    assert sorted(exported(tmp_path / "dest")) == [f"{name}.{to}" for name in FILES]
    assert (found.rows, found.files, found.shards, found.shards_before) == (7, 7, 2, 0)
    assert (found.left_out, found.exit_code) == ({"unsupported_format": 1}, 0)
    file = str(tmp_path / "dest" / "a" / f"a_b~0.{to}")
    if to == "srt":
        assert [(one.start, one.text) for one in pysubs2.load(file)] == [(0, "THREE")]
    else:
        assert [(one.start, one.text) for one in webvtt.read(file)] == [("00:00:00.000", "THREE")]


@pytest.mark.parametrize("to", ["srt", "vtt"])
def test_a_long_row_without_times_is_refused_before_anything_is_written(long, tmp_path, to):
    sink = with_column(long / "out", tmp_path / "out", "other_text", pa.array(["one two three"]))
    message = (
        r"the row long/0 is 5\.\d s long, longer .* max_seconds=4, and other_text has no times .*Align\('other_text'\)"
    )
    with pytest.raises(PlanError, match=message):
        export_to(to, str(sink), dest=str(tmp_path / "dest"), column="other", max_seconds=4)
    assert not (tmp_path / "dest").exists()
    found = export_to(to, str(sink), dest=str(tmp_path / "dest"), column="other", max_seconds=30)
    assert found.rows == 3


def test_a_language_begins_lines_with_its_small_words(made, tmp_path):
    text = "he walked along with his old brown dog and a stick in the rain"
    sink = with_column(made / "out", tmp_path / "out", "other_text", pa.array([text]))
    raysp.export(str(sink), to=raysp.Srt(column="other", language="en"), dest=str(tmp_path / "dest"))
    [cue] = pysubs2.load(str(tmp_path / "dest" / "a" / "u2.srt"))
    assert cue.plaintext == "he walked along with his old brown dog\nand a stick in the rain"


def test_chinese_words_are_cut_with_the_times_of_their_characters(made, tmp_path):
    text = "历史悠久。城市美丽"
    starts = [0, 0.2, 0.4, 0.6, 0.7, 4, 4.2, 4.4, 4.6]
    times = [("start", pa.float64()), ("end", pa.float64()), ("score", pa.float32())]
    span = {name: pa.list_(pa.struct([(name, pa.string()), *times])) for name in ("word", "char")}
    chars = [{"char": c, "start": at, "end": at + 0.1, "score": 1.0} for c, at in zip(text, starts, strict=True)]
    words = [{"word": text, "start": 0.0, "end": 4.7, "score": 1.0}]
    sink = with_column(made / "out", tmp_path / "a", "other_words", pa.array([words], span["word"]))
    raysp.export(str(sink), to=raysp.Srt(column="other"), dest=str(tmp_path / "shares"))
    sink = with_column(sink, tmp_path / "b", "other_chars", pa.array([chars], span["char"]))
    raysp.export(str(sink), to=raysp.Srt(column="other"), dest=str(tmp_path / "dest"))
    found = [pysubs2.load(str(tmp_path / folder / "a" / "u2.srt")) for folder in ("shares", "dest")]
    assert [[cue.plaintext for cue in cues] for cues in found] == [["历史悠久。", "城市美丽"]] * 2
    assert [[cue.start for cue in cues] for cues in found] == [[0, 2611], [0, 4000]]


def test_lines_of_json_have_all_columns(export, made, tmp_path):
    export("jsonl")
    rows = [json.loads(line) for line in exported(tmp_path / "dest")["a.jsonl"].splitlines()]
    label_shard = pq.read_table(made / "out" / "a.parquet")
    assert [row["id"] for row in rows] == ["a/b", "a b", "u2", "U2"]
    assert rows == [row for row in label_shard.to_pylist() if row["status"] == "ok"]


def test_a_manifest_of_embedded_recordings_names_them_by_their_ids(export, tmp_path):
    export("nemo")
    rows = [json.loads(line) for data in exported(tmp_path / "dest").values() for line in data.splitlines()]
    assert {row["audio_filepath"]: row["pred_text"] for row in rows} == TEXTS
    assert rows[0]["text"] == "three"
    assert rows[0]["duration"] == pytest.approx(0.282125)
    assert rows[0]["score"] < 0
    assert "offset" not in rows[0]


@pytest.mark.parametrize(
    ("to", "options", "expected"),
    [
        ("ctm", {"column": "aligned"}, r"needs a column aligned_words with a start .*Transcript\(words=True\)"),
        ("textgrid", {"column": "text"}, r"needs a column text_words"),
        ("srt", {"column": "x"}, r"needs a column x_words or x_text. Ask for them with Transcript\(words=True\)"),
        (
            "rttm",
            {},
            r"column pred_turns or pred_segments or pred_speech or pred with .*Segments\(\).*Found .* pred_text",
        ),
        ("nemo", {"column": "x"}, r"needs a column x_text. Ask for it with Transcript\(\)"),
    ],
)
def test_a_format_that_needs_another_column_says_which_output_to_ask_for(export, tmp_path, to, options, expected):
    with pytest.raises(PlanError, match=expected):
        export(to, **options)
    assert not (tmp_path / "dest").exists()


def test_speakers_of_words_and_turns_are_named_in_every_format(made, tmp_path):
    times = [("start", pa.float64()), ("end", pa.float64()), ("score", pa.float32()), ("speaker", pa.int32())]
    words = [("one", 0.1, 0.4, 0), ("two", 0.5, 0.8, 0), ("three", 0.9, 1.2, 1), ("four", 1.3, 1.6, None)]
    of_words = [{"word": w, "start": s, "end": e, "score": 0.5, "speaker": who} for w, s, e, who in words]
    turns = [{"speaker": n, "start": s, "end": e, "score": 0.9} for n, s, e in [(0, 0.1, 0.85), (1, 0.85, 1.7)]]
    kinds = [pa.list_(pa.struct([("word", pa.string()), *times])), pa.list_(pa.struct(times))]
    first = with_column(made / "out", tmp_path / "first", "said_words", pa.array([of_words], kinds[0]))
    sink = with_column(first, tmp_path / "spoken", "said_turns", pa.array([turns], kinds[1]))
    for to in ("rttm", "srt", "vtt", "textgrid"):
        export_to(to, str(sink), dest=str(tmp_path / "dest" / to), column="said")
    dest = tmp_path / "dest"
    assert (dest / "rttm" / "a.rttm").read_text().splitlines()[:2] == [
        "SPEAKER a/b 1 0.100 0.750 <NA> <NA> speaker_0 <NA> <NA>",
        "SPEAKER a/b 1 0.850 0.850 <NA> <NA> speaker_1 <NA> <NA>",
    ]
    shown = [one.text for one in pysubs2.load(str(dest / "srt" / "a" / "u2.srt"))]
    assert shown == ["speaker_0: one two", "speaker_1: three", "four"]
    cues = [(one.text, one.voice) for one in webvtt.read(str(dest / "vtt" / "a" / "u2.vtt"))]
    assert cues == [("one two", "speaker_0"), ("three", "speaker_1"), ("four", None)]
    grid = praat.openTextgrid(str(dest / "textgrid" / "a" / "u2.TextGrid"), includeEmptyIntervals=False)
    assert [one.label for one in grid.getTier("turns").entries] == ["speaker_0", "speaker_1"]
    assert [one.label for one in grid.getTier("words").entries] == ["one", "two", "three", "four"]


def test_turns_come_before_segments_in_rttm(made, tmp_path):
    kind = pa.list_(pa.struct([("speaker", pa.int32()), ("start", pa.float64()), ("end", pa.float64())]))
    values = pa.array([[{"speaker": 3, "start": 0.5, "end": 0.75}]], kind)
    sink = with_column(made / "out", tmp_path / "turns", "pred_turns", values)
    raysp.export(str(sink), to="rttm", dest=str(tmp_path / "dest"))
    assert exported(tmp_path / "dest")["a.rttm"].decode().splitlines()[0].split()[7] == "speaker_3"
