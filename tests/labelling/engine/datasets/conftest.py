"""Rows of every kind, the label rows that a run gives them, and their comparison."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit
from tests.kit import CHECKPOINT
from tests.user_specs import Counted, Spoken, loudness

COLUMNS = {"keep": ["speaker_id", "text"], "row": "place"}


@pytest.fixture(scope="session")
def steps():
    """Filters and added columns of raysp and of a user before a model that reads a third of a second at once."""
    outputs = [raysp.Transcript(words=True), raysp.Align("text"), raysp.Embedding()]
    return [
        Spoken(min_words=1),
        Counted(),
        raysp.Decode(),
        raysp.Map(loudness, adds={"loudness": "float32", "duration": "float64"}, reads=["audio", "text"]),
        raysp.Keep(max_seconds=30, where=[("speaker_id", "!=", "nobody")]),
        raysp.Label(str(CHECKPOINT), outputs=outputs, window_seconds=0.3, overlap_seconds=0.1),
    ]


@pytest.fixture(scope="session")
def shard(tmp_path_factory) -> Path:
    """Digits of several windows each, and rows that are skipped or fail for each kind of reason."""
    folder = tmp_path_factory.mktemp("in")
    kit.corpus(folder, 9, faults=["null", "empty", "not_audio", "truncated", "too_short", "too_long"])
    table = pq.read_table(place := folder / "part-0.parquet")
    texts = ["", "unbearable", *table["text"].to_pylist()[2:]]
    table = table.set_column(table.column_names.index("text"), "text", pa.array(texts))
    pq.write_table(table.append_column("place", pa.array(range(table.num_rows))), place, row_group_size=4)
    return place


@pytest.fixture(scope="session")
def rows(shard) -> pa.Table:
    return pq.read_table(shard)


@pytest.fixture(scope="session")
def labelled_sink(steps, shard, tmp_path_factory):
    """The sink of a run over the shard."""
    sink = tmp_path_factory.mktemp("labels")
    keep = raysp.Parquet(str(sink), keep=COLUMNS["keep"])
    pipeline = raysp.Pipeline(raysp.Shards(str(shard)), steps=steps, sink=keep, max_error_rate=1)
    raysp.run(pipeline, engine="here", progress=False)
    return sink


@pytest.fixture(scope="session")
def label_rows(labelled_sink):
    """The label rows of the run, by id."""
    return by_id(pq.read_table(labelled_sink / "part-0.parquet"))


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
