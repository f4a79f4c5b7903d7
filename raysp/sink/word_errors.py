"""Word errors of labels against the reference texts of their rows, ignoring case and punctuation."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pyarrow as pa

from raysp.columns import OK, SKIPPED
from raysp.text.error_rates import count_errors
from raysp.text.normalising import joined
from raysp.words import count

_NO_LETTER = re.compile(r"[^\w\s']")


class TextColumns(NamedTuple):
    """Columns of a label shard to compare."""

    reference: str
    hypothesis: str


@dataclass
class WordErrors:
    """Counts over rows that have a reference, which may be empty."""

    rows: int = 0
    """Labelled rows."""
    unlabelled: int = 0
    """Error rows and skipped rows, which are not in the counts of words."""
    skipped: int = 0
    """Skipped rows among the unlabelled ones."""
    words: int = 0
    """Words in the references of labelled rows."""
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Word error rate; 0 without reference words."""
        return self.errors / self.words if self.words else 0.0

    def __bool__(self) -> bool:
        """Return whether a row has a reference."""
        return bool(self.rows or self.unlabelled)

    @property
    def sentence(self) -> str:
        """The word error rate, the errors by kind, and the numbers of words and rows compared."""
        unlabelled = f"; {count(self.unlabelled, 'row')} with a reference not labelled" if self.unlabelled else ""
        if not self.rows:
            return f"nothing to compare{unlabelled}"
        rate = f"{self.rate:.2%} of {count(self.words, 'reference word')}" if self.words else "no reference words"
        numbers = {"substitution": self.substitutions, "insertion": self.insertions, "deletion": self.deletions}
        kinds = ", ".join(count(number, noun) for noun, number in numbers.items())
        rows = count(self.rows, "labelled row")
        return f"{rate} in {rows} (ignoring case and punctuation): {kinds}{unlabelled}"

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts in the form of `to_counts`; missing counts are zero."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + counts.get(name, 0))

    def to_counts(self) -> dict[str, int]:
        """Return all counts by name; empty if no row has a reference."""
        return {name: getattr(self, name) for name in _COUNTS} if self else {}

    def count(self, table: pa.Table, columns: TextColumns) -> None:
        """Count the rows of a table with a `status` column."""
        references, hypotheses = (texts_of(table.column(name)) for name in columns)
        pairs = []
        for reference, hypothesis, status in zip(
            references, hypotheses, table.column("status").to_pylist(), strict=True
        ):
            if reference is None:
                continue
            if status != OK:
                self.unlabelled += 1
                self.skipped += status == SKIPPED
                continue
            pairs.append((_plain_words(reference), _plain_words(hypothesis or "")))
        self.rows += len(pairs)
        counts = count_errors([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])
        substitutions, insertions, deletions, words = counts.sum(0).tolist()
        self.words += words
        self.substitutions += substitutions
        self.insertions += insertions
        self.deletions += deletions


_COUNTS = tuple(one.name for one in fields(WordErrors) if one.type is int)


def texts_of(column: "pa.ChunkedArray[Any]") -> Sequence[str | None]:
    """Return the texts of a column; invalid UTF-8, which label shards carry over unchanged, is replaced.

    Numbers are converted to text. Lists and other types have no text.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        # As bytes: `to_pylist` of strings raises at invalid UTF-8.
        raw = (column.cast(pa.large_string()) if is_number else column).cast(pa.large_binary()).to_pylist()
    except pa.ArrowNotImplementedError:
        return [None] * len(column)
    return [None if one is None else one.decode(errors="replace") for one in raw]


def _plain_words(text: str) -> str:
    # NFC last: casefolding can leave letters decomposed.
    text = unicodedata.normalize("NFC", text.casefold()).replace("i\u0307", "i")  # of İ
    return " ".join(_NO_LETTER.sub(_mark_or_space, joined(text)).split())


def _mark_or_space(found: re.Match[str]) -> str:
    """Return a mark on a letter, such as a vowel of Devanagari or Thai; any other character as a space."""
    return found[0] if unicodedata.category(found[0])[0] == "M" else " "
