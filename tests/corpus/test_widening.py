import decimal

import pyarrow as pa
import pytest

from raysp.corpus.widening import cast_column, common_type, common_type_in_json

WIDER = [
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint32(), pa.int32(), pa.int64()),
    (pa.uint8(), pa.uint16(), pa.uint16()),
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.int32(), pa.float32(), pa.float64()),
    (pa.int16(), pa.float32(), pa.float32()),
    (pa.null(), pa.list_(pa.int8()), pa.list_(pa.int8())),
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.binary(4), pa.binary(), pa.binary()),
    (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
    (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string()), pa.string()),
    (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.duration("s"), pa.duration("ns"), pa.duration("ns")),
    (pa.time32("ms"), pa.time64("us"), pa.time64("us")),
    (pa.date32(), pa.date64(), pa.date64()),
    (pa.decimal128(5, 2), pa.decimal128(6, 1), pa.decimal128(7, 2)),
    (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
    (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
    (pa.list_(pa.float32(), 2), pa.list_(pa.float32(), 3), pa.list_(pa.float32())),
    (pa.list_(pa.field("item", pa.int8(), nullable=False)), pa.list_(pa.int8()), pa.list_(pa.int8())),
    (pa.struct([("a", pa.null())]), pa.struct([("a", pa.string())]), pa.struct([("a", pa.string())])),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16()), pa.map_(pa.string(), pa.int16())),
    (pa.uuid(), pa.binary(16), pa.binary(16)),
]


@pytest.mark.parametrize(("one", "other", "expected"), WIDER, ids=str)
def test_the_common_type_holds_both_and_both_can_be_cast(one, other, expected):
    for first, second in ((one, other), (other, one)):
        assert common_type(first, second) == expected
        for rows in (0, 2):
            column = pa.chunked_array([pa.nulls(rows, first)])
            assert cast_column(column, expected).type == expected


APART = [
    (pa.int64(), pa.string()),
    (pa.int64(), pa.float64()),
    (pa.uint64(), pa.int8()),
    (pa.bool_(), pa.int8()),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin")),
    (pa.date32(), pa.timestamp("us")),
    (pa.string(), pa.binary()),
    (pa.list_(pa.int64()), pa.int64()),
    (pa.list_(pa.int64()), pa.list_(pa.string())),
    (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())])),
    (pa.decimal128(5, 2), pa.float64()),
    (pa.dictionary(pa.int8(), pa.string()), pa.int64()),
]


@pytest.mark.parametrize(("one", "other"), APART, ids=str)
def test_types_whose_values_no_type_holds_have_none(one, other):
    assert common_type(one, other) is common_type(other, one) is None


def test_values_of_json_become_text_as_within_a_shard():
    assert common_type_in_json(pa.int64(), pa.string()) == pa.string()
    assert common_type_in_json(pa.int64(), pa.float64()) == pa.float64()
    assert common_type_in_json(pa.bool_(), pa.int64()) == pa.string()
    assert cast_column(pa.chunked_array([[1, None]]), pa.string()).to_pylist() == ["1", None]
    assert cast_column(pa.chunked_array([[0.5, 2.0]]), pa.string()).to_pylist() == ["0.5", "2"]
    assert cast_column(pa.chunked_array([[True]]), pa.string()).to_pylist() == ["true"]


def test_a_cast_that_loses_a_value_is_refused():
    with pytest.raises(pa.ArrowInvalid):
        cast_column(pa.chunked_array([[2**53 + 1]]), pa.float64())
    exact = pa.chunked_array([pa.array([decimal.Decimal("1.25")])])
    with pytest.raises(pa.ArrowInvalid):
        cast_column(exact, pa.decimal128(5, 1))
