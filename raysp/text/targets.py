"""Targets of training: vocabularies of characters, the ids of reference texts, and why rows are left out."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

from raysp.text.error_rates import TextRules

PAD, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"
"""Token of the blank and of padding, token of unknown characters, and the token that stands for a space."""
RESERVED = (PAD, UNKNOWN, DELIMITER)
"""Tokens of a built vocabulary that texts cannot contain: a `|` in a text would be read as the end of a word."""
BAR = "| in a text"
"""Key under which a `DELIMITER` that a text itself contains is counted."""


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Return the count of each character; a space as `DELIMITER`, and a `DELIMITER` as `BAR`."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.replace(DELIMITER, "").replace(" ", DELIMITER))
        if bars := text.count(DELIMITER):
            counts[BAR] += bars
    return counts


def build(counts: Mapping[str, int]) -> dict[str, int]:
    """Return a vocabulary: the blank is token 0, then unknown characters, the delimiter, and characters by code point.

    `counts` are the occurrences of each character, as `count_characters` returns them.
    """
    characters = sorted(char for char, count in counts.items() if count and char not in (DELIMITER, BAR))
    return {token: number for number, token in enumerate([PAD, UNKNOWN, DELIMITER, *characters])}


def outside(counts: Mapping[str, int], vocabulary: Collection[str]) -> dict[str, int]:
    """Return the characters that a vocabulary lacks with their occurrences, the most frequent first."""
    missing = {character: count for character, count in counts.items() if character not in vocabulary}
    return dict(sorted(missing.items(), key=lambda entry: (-entry[1], entry[0])))


NO_TEXT, OUTSIDE, TOO_MANY = "empty_text", "outside_vocabulary", "label_too_long"
"""Reasons: no character of the text stays; a character has no token of its own; there are more labels than frames."""


class Target(NamedTuple):
    """Ids that a model learns for a row, or the reason for which the row is left out."""

    ids: Sequence[int]
    """Ids of tokens or classes; may be empty if the row is left out."""
    reason: str = ""
    """Reason for which the row is left out; empty if it is trained on."""


class Targets(Protocol):
    """Targets of rows from the values of their column."""

    counts: Counter[str]
    """Occurrences of each character or class in the values so far."""

    def __call__(self, value: object) -> Target:
        """Return the target of a value, and count its characters, words or classes."""
        ...

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return the reason for which a recording of this many frames cannot have a target; empty if it can."""
        ...


@dataclass
class CharacterTargets:
    """Ids of the characters of texts, for a CTC head.

    Attributes:
        rules: rules for the texts.
        encode: returns the ids of the tokens of a text, -1 for characters without one; None: the vocabulary is not
            known yet, so the ids are the code points of Unicode, and -1 for the tokens `RESERVED`.
        count: counts the units of the vocabulary in a text: characters, or words.
        counts: occurrences of each character or word in the texts so far.
    """

    rules: TextRules
    encode: Callable[[str], Sequence[int]] | None = None
    count: Callable[[str], Counter[str]] = lambda text: count_characters([text])
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, value: object) -> Target:
        """Return the target of a text, and count its characters or words; None is an empty text."""
        text = self.rules("" if value is None else str(value))
        if not text:
            return Target((), NO_TEXT)
        self.counts.update(self.count(text))
        ids = (self.encode or _code_points)(text)
        return Target((), OUTSIDE) if -1 in ids else Target(ids)

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return `TOO_MANY` for a target that needs more frames, else an empty text."""
        return TOO_MANY if frames_needed(target.ids) > num_frames else ""


def _code_points(text: str) -> list[int]:
    return [-1] if contains_any(RESERVED, text) else [ord(character) for character in text]


def contains_any(tokens: Iterable[str], text: str) -> bool:
    """Return whether a text contains a token, which would be read as something else than its characters."""
    return any(token in text for token in tokens)


def frames_needed(ids: Sequence[int]) -> int:
    """Return the number of frames that CTC needs for labels: one each, and a blank between equal neighbours."""
    return len(ids) + sum(label == following for label, following in pairwise(ids))
