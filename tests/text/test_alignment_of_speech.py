"""Alignment of joined digits: words start where they were spoken, and scores find wrong texts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.inputs.corpus import read_utterances
from raysp.audio import decode
from raysp.models.features.processors import as_float, pad
from raysp.models.loading import load_checkpoint
from raysp.ops.aligning import spelling_of
from raysp.text.alignment import Alignment, align
from tests.corpora import CHECKPOINT
from tests.text.spoken_digits import SpokenDigits, speak

pytestmark = pytest.mark.slow

MOST_SECONDS = 0.036, 0.046, 0.1
"""Bounds of starts of words: median from clips, median and 95 % from speech."""
QUIET = 0.1
"""Share of the loudest sample of a clip at which its speech begins."""
IMPOSSIBLE = -1e3
"""Score of a text that has no alignment."""
Heard = tuple[SpokenDigits, Tensor]
"""A recording with its log-probabilities (T, V)."""


class Aligner:
    """Alignment with one checkpoint."""

    def __init__(self, checkpoint: str) -> None:
        self.loaded = load_checkpoint(Path(checkpoint), dtype="float32", device="cpu")
        tokenizer = self.loaded.text_tokenizer
        self.blank = tokenizer.pad_token_id
        self.spelling = spelling_of(tokenizer, self.loaded.summary.vocab_size or 0)

    @torch.inference_mode()
    def hear(self, spoken: SpokenDigits) -> Heard:
        """Run the model over a recording."""
        waves, num_samples = pad([decode(spoken.encoded, sample_rate=self.loaded.sample_rate)])
        features = self.loaded.feature_extractor.extract(as_float(waves), num_samples)
        return spoken, self.loaded.model(**features)["logits"][0].float().log_softmax(-1)

    def __call__(self, log_probs: Tensor, text: str) -> Alignment | None:
        """Align a text with a recording."""
        [found] = align(log_probs[None], [len(log_probs)], [self.spelling(text).target()], blank=self.blank)
        return found

    def starts(self, heard: Heard) -> list[tuple[float, float]]:
        """Return the seconds of each word's start from its clip's start, and from the start of speech in it."""
        spoken, log_probs = heard
        found = self(log_probs, spoken.text)
        rate = self.loaded.sample_rate
        wave = np.abs(decode(spoken.encoded, sample_rate=rate).astype(np.float32))
        distances = []
        for (_, start, end), places in zip(spoken.words, self.spelling(spoken.text).places(), strict=True):
            distance = found.first_frames[places[0].start] * self.loaded.summary.frame_seconds - start
            clip = wave[round(start * rate) : round(end * rate)]
            distances.append((distance, distance - int(np.argmax(clip > QUIET * clip.max())) / rate))
        return distances

    def scores(self, heard: Sequence[Heard], text_of: Callable[[SpokenDigits], str]) -> list[float]:
        """Return the score of a text of each recording."""
        found = [self(log_probs, text_of(spoken)) for spoken, log_probs in heard]
        return [IMPOSSIBLE if one is None else one.score for one in found]


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    torch.set_num_threads(1)
    return Aligner(str(CHECKPOINT))


@pytest.fixture(scope="module")
def heard(aligner, shared) -> list[Heard]:
    rng = np.random.default_rng(0)
    speakers = list(read_utterances(str(shared / "data" / "digits" / "*.parquet")).values())
    return [aligner.hear(speak(rng, speakers[number % len(speakers)], 5)) for number in range(40)]


def test_words_start_where_their_speech_does(aligner, heard):
    clip, speech, latest = MOST_SECONDS
    of_clip, of_speech = np.abs([start for recording in heard for start in aligner.starts(recording)]).T
    assert np.median(of_clip) <= clip  # clips begin with some silence
    assert np.median(of_speech) <= speech
    assert np.quantile(of_speech, 0.95) <= latest


def test_the_score_separates_right_from_wrong_texts(aligner, heard):
    rng = np.random.default_rng(1)
    words = sorted({word for spoken, _ in heard for word in spoken.text.split()})

    def all_words_differ(spoken: SpokenDigits) -> str:
        return " ".join(str(rng.choice([word for word in words if word != said])) for said in spoken.text.split())

    def the_second_half_is_missing(spoken: SpokenDigits) -> str:
        said = spoken.text.split()
        return " ".join(said[: max(1, len(said) // 2)])

    def one_word_is_missing(spoken: SpokenDigits) -> str:
        said = spoken.text.split()
        del said[int(rng.integers(len(said)))]
        return " ".join(said)

    right = aligner.scores(heard, lambda spoken: spoken.text)
    for wrong_text, share in (
        (all_words_differ, 0.99),
        (the_second_half_is_missing, 0.99),
        (one_word_is_missing, 0.95),
    ):
        assert separation(right, aligner.scores(heard, wrong_text)) >= share, wrong_text.__name__


def separation(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return the largest share of texts that one threshold of the score judges correctly."""
    thresholds = np.array([*right, *wrong])[:, None]
    return float(np.hstack([np.array(right) >= thresholds, np.array(wrong) < thresholds]).mean(1).max())
