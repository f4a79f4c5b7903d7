"""Trial of filters before any work: filters that may read any column are called with a table without rows."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from raysp.errors import PlanError, RunError
from raysp.ops.filtering import RowOp, reasons
from raysp.specs.order import up_to_label
from raysp.specs.pipeline import ReadsCorpus, load_function
from raysp.specs.steps import Step

MOST_NAMES = 40
"""Columns that a message names."""
NO_ROWS = "A filter may be called with no rows: let it return an empty list then"


def try_filters(url: str, schema: pa.Schema, work: ReadsCorpus) -> None:
    """Call the filters before the model with a table without rows, if they may read any column.

    Args:
        url: name of the source for messages.
        schema: columns of the source.
        work: the pipeline or recipe.

    Raises:
        PlanError: a filter raises an error, or returns values for no rows; the message has its line and the columns.
    """
    if not any(map(_is_tried, work.source_steps)):
        return
    columns = _of_source(schema, work.source.audio)
    for index, step in enumerate(work.steps[: up_to_label(work.steps)]):
        _try(url, f"steps[{index}]", step, columns)
        columns |= {field.name: field.type for field in step.schema()}


def try_late_filters(url: str, schema: pa.Schema, work: ReadsCorpus, added: pa.Schema) -> None:
    """Call the filters after the model as `try_filters` does; `added` is the schema of the columns of all steps."""
    columns = {**_of_source(schema, work.source.audio), **{field.name: field.type for field in added}}
    behind = up_to_label(work.steps)
    for index, step in enumerate(work.steps[behind:], behind):
        _try(url, f"steps[{index}]", step, columns)


def has_late_trials(work: ReadsCorpus) -> bool:
    """Return whether `try_late_filters` calls any filter."""
    return any(map(_is_tried, work.steps[up_to_label(work.steps) :]))


def _of_source(schema: pa.Schema, audio: str) -> dict[str, pa.DataType]:
    """Return the types of the columns that filters get, in the order of their names; dictionaries are decoded."""
    return {name: _plain(schema.field(name).type) for name in sorted({*schema.names} - {audio})}


def _plain(kind: Any) -> pa.DataType:  # noqa: ANN401 - the stubs of pyarrow lack what types have
    return cast("pa.DataType", kind.value_type if pa.types.is_dictionary(kind) else kind)


def _is_tried(step: Step) -> bool:
    return step.reads_all and not step.columns


def _try(url: str, where: str, step: Step, columns: Mapping[str, pa.DataType]) -> None:
    if not _is_tried(step):
        return
    op = cast("RowOp", step.op({name: load_function(name) for name in step.functions}))
    try:
        reasons(op, pa.schema([*columns.items()]).empty_table())
    except RunError as error:
        advice = "" if isinstance(error.__cause__, KeyError) else f". {NO_ROWS}"
        raise PlanError(
            f"{url}: {where} {error}; the plan called it on a table without rows, of the columns {_names([*columns])}"
            f"{advice}"
        ) from error.__cause__


def _names(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - MOST_NAMES:,} more" if len(columns) > MOST_NAMES else ""
    return f"{', '.join(map(repr, columns[:MOST_NAMES]))}{more}"
