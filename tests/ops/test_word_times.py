"""Words of the bundled checkpoint lie where they were spoken, in windows as in one, and windows cost no accuracy."""

import io

import jiwer
import numpy as np
import pyarrow as pa
import pytest
import soundfile

import raysp
from benchmarks.inputs.corpus import GAP_SECONDS, join, read_utterances
from tests.corpora import AUDIO, CHECKPOINT, DEMO

TIMED = raysp.Transcript(words=True, chars=True)


class Spoken:
    """Joined digits, with the place of every word."""

    def __init__(self, seconds: list[float], digits: str, seed: int = 0) -> None:
        speakers = list(read_utterances(digits).values())
        rng = np.random.default_rng(seed)
        self.recordings: list[bytes] = []
        self.words: list[list[tuple[str, float, float]]] = []
        for number, length in enumerate(seconds):
            samples, chosen = join(rng, speakers[number % len(speakers)], length)
            rate, start, words = chosen[0].sample_rate, 0.0, []
            for one in chosen:
                end = start + len(one.samples) / rate
                words.append((one.text.upper(), start, end))
                start = end + round(GAP_SECONDS * rate) / rate
            file = io.BytesIO()
            soundfile.write(file, samples, rate, format="FLAC")
            self.recordings.append(file.getvalue())
            self.words.append(words)

    def labels(self, window_seconds: float, overlap_seconds: float = 5, output: raysp.Transcript = TIMED) -> list[dict]:
        label = raysp.Label(
            str(CHECKPOINT),
            outputs=[output],
            batch_seconds=15,
            window_seconds=window_seconds,
            overlap_seconds=overlap_seconds,
        )
        audio = pa.array([{"bytes": one, "path": None} for one in self.recordings], AUDIO)
        with raysp.Labeller([raysp.Decode(), label], id=None) as labeller:
            found = labeller(pa.table({"audio": audio})).to_pylist()
        assert {row["status"] for row in found} == {"ok"}
        return found

    def word_error_rate(self, labels: list[dict]) -> float:
        return jiwer.wer([" ".join(w for w, _, _ in words) for words in self.words], [x["pred_text"] for x in labels])

    def recognised(self, labels: list[dict]) -> list[tuple[tuple[float, float], dict]]:
        """Pair the true span of each recognised word with its reported one."""
        pairs = []
        for words, row in zip(self.words, labels, strict=True):
            aligned = jiwer.process_words(" ".join(w for w, _, _ in words), row["pred_text"]).alignments[0]
            for chunk in aligned:
                if chunk.type == "equal":
                    for k in range(chunk.ref_end_idx - chunk.ref_start_idx):
                        _, start, end = words[chunk.ref_start_idx + k]
                        pairs.append(((start, end), row["pred_words"][chunk.hyp_start_idx + k]))
        return pairs


def check(spoken: Spoken, labels: list[dict]) -> None:
    pairs = spoken.recognised(labels)
    assert len(pairs) > 0.9 * sum(map(len, spoken.words))
    overlapping = [found["end"] > start and found["start"] < end for (start, end), found in pairs]
    assert np.mean(overlapping) >= 0.95
    errors = np.array([[found["start"] - start, found["end"] - end] for (start, end), found in pairs])
    starts, ends = np.abs(errors).T
    assert np.median(starts) < 0.05
    assert np.quantile(starts, 0.95) < 0.25
    assert np.median(ends) < 0.35  # CTC's peaks come early in a word, and clips end in silence
    assert np.quantile(ends, 0.95) < 0.8


@pytest.mark.slow
def test_word_times_match_the_recording_also_after_window_joints():
    spoken = Spoken([4, 70, 20, 45, 9], str(DEMO / "audio" / "*.parquet"))
    check(spoken, spoken.labels(30))


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize(
    ("times", "lengths"),
    [
        pytest.param(1, [35, 120, 60], id="two minutes"),
        # Clips of the third speaker begin with 0.1 s of silence, so that an hour of them alone would be late by it.
        pytest.param(15, [3600, 60, 120, 300, 90, 45, 180, 35], id="an hour", marks=pytest.mark.soak),
    ],
)
def test_windows_of_four_seconds_or_more_add_at_most_one_point_of_word_error_rate(shared, times, lengths):
    digits = str(shared / "data" / "digits" / "*.parquet")
    short = Spoken([4, 6, 8, 10, 12, 15, 20, 25, 28] * times, digits)
    long = Spoken(lengths, digits, seed=1)
    short_labels, long_labels = short.labels(30), long.labels(30)
    assert long.word_error_rate(long_labels) <= short.word_error_rate(short_labels) + 0.01
    check(short, short_labels)
    check(long, long_labels)
    for row in long_labels:
        edges = [time for word in row["pred_words"] for time in (word["start"], word["end"])]
        assert edges == sorted(edges)
        assert row["seconds"] - 2 < edges[-1] <= row["seconds"]
