"""Exports lose nothing in silence: texts without times, files that were edited, moved away or deleted, kept columns."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysubs2
import pytest
import soundfile
import webvtt
from praatio import textgrid as praat

import raysp
from tests.corpora import CHECKPOINT, DEMO, a_pipeline, digits_table, labelled, rewrite, with_columns
from tests.exports import export_to, exported

TEXT = "one two three"
WORDS = raysp.Transcript(words=True, chars=True)
UNTIMED = {
    "null": None,
    "empty": [],
    "no times": [{"word": word, "start": None, "end": None, "score": None} for word in TEXT.split()],
    "half times": [{"word": word, "start": 0.1, "end": None, "score": 0.5} for word in TEXT.split()],
    "not a number": [{"word": word, "start": float("nan"), "end": float("nan"), "score": 0.5} for word in TEXT.split()],
}
ROWS = ("ctm", "jsonl", "csv", "nemo")
EVERY = ("srt", "vtt", "textgrid", *ROWS, "dataset", "clips")
OPTIONS: dict[str, dict[str, object]] = {"clips": {"min_seconds": 0.1}}
RATES = (8000, 11025, 22050, 44100, 16000)
NUM_ROWS = len(RATES)


def label(source: str, sink: str, *, keep: tuple[str, ...] = (), channel: str = "mean") -> None:
    steps = [raysp.Decode(channel=channel), raysp.Label(str(CHECKPOINT), outputs=[WORDS])]
    raysp.run(a_pipeline(source, raysp.Parquet(sink, keep=[*keep]), steps=steps), engine="here", progress=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A corpus `in` of recordings at several rates, of odd lengths, and its labels `out` with columns of the corpus."""
    folder = tmp_path_factory.mktemp("made")
    rows = digits_table(NUM_ROWS).to_pylist()
    for row, rate in zip(rows, RATES, strict=True):
        samples, of = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        places = np.arange(int(len(samples) * rate / of) - 37) * of / rate
        file = io.BytesIO()
        soundfile.write(file, np.interp(places, np.arange(len(samples)), samples), rate, format="WAV", subtype="PCM_16")
        row["audio"]["bytes"] = file.getvalue()
        row["start"], row["tags"] = len(places), ["a", None]
    (folder / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "in" / "a.parquet")
    label(f"{folder}/in", f"{folder}/out", keep=("speaker_id", "text", "start", "tags"))
    return folder


def changed(sink: Path, to: Path, columns: dict[str, object]) -> Path:
    """Copy a sink with other values of columns in all rows."""
    shutil.copytree(sink, to)
    for path in to.glob("*.parquet"):
        rewrite(path, lambda table: with_columns(table, {name: [one] * len(table) for name, one in columns.items()}))
    return to


def export(folder: Path, sink: Path, to: str, **options: object) -> Any:
    return export_to(to, str(sink), dest=f"{folder}/{to}", trust=True, **{**OPTIONS.get(to, {}), **options})


def texts_of(folder: Path, to: str) -> list[str]:
    """Read the texts of all rows of an export with the reader of each format."""
    paths = [folder / to / name for name in exported(folder / to)]
    if to == "srt":
        return [" ".join(one.plaintext.replace("\n", " ") for one in pysubs2.load(str(path))) for path in paths]
    if to == "vtt":
        return [" ".join(one.text.replace("\n", " ") for one in webvtt.read(str(path))) for path in paths]
    if to == "textgrid":
        grids = [praat.openTextgrid(str(path), includeEmptyIntervals=False) for path in paths]
        return [" ".join(one.label for one in grid.getTier("words").entries) for grid in grids]
    if to == "ctm":
        rows: dict[str, list[str]] = {}
        for line in paths[0].read_text().splitlines():
            rows.setdefault(line.split()[0], []).append(unquote(line.split()[4]))
        return [" ".join(words) for words in rows.values()]
    if to in ("dataset", "clips"):
        column = "pred_text" if to == "dataset" else "text"
        return pq.read_table(folder / to / "data").column(column).to_pylist()
    if to == "csv":
        return [TEXT for line in paths[0].read_text().splitlines() if TEXT in line]
    return [json.loads(line)["pred_text"] for line in paths[0].read_text().splitlines()]


