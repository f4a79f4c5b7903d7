"""Signals of texts, speech without a word and digests of samples, from a pipeline to its label shards and filters."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile

import raysp
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, digits_table, write_shard

WORDS = raysp.Transcript(words=True)


def joined(number, pause=0.2):
    """Return real digits joined to one recording at 16 kHz, of int16."""
    parts = []
    for row in kit.digits(number):
        samples, rate = soundfile.read(io.BytesIO(row["audio"]), dtype="int16")
        parts += [np.repeat(samples, 16_000 // rate), np.zeros(round(pause * 16_000), np.int16)]
    return np.concatenate(parts)


def shard_of(folder, recordings, **columns):
    audio = pa.array([{"bytes": one, "path": None} for one in recordings], AUDIO)
    ids = [str(number) for number in range(len(recordings))]
    write_shard(folder / "in" / "a.parquet", table=pa.table({"id": ids, "audio": audio, **columns}))


def pipeline_of(folder, *outputs, steps=(), name="out", **label):
    first = raysp.Label(str(CHECKPOINT), outputs=outputs, **label)
    return a_pipeline(f"{folder}/in/*.parquet", f"{folder}/{name}", steps=[raysp.Decode(), first, *steps])


def labelled(folder, *outputs, **fields):
    pipeline = pipeline_of(folder, *outputs, **fields)
    raysp.run(pipeline, engine="here", progress=False)
    return kit.rows(folder / fields.get("name", "out"))


def test_equal_samples_have_one_digest_in_any_container_batch_and_windows(tmp_path):
    long, short = joined(4), joined(2)
    recordings = [
        *(kit.sound(one, form=form) for one in (long, short) for form in ("WAV", "FLAC")),
        kit.sound(long / np.float32(32_768), subtype="FLOAT"),
        kit.sound(long[:-1]),
        *(kit.sound(joined(2), rate) for rate in (8_000, 22_050)),
    ]
    shard_of(tmp_path, recordings)
    output = raysp.Signals(audio_digest=True)
    settings = [{}, {"batch_seconds": 1, "window_seconds": 1, "overlap_seconds": 0.5}]
    found = [
        [row["audio_digest"] for row in labelled(tmp_path, output, name=f"out{number}", **label)]
        for number, label in enumerate(settings)
    ]
    assert found.count(found[0]) == len(settings)
    samples = [hashlib.blake2b((one / np.float32(32_768)).tobytes(), digest_size=16) for one in (long, short)]
    assert found[0][:5] == [*(2 * [samples[0].hexdigest()]), *(2 * [samples[1].hexdigest()]), samples[0].hexdigest()]
    assert len({*found[0]}) == 5


def test_rows_with_speech_without_a_word_are_left_out_in_one_run(tmp_path):
    shard_of(tmp_path, [kit.sound(joined(12)), kit.sound(joined(1))])
    keep = raysp.Keep(where=[("signal.unread", "<", 3), *raysp.text_bounds("granary")])
    windows = {"window_seconds": 3, "overlap_seconds": 1}
    assert raysp.plan(pipeline_of(tmp_path, WORDS, raysp.Signals(), steps=[keep], **windows)).todo
    long, short = labelled(tmp_path, WORDS, raysp.Signals(), steps=[keep], **windows)
    assert short["status"] == "ok"
    assert short["signal"]["unread"] < 1
    assert long["status"] == "ok" or "signal.unique_words is" in long["error_message"]


def test_scripts_languages_and_phrases_of_texts(tmp_path):
    write_shard(
        tmp_path / "in" / "a.parquet",
        table=digits_table(4).append_column("lang", pa.array(["en", "ru", "xx", None])),
    )
    spoken = digits_table(4).column("text").to_pylist()
    phrases = tmp_path / "phrases.txt"
    phrases.write_text(f"{spoken[0]}!\nthank you\n")
    output = raysp.Signals(expected_language=raysp.Column("lang"), text_language=True, phrases=str(phrases))
    rows = labelled(tmp_path, raysp.Transcript(), output)
    assert [row["signal"]["script_share"] for row in rows] == [1, 0, None, None]
    assert [row["signal"]["phrases"] for row in rows] == [float(text == spoken[0]) for text in spoken]
    assert all(len(row["text_language"]) == 2 and 0 < row["text_language_score"] <= 1 for row in rows)


def test_a_changed_file_of_phrases_is_a_changed_pipeline_and_a_copy_is_not(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(2))
    files = {name: tmp_path / f"{name}.txt" for name in ("first", "copy", "other")}
    for name, file in files.items():
        file.write_text("thank you\n" if name != "other" else "thanks\n")
    plans = {
        name: raysp.plan(pipeline_of(tmp_path, raysp.Transcript(), raysp.Signals(phrases=str(file)), name=name))
        for name, file in files.items()
    }
    assert plans["first"].fingerprint == plans["copy"].fingerprint != plans["other"].fingerprint
    with pytest.raises(raysp.CheckpointError, match=r"phrases '.*none\.txt': no such file; expected a text in UTF-8"):
        raysp.plan(pipeline_of(tmp_path, raysp.Transcript(), raysp.Signals(phrases=str(tmp_path / "none.txt"))))


def test_what_is_no_language_is_refused(tmp_path):
    with pytest.raises(raysp.SpecError, match="expected_language='Klingon', expected a code of ISO 639"):
        raysp.Signals(expected_language="Klingon")
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(2).append_column("n", pa.array([1, 2])))
    output = raysp.Signals(expected_language=raysp.Column("n"))
    with pytest.raises(raysp.PlanError, match="column 'n' holds int64, expected strings: the languages of the rows"):
        raysp.plan(pipeline_of(tmp_path, raysp.Transcript(), output))
