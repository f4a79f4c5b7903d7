"""Alignment of joined digits: words start where they were spoken, and scores find wrong texts."""

import numpy as np
import pytest
import torch

from benchmarks.alignment import Aligner, Heard, scores, separation, speak, starts, wrong_texts
from benchmarks.inputs.corpus import read_utterances
from raysp.text import alignment
from tests.corpora import CHECKPOINT

pytestmark = pytest.mark.slow


BUNDLED, EARLY = str(CHECKPOINT), "checkpoints/unispeech-digits-ctc"
"""EARLY: trained with a loss of plain CTC, its tokens begin with their words."""
MOST_SECONDS = {BUNDLED: (0.036, 0.046, 0.1), EARLY: (0.03, 0.025, 0.13)}
"""Bounds of starts of words by checkpoint: median from clips, median and 95 % from speech."""


@pytest.fixture(scope="module", params=[BUNDLED, EARLY], ids=["bundled", "early"])
def aligner(request, shared) -> Aligner:
    torch.set_num_threads(1)
    return Aligner(str(shared / request.param))


@pytest.fixture(scope="module")
def heard(aligner, shared) -> list[Heard]:
    rng = np.random.default_rng(0)
    speakers = list(read_utterances(str(shared / "data" / "digits" / "*.parquet")).values())
    return [aligner.hear(speak(rng, speakers[number % len(speakers)], 5)) for number in range(40)]


def test_words_start_where_their_speech_does(aligner, heard, request):
    clip, speech, latest = MOST_SECONDS[request.node.callspec.params["aligner"]]
    of_clip, of_speech = np.abs(np.array(list(starts(aligner, heard)))).T
    assert np.median(of_clip) <= clip  # clips begin with some silence
    assert np.median(of_speech) <= speech
    assert np.quantile(of_speech, 0.95) <= latest


def test_the_score_separates_right_from_wrong_texts(aligner, heard):
    [kind, _] = scores(aligner, [])
    right = scores(aligner, [(one, one.text) for one in heard])[kind]
    wrong_by = wrong_texts(np.random.default_rng(1), heard)
    least = {"all words differ": 0.99, "the second half is missing": 0.99, "one word is missing": 0.95}
    for name, share in least.items():
        wrong = scores(aligner, [(one, wrong_by[name](one)) for one in heard])[kind]
        assert separation(right, wrong) >= share, name


def test_long_rows_have_the_best_path_of_all_also_within_a_beam(aligner, heard, monkeypatch):
    text = " ".join(one.text for one in heard)
    long = Heard(heard[0].spoken, torch.cat([one.log_probs for one in heard]))
    [found] = aligner([(long, text)])
    monkeypatch.setattr(alignment, "EXACT_CELLS", 2**40)
    [expected] = aligner([(long, text)])
    np.testing.assert_array_equal(found.first_frames, expected.first_frames)
    assert found.score == expected.score
