"""Columns of label shards: how they are compared, and their values as keys of groups."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import pyarrow as pa

from raysp.corpus.sources import holds_numbers
from raysp.evaluation.comparing import Task
from raysp.evaluation.scores import Key
from raysp.evaluation.verification import Vector
from raysp.labelling.planning.surveying import holds_text
from raysp.sink.receipts import texts_of

Kind = Literal["text", "class", "number", "value"]
"""How a column is compared: by word errors, by class, or by equality alone; of numbers reports draw histograms."""
TEXT_SUFFIX, SCORES_SUFFIX = "_text", "_scores"


def kind_of(schema: pa.Schema, name: str) -> Kind:
    """Return the kind of comparison of a column, from its type, its name and the other columns."""
    kind = schema.field(name).type
    if holds_text(kind):
        if name.endswith(TEXT_SUFFIX):
            return "text"
        return "class" if f"{name}{SCORES_SUFFIX}" in schema.names else "value"
    return "number" if holds_numbers(kind) else "value"


def complaints_of_groups(schema: pa.Schema, column: str) -> Iterator[str]:
    """Yield a message if rows cannot be grouped by a column of this type."""
    if pa.types.is_nested(kind := schema.field(column).type):
        yield f"column {column!r} holds {kind}, expected single values, by which rows are grouped"


def keys_of(column: "pa.ChunkedArray[Any]") -> list[Key]:
    """Return values as JSON has them; dates and the like as text."""
    if holds_text(column.type):
        return list(texts_of(column))
    values = column.to_pylist()
    return [value if isinstance(value, bool | int | float | None) else str(value) for value in values]


def references_of(
    column: "pa.ChunkedArray[Any]", task: Task, class_names: Sequence[str] | None = None
) -> Sequence[str | None]:
    """Return the values of a column as references; None for null, and for a speaker without a name.

    Args:
        column: texts, classes or speakers.
        task: the kind of the labels that are compared with them.
        class_names: names of classes that are numbers; None: numbers are names.
    """
    if holds_text(column.type):
        texts = texts_of(column)
        return [text or None for text in texts] if task == "verification" else texts
    keys = keys_of(column)
    if class_names is None:
        return [None if key is None else str(key) for key in keys]
    return [class_names[key] if isinstance(key, int) and 0 <= key < len(class_names) else None for key in keys]


def vectors_of(column: "pa.ChunkedArray[Any]") -> list[Vector | None]:
    """Return the vectors of a column of lists of one size, each a part of one array."""
    lists = cast("pa.FixedSizeListArray[Any, Any]", column.combine_chunks())
    numbers = lists.flatten().to_numpy(zero_copy_only=False)  # without null rows
    vectors = iter(numbers.reshape(-1, lists.type.list_size))
    return [next(vectors) if is_valid else None for is_valid in lists.is_valid().to_pylist()]
