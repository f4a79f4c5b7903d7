"""Figures of many rows: memory that does not grow with them, and rates and intervals that stay those of all rows."""

import numpy as np
import pyarrow as pa
import pytest

from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.recognition import TextMeasures
from raysp.evaluation.scores import Columns, score
from raysp.labelling.reports import label_figures, row_error_rates
from raysp.labelling.reports.label_figures import MOST_TYPES, Chosen, Rows, Sample


def measured(counts: np.ndarray):
    return score(TextMeasures(counts[:, :4], counts[:, 4:]), len(counts), Columns(), Bootstrap())


def batch(first: int, number: int = 1000) -> pa.Table:
    """Return rows with new ids, texts, speakers and reasons in each batch."""
    ids = [f"r{row}" for row in range(first, first + number)]
    is_ok = [row % 10 > 0 for row in range(number)]
    kinds = [None if ok else f"kind_{first + row}" for row, ok in enumerate(is_ok)]
    return pa.table(
        {
            "id": ids,
            "row": list(range(first, first + number)),
            "seconds": np.linspace(0.1, 40, number),
            "status": ["ok" if ok else "error" for ok in is_ok],
            "error_type": pa.array(kinds, pa.string()),
            "error_message": pa.array(kinds, pa.string()),
            "pred_text": [f"one {row % 3}" for row in range(number)],
            "text": ["one 1"] * number,
            "pred_score": np.linspace(-1, 0, number),
            "pred_label": ids,
            "speaker": ids,
            "language": ["en", "de"] * (number // 2),
        }
    )


CHOSEN = Chosen("pred_text", "text", ("pred_score",), ("speaker", "pred_label"), ("speaker", "language", "id"))


@pytest.mark.slow
def test_memory_does_not_grow_with_rows():
    found = Rows(CHOSEN)
    found.samples = {name: Sample(500) for name in found.samples}
    for first in range(0, 10_000, 1000):
        found.add("a.parquet", batch(first))
    assert sum(one.rows for one in found.groups["seconds"].values()) == 10_000
    assert {len(one.values) for one in found.samples.values()} == {500}
    assert len(found.examples) == MOST_TYPES
    assert max(map(len, found.examples.values())) <= label_figures.MOST_EXAMPLES
    assert len(found.worst) == label_figures.MOST_WORST
    assert len(found.errors._sums) == row_error_rates.MOST_UNITS
    assert max(map(len, found.groups.values())) == row_error_rates.MOST_GROUPS + 1
