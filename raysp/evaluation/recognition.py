"""Word and character error rates of hypotheses against reference texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.evaluation.intervals import Bootstrap, Floats, Ints, ratios
from raysp.evaluation.normalising import DEFAULT, Normalisation, normalisation
from raysp.evaluation.scores import Columns, Comparison, Mismatch, score, score_groups
from raysp.text.error_rates import COUNTS, count_errors, edits


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

    def of(self, rows: Ints) -> "TextMeasures":
        """Return the measures of some of the rows."""
        return TextMeasures(self.words_N4[rows], self.characters_N4[rows])


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
        worst: number of rows to return of those with the most word errors; of equal ones, the shortest references.

    Raises:
        SpecError: the normalisation is unknown, or its package is not installed.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"found {len(references)} references and {len(hypotheses)} hypotheses, expected as many")
    columns, bootstrap = columns or Columns(), bootstrap or Bootstrap()
    rules = normalisation(normalise) if isinstance(normalise, str) else normalise
    ours, theirs = [rules(text) for text in references], [rules(text) for text in hypotheses]
    words, characters = (count_errors(ours, theirs, characters=of_characters) for of_characters in (False, True))
    measures = TextMeasures(words, characters)
    return Comparison(
        scores=score(measures, len(ours), columns, bootstrap),
        by=score_groups(measures, len(ours), columns, bootstrap),
        worst=_worst(ours, theirs, words, worst),
    )


def _named(counts_N4: Ints, unit: str) -> dict[str, int]:
    *errors, length = counts_N4.sum(0).tolist()
    prefix = "" if unit == "words" else f"{unit.removesuffix('s')}_"
    return {unit: length, **{f"{prefix}{kind}": number for kind, number in zip(COUNTS, errors, strict=False)}}


def _worst(references: Sequence[str], hypotheses: Sequence[str], words_N4: Ints, most: int) -> tuple[Mismatch, ...]:
    errors_N = words_N4[:, :-1].sum(1)
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
