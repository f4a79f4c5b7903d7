"""Columns of numbers of label shards, and fields of structs, which are named after a dot: `signal.noise`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.sources import holds_numbers
from raysp.errors import PlanError


def number_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns and fields of numbers."""
    fields = [*schema.empty_table().flatten().schema]
    return [field.name for field in fields if holds_numbers(field.type)]


def check_numbers(url: str, schema: pa.Schema, option: str, name: str, more: str = "") -> None:
    """Check that a column or field holds numbers.

    Raises:
        PlanError: it does not, or is not there; `more` ends the message.
    """
    if name not in (numbers := number_columns(schema)):
        kinds = {field.name: field.type for field in [*schema.empty_table().flatten().schema, *schema]}
        problem = f"a column of {kinds[name]}" if name in kinds else "no such column"
        raise PlanError(
            f"{url}: {option}={name!r}: found {problem}, expected numbers; columns of numbers are "
            f"{', '.join(numbers) or 'none'}{more}"
        )


def numbers_in(column: "pa.ChunkedArray[Any]") -> npt.NDArray[np.float64]:
    """Return the values of a column of numbers; NaN for nulls."""
    return pc.cast(column, pa.float64()).to_numpy().astype(np.float64)