class TestTextsWithoutTimes:
    @pytest.mark.parametrize(("to", "words"), [*((to, "null") for to in EVERY), *(("srt", one) for one in UNTIMED)])
    def test_every_format_keeps_the_text_and_counts_the_row(self, made, tmp_path, to, words):
        columns = {"pred_text": TEXT, "pred_words": UNTIMED[words], "pred_chars": []}
        sink = changed(made / "out", tmp_path / "out", columns)
        found = export(tmp_path, sink, to)
        assert texts_of(tmp_path, to) == [TEXT] * NUM_ROWS
        assert found.rows == NUM_ROWS
        if to in ("srt", "vtt", "textgrid", "ctm", "clips"):
            assert found.untimed == NUM_ROWS
            assert found.facts["no times"].startswith(f"{NUM_ROWS} rows")

    @pytest.mark.parametrize("to", ["srt", "vtt", "textgrid"])
    def test_one_cue_or_interval_spans_the_recording(self, made, tmp_path, to):
        sink = changed(made / "out", tmp_path / "out", {"pred_text": TEXT, "pred_words": None, "seconds": 5.0})
        export(tmp_path, sink, to)
        path = tmp_path / to / next(iter(exported(tmp_path / to)))
        if to == "textgrid":
            [entry] = praat.openTextgrid(str(path), includeEmptyIntervals=True).getTier("words").entries
            assert tuple(entry) == (0, 5, TEXT)
        else:
            [cue] = pysubs2.load(str(path))
            assert (cue.start, cue.end, cue.plaintext) == (0, 5000, TEXT)

    def test_a_row_longer_than_a_cue_has_several_over_its_whole_time(self, made, tmp_path):
        text = " ".join(["word"] * 400)
        sink = changed(made / "out", tmp_path / "out", {"pred_text": text, "pred_words": [], "seconds": 300.0})
        assert export(tmp_path, sink, "srt").untimed == NUM_ROWS
        cues = pysubs2.load(str(tmp_path / "srt" / next(iter(exported(tmp_path / "srt")))))
        assert " ".join(one.plaintext.replace("\n", " ") for one in cues) == text
        assert max(one.duration for one in cues) <= 7000
        assert (cues[0].start, cues[-1].end) == (0, 300_000)

    @pytest.mark.parametrize("to", ["ctm", "textgrid"])
    def test_single_words_without_a_time_are_counted_where_they_are_left_out(self, made, tmp_path, to):
        words = [{"word": "one", "start": 0.0, "end": 0.1, "score": 0.5}, {"word": "two", "start": None, "end": None}]
        sink = changed(made / "out", tmp_path / "out", {"pred_text": "one two", "pred_words": words})
        found = export(tmp_path, sink, to)
        assert (found.left_out, found.untimed) == ({"word_without_time": NUM_ROWS}, 0)
        assert texts_of(tmp_path, to) == ["one"] * NUM_ROWS

    def test_each_channel_keeps_its_text(self, tmp_path):
        rows = digits_table(2).column("audio").to_pylist()
        sides = [soundfile.read(io.BytesIO(one["bytes"]))[0][:2000] for one in rows]
        (tmp_path / "in").mkdir()
        soundfile.write(tmp_path / "in" / "call.wav", np.stack(sides, axis=1), 8000)
        label(f"{tmp_path}/in", f"{tmp_path}/out", channel="each")
        for number, words in enumerate((None, [], [None, []], [[], []])):
            columns = {"pred_text": ["left", "right"], "pred_words": words, "pred_chars": None}
            sink = changed(tmp_path / "out", tmp_path / f"out-{number}", columns)
            for to in ("srt", "ctm", "textgrid"):
                assert export(tmp_path / str(number), sink, to).untimed == 1
            assert texts_of(tmp_path / str(number), "srt") == ["left", "right"]
            assert texts_of(tmp_path / str(number), "ctm") == ["left right"]
            grid = praat.openTextgrid(str(tmp_path / f"{number}/textgrid/call.TextGrid"), includeEmptyIntervals=False)
            assert [grid.getTier(f"words {side}").entries[0].label for side in (1, 2)] == ["left", "right"]


