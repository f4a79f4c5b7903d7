"""Times for texts of any recogniser: a second step aligns them, and figures that its vocabulary lacks have a place."""

import io

import pytest
import soundfile

import raysp
from tests.corpora import CHECKPOINT
from tests.ops.spoken_digits import spoken

FIGURES = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
           "eight": "8", "nine": "9"}  # fmt: skip
PAUSES = ([0.3] * 6, [0.2, 0.3, 0.6, 0.2, 0.4, 0.3, 0.2, 0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
"""Pauses before the words of three recordings; in windows of 4 s the second one has several."""
WINDOWS = {"window_seconds": 4, "overlap_seconds": 1}


@pytest.fixture(scope="module")
def recordings() -> list[tuple[bytes, list[tuple[str, float]]]]:
    return [spoken(pauses) for pauses in PAUSES]


def aligned(recordings, checkpoint=CHECKPOINT, every=2, **fields) -> list[dict]:
    """Return the labels of texts in which every second word is a figure, or all words, or none."""
    waves, texts = [], []
    for audio, words in recordings:
        wave, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
        waves.append(wave)
        is_figure = [every and not place % every for place in range(len(words))]
        texts.append(" ".join(FIGURES[word] if of else word for (word, _), of in zip(words, is_figure, strict=True)))
    label = raysp.Label(
        str(checkpoint), outputs=[raysp.Align("text", unknown="wildcard")], dtype="float32", device="cpu", **fields
    )
    with raysp.Labeller([raysp.Decode(), label]) as labeller:
        return labeller.arrays(waves, rate, columns={"text": texts}).to_pylist()


@pytest.mark.parametrize(
    ("every", "windows"),
    [(1, {}), (2, {**WINDOWS, "windows": "speech"})],
    ids=["all figures", "every second word of windows of speech"],
)
def test_figures_have_the_times_of_their_words(recordings, every, windows):
    in_letters = aligned(recordings, every=0, **windows)
    for row, expected, (_, words) in zip(
        aligned(recordings, every=every, **windows), in_letters, recordings, strict=True
    ):
        assert row["status"] == "ok"
        assert (row["aligned_score"] is None) == (every == 1)
        assert row["aligned_skipped"] == sum(word["word"].isdigit() for word in row["aligned_words"])
        assert all((word["score"] is None) == word["word"].isdigit() for word in row["aligned_words"])
        starts = [word["start"] for word in row["aligned_words"]]
        assert starts == pytest.approx([word["start"] for word in expected["aligned_words"]], abs=0.1)
        assert starts == pytest.approx([start for _, start in words], abs=0.35)
