"""Comparison of label rows."""

import math

import pyarrow as pa
import pyarrow.parquet as pq


def by_id(table: pa.Table) -> dict[str, dict[str, object]]:
    found = {row["id"]: row for row in table.to_pylist()}
    assert len(found) == table.num_rows
    return found


def assert_same_rows(found: dict, expected: dict) -> None:
    """Compare rows: texts and columns exactly, numbers to three digits."""
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        assert [*found[name]] == [*row]
        for column, value in row.items():
            assert alike(found[name][column], value), (name, column, found[name][column], value)


def alike(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def stored_schema(table: pa.Table) -> pa.Schema:
    """Return the schema of a table that was written as Parquet, which names the items of lists otherwise."""
    file = pa.BufferOutputStream()
    pq.write_table(table, file)
    return pq.read_schema(pa.BufferReader(file.getvalue())).remove_metadata()