def test_rows_without_a_reference_have_their_transcript_in_a_manifest_and_are_counted(tmp_path, raysp_command):
    source = {"text": ["said", None, ""]}
    sink = labelled(tmp_path, {"pred_text": ["heard"] * 3}, source=source, outputs=[raysp.Transcript()])
    line = "no reference 1 row without a reference text, whose text is the transcript\n"
    for _ in range(2):  # the second export finds the files of the first
        ran = raysp_command("export", sink, tmp_path / "nemo", "--to", "nemo")
        assert (ran.code, line in ran.out) == (0, True), ran.out
    written = exported(tmp_path / "nemo")["a.jsonl"].splitlines()
    assert [json.loads(one)["text"] for one in written] == ["said", "heard", ""]
    ran = raysp_command("export", sink, tmp_path / "nemo", "--to", "nemo", "--json")
    assert json.loads(ran.out)["without_reference"] == 1
    (tmp_path / "plain").mkdir()
    sink = labelled(tmp_path / "plain", {"pred_text": ["heard"]}, outputs=[raysp.Transcript()])
    assert export(tmp_path, sink, "nemo", restart=True).without_reference == 0


class TestFilesOfEarlierExports:
    """Files that were deleted, moved away or edited after an export."""

    @pytest.mark.parametrize("to", ["srt", "jsonl", "clips"])
    def test_one_that_is_gone_is_written_again_and_counted(self, made, tmp_path, to):
        export(tmp_path, made / "out", to)
        before = exported(tmp_path / to)
        for name in before:
            (tmp_path / to / name).rename(tmp_path / "moved away")
            again = export(tmp_path, made / "out", to)
            assert exported(tmp_path / to) == before
            assert (again.rewritten, again.first_rewritten, again.kept) == (1, name, 0)
            assert again.facts["restored"].startswith("1 file removed or changed")
        assert export(tmp_path, made / "out", to).rewritten == 0

    @pytest.mark.parametrize(("to", "edit"), [("srt", b"another content"), ("textgrid", b"")])
    def test_an_edited_file_of_a_row_is_kept_until_it_is_moved_away(self, made, tmp_path, to, edit):
        export(tmp_path, made / "out", to)
        before = exported(tmp_path / to)
        name = min(before)
        (tmp_path / to / name).write_bytes(edit)
        for _ in range(2):
            again = export(tmp_path, made / "out", to)
            assert (again.kept, again.first_kept, again.shards_before, again.files) == (1, name, 1, NUM_ROWS - 1)
            assert exported(tmp_path / to) == {**before, name: edit}
        (tmp_path / to / name).rename(tmp_path / "moved away")
        assert export(tmp_path, made / "out", to).kept == 0
        assert exported(tmp_path / to) == before

    def test_an_edit_of_equal_length_with_the_old_time_is_noticed(self, made, tmp_path):
        for to in ("srt", "ctm"):
            export(tmp_path, made / "out", to)
            path = tmp_path / to / min(exported(tmp_path / to))
            time, edited = path.stat().st_mtime_ns, path.read_bytes().swapcase()
            path.write_bytes(edited)
            os.utime(path, ns=(time, time))
            again = export(tmp_path, made / "out", to)
            assert (again.kept, again.rewritten) == ((1, 0) if to == "srt" else (0, 1))
            assert (path.read_bytes() == edited) == (to == "srt")


@pytest.mark.parametrize("to", ["dataset", "clips"])
def test_a_card_shows_no_path_of_the_machine(made, tmp_path, to):
    export(tmp_path, made / "out", to)
    card = (tmp_path / to / "README.md").read_text()
    assert "`unispeech-digits-ctc`" in card
    assert f"raysp export PIPELINE DEST --to {to}" in card
    assert not {part for part in (str(made), str(DEMO), str(Path.home()), "file://") if part in card}
