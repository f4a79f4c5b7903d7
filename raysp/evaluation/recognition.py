"""Word and character error rates of hypotheses against reference texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.evaluation.equal_rows import Bools, EqualRows
from raysp.evaluation.intervals import Bootstrap, Floats, Ints, ratios
from raysp.evaluation.scores import Columns, Comparison, Mismatch, compare
from raysp.text.error_rates import COUNTS, DEFAULT, Normalisation, count_errors, edits, normalisation


@dataclass(frozen=True)
class TextMeasures:
    """Error rates: the errors of all rows, divided by the words or characters of all references.

    Attributes:
        words_N4: counts of `count_errors`.
        characters_N4: the same for characters.
    """

    words_N4: Ints
    characters_N4: Ints

    names = ("wer", "cer")

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the rates of each weighting; NaN without a reference word."""
        sums = (weights_DN @ counts for counts in (self.words_N4, self.characters_N4))
        return np.stack([ratios(sums_D4[:, :-1].sum(1), sums_D4[:, -1]) for sums_D4 in sums], axis=1)

    def counts(self) -> dict[str, int]:
        """Return the words of the references and the errors by kind; the same for characters."""
        return {**_named(self.words_N4, "words"), **_named(self.characters_N4, "characters")}

    @classmethod
    def joined(cls, parts: Sequence["TextMeasures"]) -> "TextMeasures":
        """Return the measures of the rows of all parts, in order."""
        none = np.zeros((0, len(COUNTS)), np.int64)
        return cls(
            np.concatenate([none, *(part.words_N4 for part in parts)]),
            np.concatenate([none, *(part.characters_N4 for part in parts)]),
        )


@dataclass(frozen=True)
class TextAgreement:
    """Error rates of one labelling against another, and the share of rows with equal texts."""

    errors: TextMeasures

    names = ("wer", "cer", "agreement")

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the metrics of each weighting."""
        return np.concatenate([self.errors(weights_DN), self._agreement(weights_DN)], axis=1)

    def counts(self) -> dict[str, int]:
        """Return the counts of the errors, and the number of rows with equal texts."""
        return {**self.errors.counts(), **self._agreement.counts()}

    @property
    def _agreement(self) -> EqualRows:
        equal_N: Bools = self.errors.words_N4[:, :-1].sum(1) == 0
        return EqualRows(equal_N)


@dataclass(frozen=True)
class PairedErrors:
    """Error rates of two labellings, A and B, against the same references, and their differences, B less A.

    All metrics come from the same draws of rows, so the interval of a difference is for paired rows.
    """

    a: TextMeasures
    b: TextMeasures

    names = ("wer_change", "wer_a", "wer_b", "cer_change", "cer_a", "cer_b")

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the metrics of each weighting; NaN without a reference word."""
        a_D2, b_D2 = self.a(weights_DN), self.b(weights_DN)
        return np.stack([b_D2 - a_D2, a_D2, b_D2], axis=2).reshape(len(weights_DN), -1)

    def counts(self) -> dict[str, int]:
        """Return the words and characters of the references."""
        counts = self.a.counts()
        return {name: counts[name] for name in ("words", "characters")}


def compare_texts(
    references: Sequence[str],
    hypotheses: Sequence[str],
    columns: Columns | None = None,
    *,
    normalise: str | Normalisation = DEFAULT,
    bootstrap: Bootstrap | None = None,
    worst: int = 10,
) -> Comparison:
    """Return the word and character error rates of hypotheses.

    Words that are recognised where the reference is empty are errors too.

    Args:
        references: N texts, which may be empty.
        hypotheses: N texts.
        columns: durations, columns for groups, and units of the bootstrap.
        normalise: normalisation of both texts.
        bootstrap: number of draws, and seed.
        worst: number of rows with the most word errors to return; of equal ones, the shortest references.

    Raises:
        SpecError: the normalisation is unknown, or its package is not installed.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"expected as many hypotheses as references, found {len(hypotheses)} and {len(references)}")
    rules = normalisation(normalise) if isinstance(normalise, str) else normalise
    ours, theirs = [rules(text) for text in references], [rules(text) for text in hypotheses]
    measures = measure_texts(ours, theirs)
    return compare(measures, len(ours), columns, bootstrap, worst=worst_texts(ours, theirs, measures, worst))


def measure_texts(references: Sequence[str], hypotheses: Sequence[str]) -> TextMeasures:
    """Return the errors of each row. Texts are compared as they are; normalise them before.

    Only differing texts are aligned.
    """
    differing = [row for row, (a, b) in enumerate(zip(references, hypotheses, strict=True)) if a != b]
    ours, theirs = ([texts[row] for row in differing] for texts in (references, hypotheses))
    words, characters = (np.zeros((len(references), len(COUNTS)), np.int64) for _ in range(2))
    words[:, -1] = [len(text.split()) for text in references]
    characters[:, -1] = [len(text) for text in references]
    words[differing] = count_errors(ours, theirs)
    characters[differing] = count_errors(ours, theirs, characters=True)
    return TextMeasures(words, characters)


def _named(counts_N4: Ints, unit: str) -> dict[str, int]:
    *errors, length = counts_N4.sum(0).tolist()
    prefix = "" if unit == "words" else f"{unit.removesuffix('s')}_"
    return {unit: length, **{f"{prefix}{kind}": number for kind, number in zip(COUNTS, errors, strict=False)}}


def worst_texts(
    references: Sequence[str], hypotheses: Sequence[str], measures: TextMeasures, most: int
) -> tuple[Mismatch, ...]:
    """Return the rows with the most word errors; of equal ones, the shortest references first."""
    words_N4, errors_N = measures.words_N4, measures.words_N4[:, :-1].sum(1)
    order = np.lexsort((words_N4[:, -1], -errors_N))[:most]
    return tuple(
        Mismatch(
            int(row),
            references[row],
            hypotheses[row],
            int(errors_N[row]),
            edits=edits(references[row], hypotheses[row]),
        )
        for row in order
        if errors_N[row]
    )
