"""Lines of JSON for any values."""

import datetime
import json
import math

from hypothesis import given
from hypothesis import strategies as st

from raysp.text.formats.safe_values import json_line, valid
from tests.text.formats.spans import TEXTS


@given(st.dictionaries(TEXTS, st.one_of(TEXTS, st.floats(), st.integers(), st.none(), st.lists(TEXTS, max_size=3))))
def test_a_row_is_one_line_that_reads_back(values):
    line = json_line(values)
    assert line.splitlines() == [line[:-1]]
    line.encode()

    def plain(value):
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, list):
            return [valid(one) for one in value]
        return valid(value) if isinstance(value, str) else value

    assert json.loads(line, parse_constant=lambda name: 1 / 0) == {valid(k): plain(v) for k, v in values.items()}


def test_bytes_and_dates_are_texts_and_scripts_are_readable():
    line = json_line({"a": b"\xff", "b": datetime.date(2020, 1, 2), "c": {"d": [float("nan")]}, "e": "שלום\u2028"})
    assert line == '{"a": "/w==", "b": "2020-01-02", "c": {"d": [null]}, "e": "שלום\\u2028"}\n'
