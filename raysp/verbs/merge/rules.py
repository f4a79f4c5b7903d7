"""Rules by which a merge takes the label of a row from one of the labellings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from math import inf
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa

from raysp.columns import ROW_COLUMNS
from raysp.errors import PlanError, SpecError, refuse_unused
from raysp.labelling.finished.number_columns import check_numbers, number_columns
from raysp.specs.text_rules import Text, normalisation_of
from raysp.specs.values import JsonValue
from raysp.text.consensus import mean_distances
from raysp.text.error_rates import DEFAULT, Normalisation
from raysp.verbs.merge.candidates import Candidates, Floats, Ints
from raysp.verbs.merge.elected_rows import name_of, words_column
from raysp.verbs.merge.voting import ElectedText, Vote, Words
from raysp.words import count

AGREEMENT, VOTE = "agreement", "vote"
TEXT = "pred_text"
OF_TWO = (
    "two transcripts are as far from each other. Of two, --by COLUMN takes the row with the higher score, --by vote "
    "the words with the higher scores"
)
MOST_WORDS = 1 << 17
"""Words whose normalised form is kept."""


@dataclass(frozen=True)
class Chosen:
    """The labelling of each row, and elected texts by the place of their row."""

    best: Ints
    texts: Mapping[int, ElectedText] = field(default_factory=dict)


class Rule(Protocol):
    """A rule of choice."""

    least: ClassVar[int]
    """Fewest labellings."""

    @property
    def text(self) -> str | None:
        """Column of the transcripts; None: it compares no texts."""

    @property
    def parts(self) -> Mapping[str, JsonValue]:
        """What distinguishes the rule from others, for the fingerprint."""

    def check(self, url: str, schema: pa.Schema) -> None:
        """Check the label shards of a labelling.

        Raises:
            PlanError: they lack the column of the rule.
        """

    def choose(self, rows: Candidates) -> Chosen:
        """Return the labelling of each row."""


@dataclass(frozen=True)
class ByColumn:
    """The highest value of a column of numbers."""

    least: ClassVar = 2
    text: ClassVar = None

    column: str

    @property
    def parts(self) -> Mapping[str, JsonValue]:
        """The column."""
        return {"merge.by": self.column}

    def check(self, url: str, schema: pa.Schema) -> None:
        """Check that there is such a column of numbers."""
        check_numbers(url, schema, "by", self.column, f"; rules are {AGREEMENT} and {VOTE}")

    def choose(self, rows: Candidates) -> Chosen:
        """Return the labelling of each row with the highest value."""
        return Chosen(rows.best(rows.values(self.column)))


@dataclass(frozen=True)
class _ByTexts:
    """A rule that compares the texts of a column."""

    by: ClassVar[str]

    text: str
    normalise: Normalisation

    @property
    def parts(self) -> Mapping[str, JsonValue]:
        """The rule, the column and the normalisation."""
        rules = {"merge.normalise": self.normalise.name, "merge.rules": self.normalise.description}
        return {"merge.by": self.by, "merge.text": self.text, **rules}

    def check(self, url: str, schema: pa.Schema) -> None:
        """Check that there is such a column of texts."""
        kinds = {field.name: field.type for field in schema if field.name not in ROW_COLUMNS}
        texts = [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
        if self.text not in texts:
            problem = f"a column of {kinds[self.text]}" if self.text in kinds else "no such column"
            raise PlanError(
                f"{url}: text={self.text!r}: found {problem}, expected texts; columns of texts are {', '.join(texts)}"
            )

    def _scores(self, rows: Candidates) -> Floats:
        """Return the scores of the transcripts; -inf without a column of them."""
        name = f"{name_of(self.text)}_score"
        has_scores = name in number_columns(rows.tables[0].schema)
        return rows.values(name) if has_scores else np.full(rows.places.shape, -inf)


class ByAgreement(_ByTexts):
    """The least mean distance of the transcript to the transcripts of the other labellings; see `mean_distances`."""

    least: ClassVar = 3
    by: ClassVar = AGREEMENT

    def choose(self, rows: Candidates) -> Chosen:
        """Return the labelling of each row with the least mean distance."""
        texts = rows.texts(self.text)
        distances = _zeros(texts)
        for row, differing in _differing(texts):
            normalised = {text: self.normalise(text) for text in {*differing.values()}}
            distances[[*differing], row] = mean_distances([normalised[text] for text in differing.values()])
        return Chosen(rows.best(-distances, self._scores(rows)))


class ByVote(_ByTexts):
    """The text that wins a vote over its words, and the row of the labelling that is nearest to it."""

    least: ClassVar = 2
    by: ClassVar = VOTE

    def choose(self, rows: Candidates) -> Chosen:
        """Return the labelling of each row that differs least from the elected text, and this text if it differs."""
        texts, scores = rows.texts(self.text), self._scores(rows)
        differences = _zeros(texts)
        normalise = lru_cache(MOST_WORDS)(self.normalise)
        name = words_column(rows.tables[0].schema, self.text)
        timed_words = cache(partial(rows.column, name=name)) if name else None
        elected: dict[int, ElectedText] = {}
        for row, differing in _differing(texts):
            vote = Vote(
                [Words.of(text, normalise) for text in differing.values()],
                scores[[*differing], row].tolist(),
                [timed_words(number) for number in differing] if timed_words else [],
                row,
            )
            differences[[*differing], row] = vote.num_differing
            if (text := vote.text) is not None:
                elected[row] = text
        return Chosen(rows.best(-differences, scores), elected)


def rule_of(by: str, text: str | None, normalise: str | Text | None) -> Rule:
    """Return the rule of a name.

    Raises:
        SpecError: an option is of no use to it, or there is no such normalisation.
    """
    if by not in (AGREEMENT, VOTE):
        refuse_unused({"text": text, "normalise": normalise}, f"by={by!r} compares no texts; leave it out")
        return ByColumn(by)
    rule = ByAgreement if by == AGREEMENT else ByVote
    return rule(TEXT if text is None else text, normalisation_of(DEFAULT if normalise is None else normalise))


def check_number(rule: Rule, number: int) -> None:
    """Check that there are enough labellings.

    Raises:
        SpecError: there are fewer than the rule needs.
    """
    if number < rule.least:
        why = f": {OF_TWO}" if rule.least > 2 else ""
        raise SpecError(f"merge: found {count(number, 'labelling')}, expected {rule.least} or more{why}")


def _zeros(texts: Sequence[Sequence[str | None]]) -> Floats:
    """Return distances of 0, infinite where there is no text."""
    return np.array([[inf if text is None else 0.0 for text in of_labelling] for of_labelling in texts])


def _differing(texts: Sequence[Sequence[str | None]]) -> Iterator[tuple[int, dict[int, str]]]:
    """Yield the rows with different texts, by the numbers of the labellings."""
    for row, of_row in enumerate(zip(*texts, strict=True)):
        present = {number: text for number, text in enumerate(of_row) if text is not None}
        if len({*present.values()}) > 1:
            yield row, present
