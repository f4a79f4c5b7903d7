"""Labels as a notebook shows them: short text."""

import html
import re
from dataclasses import replace

import pyarrow as pa
import pytest

import raysp
from tests import kit


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """A try-out, whose table a test replaces."""
    folder = tmp_path_factory.mktemp("tried")
    return raysp.run(kit.corpus(folder, 1).pipeline(folder / "out"), rows=1, engine="here", progress=False)


def shown(tried, *values: object) -> list[str]:
    """Return the values of a column as the result shows them."""
    found = replace(tried, table=pa.table({"value": pa.array(values)}))._repr_html_()
    assert "<th>value</th>" in found
    return [html.unescape(one) for one in re.findall("<tr><td>(.*?)</td></tr>", found, re.DOTALL)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (-0.00021, "-0.0002"),
        (0.0005, "0.001"),
        (0.0, "0.000"),
        ("THREE", "THREE"),
        (["a", "b"], "a, b"),
        ([0.5, 0.25], "0.500, 0.250"),
        ([0.5, 0.25, 0.125], "0.500, 0.250, 0.125"),
        ([0.1, -0.2, 0.3, 0.4], "0.100 -0.200 0.300 … (4 numbers)"),
        ([[0.1, 0.2, 0.3, 0.4]] * 7, "7 x 0.100 0.200 0.300 … (4 numbers)"),
        ([{"word": "ONE", "start": 0.1, "end": 0.52, "score": 0.9}], "ONE 0.10-0.52"),
        ([{"word": "ONE", "start": None, "end": None}, {"word": "B", "start": None, "end": 0.5}], "ONE -, B ?-0.50"),
        ([{"char": "O", "start": 1.0, "end": 2.0}], "O 1.00-2.00"),
        ([{"label": "spk1", "start": 1.0, "end": 2.0}] * 2, "spk1 1.00-2.00, spk1 1.00-2.00"),
        ([{"start": 1.0, "end": 2.0, "score": 0.5}], "1.00-2.00"),
        ([[{"word": "ONE", "start": 0.1, "end": 0.5}], None, []], "ONE 0.10-0.50; -; "),
        ([], ""),
        ([None, 1], "-, 1"),
        ({"text": "ONE", "score": 0.25, "any": None}, "text ONE, score 0.250"),
    ],
)
def test_a_value_is_short_text(tried, value: object, text: str) -> None:
    assert shown(tried, value) == [text]


def test_no_value_is_a_dash(tried) -> None:
    assert shown(tried, 0.25, None) == ["0.250", "-"]


def test_long_text_is_cut(tried) -> None:
    assert shown(tried, "x" * 120, "x" * 500) == ["x" * 120, "x" * 119 + "…"]


def test_a_column_without_a_value_is_left_out(tried) -> None:
    found = replace(tried, table=pa.table({"a": [1], "b": pa.nulls(1)}))._repr_html_()
    assert "<th>a</th></tr>" in found
