"""Values of labels as tables in a terminal show them: short text."""

import pytest

from raysp.cli.printed_runs import cell  # the smallest part that shows each kind of value


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
def test_a_value_is_short_text(value: object, text: str) -> None:
    assert cell(value) == text


def test_no_value_is_a_dash() -> None:
    assert cell(None) == "-"


def test_long_text_is_cut() -> None:
    assert [cell("x" * 120), cell("x" * 500)] == ["x" * 120, "x" * 119 + "…"]
