"""The vocabulary: what steps add and read, and what clashes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp import SpecError
from tests.corpora import a_pipeline
from tests.user_specs import odd_rows


@given(st.integers(1, 99), st.integers(0, 99))
def test_a_pool_of_one_number_has_equal_bounds_and_a_pair_is_low_and_high(low, more):
    assert (raysp.Pool(low).low, raysp.Pool(low).high) == (low, low)
    assert (raysp.Pool((low, low + more)).low, raysp.Pool([low, low + more]).high) == (low, low + more)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3, unique=True), max_size=4))
def test_columns_clash_exactly_when_one_name_comes_twice(added):
    *steps, kept = added or [["z"]]
    owned = [(f"steps[{place}] Map", name) for place, names in enumerate(steps, 1) for name in names]
    owned += [("the sink's keep", name) for name in kept]
    maps = [raysp.Map(odd_rows, adds=dict.fromkeys(names, "string"), reads=["id"]) for names in steps]
    names = [name for _, name in owned]
    if len(set(names)) == len(names):
        a_pipeline(sink=raysp.Parquet("out", keep=kept), keep=maps)
        return
    twice = next(name for index, name in enumerate(names) if name in names[:index])
    first, second, *_ = (owner for owner, name in owned if name == twice)
    with pytest.raises(SpecError) as caught:
        a_pipeline(sink=raysp.Parquet("out", keep=kept), keep=maps)
    assert f"two columns would be named {twice!r}: one of {first}, one of {second}" in str(caught.value)
