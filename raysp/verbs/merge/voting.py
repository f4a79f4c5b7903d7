"""Vote on the words of one row: the transcripts in words, the text that is elected, and its words with times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import pyarrow as pa

from raysp.text.consensus import NOTHING, NOWHERE, Slot, mean, slots_of, winner

TimedWord = dict[str, Any]
WORD_FIELDS = ("word", "start", "end", "score")


class ElectedText(NamedTuple):
    """A text that no labelling has, and its words; None if they have no times in order."""

    text: str
    words: list[TimedWord] | None


@dataclass(frozen=True)
class Words:
    """Words of a transcript that stay when they are normalised, each with the words after it that do not."""

    keys: Sequence[str]
    """The words, normalised."""
    spelt: Sequence[str]
    """All words, as they are written."""
    starts: Sequence[int]
    """Place of the first written word of each, and at last the number of all."""

    @classmethod
    def of(cls, text: str, normalise: Callable[[str], str]) -> "Words":
        """Return the words of a text, normalised one by one, so that each is written as it was if it wins."""
        spelt = text.split()
        keys = [*map(normalise, spelt)]
        starts = [place for place, key in enumerate(keys) if key]
        return cls([*filter(None, keys)], spelt, [0, *starts[1:], len(spelt)] if starts else [0])

    def span(self, place: int) -> slice:
        """Return the places of the written words of a word."""
        return slice(self.starts[place], self.starts[place + 1])


@dataclass(frozen=True)
class Vote:
    """Vote of the transcripts of a row."""

    transcripts: Sequence[Words]
    row_scores: Sequence[float]
    """Score of each transcript; -inf: none."""
    columns: "Sequence[pa.ChunkedArray[Any]]"
    """Column of the words of each with their times; empty: there is none."""
    row: int
    """Place of the row in the columns."""

    @cached_property
    def _elected(self) -> list[tuple[Slot, str]]:
        """The slots and the words that win them."""
        slots = slots_of([words.keys for words in self.transcripts])
        return [(slot, winner(slot, self._score)) for slot in slots]

    @cached_property
    def num_differing(self) -> list[int]:
        """Number of slots in which each transcript differs from the elected text."""
        numbers = range(len(self.transcripts))
        return [sum([slot.words[number] != word for slot, word in self._elected]) for number in numbers]

    @property
    def text(self) -> ElectedText | None:
        """The elected text, in the words of the nearest transcript, else of the best voter; None if it has them all."""
        numbers = range(len(self.transcripts))
        base = min(numbers, key=lambda number: (self.num_differing[number], -self.row_scores[number]))
        if not self.num_differing[base]:
            return None
        spelt: list[str] = []
        timed: list[TimedWord] | None = []
        for slot, word in self._elected:
            if word == NOTHING:
                continue
            voter = base if slot.words[base] == word else self._best_voter(slot, word)
            span = self.transcripts[voter].span(slot.places[voter])
            spelt += self.transcripts[voter].spelt[span]
            of_voter = self._timed[voter]
            timed = None if timed is None or of_voter is None else [*timed, *of_voter[span]]
        return ElectedText(" ".join(spelt), None if timed is None else _in_order(timed))

    def _best_voter(self, slot: Slot, word: str) -> int:
        voters = [number for number, other in enumerate(slot.words) if other == word]
        return max(voters, key=lambda number: self._score(number, slot.places[number]))

    @cached_property
    def _timed(self) -> list[list[TimedWord] | None]:
        """The words with times of each transcript; None if they are not the words of its text."""
        values = [column[self.row].as_py() for column in self.columns] or [None] * len(self.transcripts)
        return [
            value if value is not None and [word["word"] for word in value] == words.spelt else None
            for value, words in zip(values, self.transcripts, strict=True)
        ]

    def _score(self, number: int, place: int) -> float:
        """Return the mean score of a word or transcript; scores of rows if a transcript has no scores of words."""
        if any(timed is None for timed in self._timed):
            return self.row_scores[number]
        span = slice(None) if place == NOWHERE else self.transcripts[number].span(place)
        scores = (word["score"] for word in (self._timed[number] or [])[span])
        return mean(-inf if score is None else score for score in scores)


def _in_order(words: list[TimedWord]) -> list[TimedWord] | None:
    """Return words of which none ends after the start of the next one; None if one has no times or starts earlier."""
    if any(word[name] is None for word in words for name in ("start", "end")):
        return None
    if any(word["start"] > after["start"] for word, after in pairwise(words)):
        return None
    starts = [*(word["start"] for word in words[1:]), inf]
    return [{**word, "end": min(word["end"], start)} for word, start in zip(words, starts, strict=True)]
