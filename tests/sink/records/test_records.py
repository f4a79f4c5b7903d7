"""JSON records of a sink are values of their dataclasses, or are refused with the place of the first wrong value."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pytest

from raysp.sink import records
from raysp.sink.records import AnyFloat, Natural
from raysp.specs.values import JsonValue


@dataclass(frozen=True)
class Part:
    name: str
    rows: Natural


@dataclass(frozen=True)
class Record:
    parts: tuple[Part, ...]
    seconds: float
    place: tuple[str, Natural]
    is_last: bool = False
    loss: AnyFloat = 0.0
    size: float | None = None
    counts: Mapping[str, Natural] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    value: Mapping[str, JsonValue] = field(default_factory=dict)


GOOD = Record(
    (Part("a", 3),), 1.5, ("b", 7), True, math.inf, None, {"c": 1}, ("d",), {"e": [None, {"f": -1}, 1e300, "ü"]}
)
FIELDS = json.loads(json.dumps(asdict(GOOD)))


def test_a_record_is_read_as_it_was_written():
    assert records.parse(json.dumps(asdict(GOOD)), Record) == GOOD
    least = {"parts": [], "seconds": 2, "place": ["b", 0]}
    assert records.checked(least, Record) == Record((), 2.0, ("b", 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": "1.5"}, "seconds: found '1.5', expected a valid number"),
        ({"seconds": True}, "seconds: found True, expected a valid number"),
        ({"seconds": math.nan}, "seconds: found nan, expected a finite number"),
        ({"seconds": 10**400}, "seconds: found an integer of 1,329 bits, expected a finite number"),
        ({"parts": [{"name": "a"}]}, "parts: 0: lacks rows"),
        ({"parts": [{"name": "a", "rows": -1}]}, "parts: 0: rows: found -1, expected greater than or equal to 0"),
        ({"parts": [{"name": "a", "rows": 2**63}]}, "expected less than 9223372036854775808"),
        ({"parts": [{"name": "a", "rows": 1.0}]}, "parts: 0: rows: found 1.0, expected a valid integer"),
        ({"parts": [{"name": None, "rows": 1}]}, "parts: 0: name: found None, expected a valid string"),
        ({"parts": {"0": {}}}, r"parts: found {'0': {}}, expected a valid array"),
        ({"parts": ["a"]}, "parts: 0: found 'a', expected an object"),
        ({"place": ["b"]}, "place: lacks 1"),
        ({"is_last": 1}, "is_last: found 1, expected a valid boolean"),
        ({"size": "x"}, "size: found 'x', expected a valid number"),
        ({"counts": {"c": None}}, "counts: c: found None, expected a valid integer"),
        ({"more": 1}, "more: no such field"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_place(change, message):
    with pytest.raises(ValueError, match=message):
        records.checked({**FIELDS, **change}, Record)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\0" * 100, b"\xff\xfe\xfd", b"[" * 10**6, b'{"a":' * 10**6, b'{"seconds": 1e}', b"[]", b"1", b"null"],
)
def test_data_that_are_no_record_are_a_value_error(data):
    with pytest.raises(ValueError, match=r"\S"):
        records.parse(data, Record)
