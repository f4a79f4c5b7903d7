"""Texts that recognisers make up, by published rules that are written again here; and speech that no word covers."""

import random
from itertools import pairwise

import numpy as np
import pytest

import raysp
from raysp.errors import CheckpointError
from raysp.ops.measuring_texts import signals_of_text
from raysp.text.phrases import Phrases
from raysp.text.scripts import script_share, scripts_of
from raysp.text.unread import AFTER_SECONDS, BEFORE_SECONDS, PAUSE_SECONDS, unread

PHRASES = (
    "Thank you for watching!",
    "you",
    "Subtitles by the community",
    "Продолжение следует...",
    "ご視聴ありがとうございました",
)
WORDS = ("the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "softly", "over", "old", "town", "roofs")
COMPOUNDING = {"fi", "hu", "et", "de", "nl", "da", "sv", "no"}


def made_up(draw: random.Random) -> tuple[str, float]:
    """Write a text of a recogniser that hallucinates now and then, and the seconds of its recording."""
    words = draw.choices(WORDS, k=draw.randint(1, 30))
    kind = draw.randrange(6)
    if kind == 0:  # a loop
        words = words[:3] + draw.choices(words, k=2) * draw.randint(1, 20)
    elif kind == 1:  # a long word, of just about the lengths of the rules
        words.insert(draw.randrange(len(words) + 1), "a" * draw.choice([*range(1, 50)]))
    elif kind == 2:
        words = [draw.choice(PHRASES)]
    elif kind == 3:
        words = ["дом", "мир", "земля"] * draw.randint(1, 3)
    elif kind == 4:  # shares of exactly two fifths
        words = ["a", "b"] * draw.randint(1, 4) + ["a"]
    return " ".join(words), draw.uniform(0.1, 10)


def granary(words: list[str]) -> bool:
    """Features `hall_repeated_ngrams` and `hall_long_word` of NeMo's speech-data-processor."""
    lengths = sorted(map(len, words))
    if len(set(words)) / len(words) <= 0.4 or lengths[-1] >= 25:
        return True
    return len(words) > 1 and (lengths[-1] - lengths[-2]) / lengths[-2] >= 3


def curator(words: list[str], seconds: float, language: str) -> bool:
    """Rules of the stage `WhisperHallucination` of NeMo Curator, without its phrases."""
    lengths = sorted(map(len, words))
    if len(set(words)) / len(words) <= 0.4 or sum(lengths) / seconds > 40:
        return True
    if lengths[-1] >= (35 if language in COMPOUNDING else 25):
        return True
    is_relative = language not in COMPOUNDING and len(lengths) > 1
    return is_relative and (lengths[-1] - lengths[-2]) / lengths[-2] >= 3


def flagged(text: str, seconds: float, bounds: list[tuple[str, str, float]]) -> bool:
    """Return whether a row with the signals of a text, in single precision, is left out."""
    signals = {name: float(np.float32(value)) for name, value in signals_of_text(text, seconds).items()}
    meets = {">": float.__gt__, "<": float.__lt__, "<=": float.__le__}
    return not all(meets[compare](signals[name.partition(".")[2]], bound) for name, compare, bound in bounds)


def test_the_published_rules_flag_the_same_texts():
    draw = random.Random(0)
    counts = dict.fromkeys(("granary", "en", "de"), 0)
    for _ in range(800):
        text, seconds = made_up(draw)
        by_granary = granary(text.split())
        assert flagged(text, seconds, raysp.text_bounds("granary")) == by_granary, text
        counts["granary"] += by_granary
        for language in ("en", "de"):
            expected = curator(text.split(), seconds, language)
            bounds = raysp.text_bounds("curator", language=language)
            assert flagged(text, seconds, bounds) == expected, (text, seconds)
            counts[language] += expected
    assert all(80 < count < 720 for count in counts.values())
    assert not flagged("", 1.0, raysp.text_bounds("curator"))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("THANK YOU, for watching", 1),
        ("thank you thank you for watching", 5 / 6),
        ("the youth", 0),  # phrases end where words do
        ("you and you", 2 / 3),
        ("今日はご視聴ありがとうございました", 14 / 17),
        ("", 0),
        ("?!", 0),
    ],
)
def test_the_share_of_words_in_phrases(text, share):
    assert Phrases(PHRASES).share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "expected phrases in UTF-8"), (b"...\n\n", "no phrase")]
)
def test_a_file_without_phrases_is_refused(tmp_path, content, message):
    (tmp_path / "phrases.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        Phrases.read(tmp_path / "phrases.txt")


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("Straße 25, bitte!", "de", 1),
        ("Straße дом", "deu", 6 / 9),
        ("дом", "<|ru|>", 1),
        ("дом", "sr_Latn", 0),
        ("dom дом", "sr", 1),
        ("カタカナとひらがなと漢字ー", "ja", 1),
        ("カタカナ", "zh", 0),
        ("ＡＢＣ", "en-US", 1),
        ("नमस्ते", "hi", 1),
        ("안녕 hello", "ko", 2 / 7),
        ("25", "en", None),
    ],
)
def test_the_share_of_letters_of_the_scripts_of_a_language(text, language, share):
    assert script_share(text, scripts_of(language)) == (share if share is None else pytest.approx(share))


MILLISECONDS = 20_000


def counted(speech: list[tuple[int, int]], words: list[tuple[int, int]]) -> tuple[float, float]:
    """Count milliseconds of speech without a word; those between two words belong together."""
    is_speech, covered = np.zeros(MILLISECONDS, bool), np.zeros(MILLISECONDS, bool)
    for start, end in speech:
        is_speech[start:end] = True
    for (_, end), (start, _) in pairwise(speech):
        if start - end <= 1000 * PAUSE_SECONDS:
            is_speech[end:start] = True
    for start, end in words:
        covered[max(0, start - round(1000 * BEFORE_SECONDS)) : end + round(1000 * AFTER_SECONDS)] = True
    missing = is_speech & ~covered
    gaps = np.cumsum(np.diff(covered, prepend=True) & ~covered) * ~covered
    longest = max(int((missing & (gaps == gap)).sum()) for gap in range(gaps.max() + 1)) if not covered.all() else 0
    return longest / 1000, missing.sum() / is_speech.sum() if is_speech.any() else 0.0


def spans(draw: np.random.Generator, most: int) -> list[tuple[int, int]]:
    places = sorted(draw.choice(MILLISECONDS - 2, 2 * int(draw.integers(most)), replace=False).tolist())
    return list(zip(places[::2], places[1::2], strict=True))


def test_it_is_what_counting_milliseconds_gives():
    draw = np.random.default_rng(0)
    for _ in range(200):
        speech, words = spans(draw, 12), spans(draw, 20)
        words = [words[place] for place in draw.permutation(len(words))]
        words += [(start, min(MILLISECONDS, end + 900)) for start, end in words[:2]]  # words may overlap
        found = unread([(a / 1000, b / 1000) for a, b in speech], [(a / 1000, b / 1000) for a, b in words])
        longest, share = counted(speech, words)
        assert found.longest == pytest.approx(longest, abs=1e-6)
        assert found.share == pytest.approx(share, abs=1e-6)
