"""Finished results as they are shown: any label that an output may give, and errors of printing."""

import json
import math
import re

import pyarrow as pa
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raysp
from raysp import StoreError
from raysp.cli.console import DEBUG, print_json, showing
from raysp.cli.printed_runs import print_rows
from raysp.models import load_checkpoint
from tests.corpora import CHECKPOINT

OUTPUTS = [
    raysp.Transcript(words=True, chars=True, beams=4, nbest=2),
    raysp.Segments(),
    raysp.Signals(),
    raysp.Embedding(),
    raysp.Embedding(pooling="none", layer=(0, 1)),
]


def values_of(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Return values of an Arrow type; each of them, and each part of them, may be null."""
    if pa.types.is_struct(kind):
        values = st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    elif pa.types.is_fixed_size_list(kind):
        values = st.lists(values_of(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    elif pa.types.is_list(kind):
        values = st.lists(values_of(kind.value_type), max_size=3)
    elif pa.types.is_floating(kind):
        values = st.floats(width=16)
    elif pa.types.is_integer(kind):
        values = st.integers(-5, 5)
    else:
        assert pa.types.is_string(kind), kind
        values = st.text(max_size=4)
    return st.none() | values


@pytest.mark.lengthy
@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_labels_with_any_null_are_shown_and_are_json(output, capsys):
    columns = output.schema(load_checkpoint(CHECKPOINT).summary)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.booleans())
    def shown(data: st.DataObject, is_whole: bool) -> None:
        labels = {field.name: pa.array([data.draw(values_of(field.type))], field.type) for field in columns}
        keys = {"id": ["a"], "row": [0], "status": ["ok"], "error_type": pa.nulls(1, pa.string())}
        table = pa.table({**keys, "error_message": pa.nulls(1, pa.string()), **labels})
        for one in (table, pa.concat_tables([table, table])):
            print_rows(one, "Rows", is_whole=is_whole)
        capsys.readouterr()
        print_json({"table": table.to_pylist()})
        json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    shown()


def test_numbers_that_are_not_finite_are_null_in_json(capsys):
    print_json({"rtfx": math.inf, "rows": [math.nan, (1.5, None)], "text": "\ud800"})
    assert json.loads(capsys.readouterr().out) == {"rtfx": None, "rows": [None, [1.5, None]], "text": "\ufffd"}


@pytest.mark.parametrize("code", [0, 1, 3])
def test_an_error_of_printing_changes_no_exit_code(code, capsys):
    with pytest.raises(typer.Exit) as exits, showing(code):
        raise TypeError("no format")
    assert exits.value.exit_code == code
    assert re.search(r"result cannot be shown: TypeError: no format \(possibly a bug", capsys.readouterr().err)
    with pytest.raises(typer.Exit), showing(code):
        raise StoreError("s3://x: gone")
    assert "possibly a bug" not in capsys.readouterr().err


def test_debug_shows_where_printing_failed():
    token = DEBUG.set(True)
    try:
        with pytest.raises(TypeError), showing(0):
            raise TypeError("no format")
    finally:
        DEBUG.reset(token)
