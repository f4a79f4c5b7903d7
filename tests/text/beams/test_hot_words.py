"""Hot words: weights of whole words and phrases, whatever a search tried before."""

import math
import re

import pytest
import torch

from raysp.text.beams.hot_words import HotWords
from raysp.text.beams.search import BeamSearch
from tests.text.beams.exhaustive import ranked
from tests.text.beams.frames_of_logits import top_frames

TOKENS = "_|ab"
BLANK, DELIMITER = 0, 1


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(TOKENS.index(one if one != " " else "|") for one in text)


def hot(words: dict[str, float]) -> HotWords:
    return HotWords({ids_of(text): weight for text, weight in words.items()}, vocab_size=4, delimiter=DELIMITER)


def weight_of(text: str, words: dict[str, float]) -> float:
    """Return the sum of the weights of all occurrences, also overlapping ones, as whole words."""
    return sum(weight * len(re.findall(f"(?=\\|{re.escape(word)}\\|)", f"|{text}|")) for word, weight in words.items())


CASES = {
    "a word that begins another": {"a": 1.0, "ab": 3.0},
    "a phrase": {"a|b": 4.0},
    "phrases that overlap": {"a|b": 1.5, "b|a": 2.5, "b": 0.5},
    "none that fits": {"aabbaabb": 9.0},
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_scores_are_those_of_all_alignments_and_a_weight_for_each_whole_word(words):
    logits = 1.5 * torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    search = BeamSearch(250, [hot(words)], least_log_prob=-math.inf)
    [found] = search(top_frames(logits, blank=BLANK), [5], best=15)
    expected = ranked(logits[0].tolist(), BLANK, lambda ids: weight_of("".join(TOKENS[one] for one in ids), words))
    assert [tuple(one.ids.tolist()) for one in found] == [ids for ids, _ in expected[:15]]
    assert [one.score for one in found] == pytest.approx([score for _, score in expected[:15]], abs=1e-5)


def likely(*frames: dict[str, float]) -> torch.Tensor:
    logits = torch.full((1, len(frames), 4), -12.0)
    for place, frame in enumerate(frames):
        for token, value in frame.items():
            logits[0, place, TOKENS.index(token)] = value
    return logits


def test_the_begin_of_a_hot_word_is_kept_by_few_beams_until_it_is_complete():
    # Each "b" is far less likely than "a": two beams drop "bbb" before its end unless it is lifted.
    logits = likely(*[frame for _ in range(3) for frame in ({"a": 0.0, "b": -3.0}, {"_": 0.0})])
    frames, lengths = top_frames(logits, blank=BLANK), [6]
    [[plain]] = BeamSearch(2)(frames, lengths)
    [[boosted]] = BeamSearch(2, [hot({"bbb": 12.0})])(frames, lengths)
    assert (tuple(plain.ids.tolist()), tuple(boosted.ids.tolist())) == (ids_of("aaa"), ids_of("bbb"))
