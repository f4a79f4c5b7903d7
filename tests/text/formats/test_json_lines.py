"""Lines of JSON for any values of label rows."""

import datetime
import json
import math
import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from tests.corpora import labelled
from tests.text.formats.spans import STORED

ROWS = st.lists(
    st.fixed_dictionaries(
        {"t": st.none() | STORED, "f": st.none() | st.floats(), "n": st.none() | st.integers(-(2**63), 2**63 - 1)}
        | {"l": st.none() | st.lists(st.none() | STORED, max_size=3)}
    ),
    min_size=30,
    max_size=60,
)
TYPES = {"t": pa.string(), "f": pa.float64(), "n": pa.int64(), "l": pa.list_(pa.string())}


def lines_of(folder: Path, columns: dict[str, pa.Array]) -> str:
    """Return the export of a label shard with these columns."""
    sink = labelled(folder, {"pred_text": [""] * len(next(iter(columns.values()))), **columns})
    raysp.export(str(sink), to="jsonl", dest=str(folder / "lines"))
    return (folder / "lines" / "a.jsonl").read_bytes().decode()


@settings(max_examples=4, deadline=None)
@given(ROWS)
def test_a_row_is_one_line_that_reads_back(rows):
    with tempfile.TemporaryDirectory() as folder:
        columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()}
        lines = lines_of(Path(folder), columns).splitlines()
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        found = json.loads(line, parse_constant=lambda name: 1 / 0)
        number = row["f"]
        expected = None if number is None or not math.isfinite(number) else number
        assert {name: found[name] for name in TYPES} == {**row, "f": expected}


def test_bytes_and_dates_are_texts_and_scripts_are_readable(tmp_path):
    columns = {
        "a": pa.array([b"\xff"]),
        "b": pa.array([datetime.date(2020, 1, 2)]),
        "c": pa.array([{"d": [float("nan")]}]),
        "e": pa.array(["שלום\u2028\x85"]),
    }
    [line] = lines_of(tmp_path, columns).splitlines()
    assert line.endswith('"a": "/w==", "b": "2020-01-02", "c": {"d": [null]}, "e": "שלום\\u2028\\u0085"}')
