"""Errors of a text against another one, as jiwer and rapidfuzz count them."""

import random

import jiwer
from rapidfuzz.distance import Levenshtein

from raysp.ops.agreeing import agreement_of
from raysp.text.error_rates import normalisation

WORDS = ["one", "two", "three", "tree", "Zoë", "it's", "vierundzwanzig", "-", "..."]
PAIRS = 100_000


def test_errors_of_random_pairs_are_those_of_jiwer_and_rapidfuzz():
    rules = normalisation("letters")
    draw = random.Random(0)
    for _ in range(PAIRS):
        text, other = (" ".join(draw.choices(WORDS, k=draw.randrange(6))) for _ in range(2))
        found = agreement_of(text, other, rules)
        text, other = rules(text), rules(other)
        words = jiwer.process_words(other, text) if other else None
        edits = words.substitutions + words.insertions + words.deletions if words else len(text.split())
        assert (found["edits"], found["words"]) == (edits, len(other.split()))
        assert found["wer"] == edits / max(1, len(other.split()))
        assert found["cer"] == Levenshtein.distance(other, text) / max(1, len(other))
