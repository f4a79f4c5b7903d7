"""The vocabulary: what steps add and read, and what clashes."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp import SpecError
from tests import corpora
from tests.corpora import a_pipeline
from tests.user_specs import Pitch, odd_rows


@given(st.integers(1, 99), st.integers(0, 99))
def test_a_pool_of_one_number_has_equal_bounds_and_a_pair_is_low_and_high(low, more):
    assert (raysp.Pool(low).low, raysp.Pool(low).high) == (low, low)
    assert (raysp.Pool((low, low + more)).low, raysp.Pool([low, low + more]).high) == (low, low + more)


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True))
def test_a_transcript_adds_a_text_and_a_score_under_its_name(name):
    transcript = raysp.Transcript(name)
    assert transcript.columns == (f"{name}_text", f"{name}_score")
    assert transcript.schema(None) == pa.schema({f"{name}_text": pa.string(), f"{name}_score": pa.float32()})


def test_a_label_step_adds_the_columns_of_its_outputs_in_order():
    label = raysp.Label("c", outputs=[Pitch(), raysp.Transcript("x")])
    assert label.columns == ("pitch_hz", "x_text", "x_score")


def test_steps_that_only_leave_rows_out_add_no_column():
    assert raysp.Decode().columns == raysp.Keep(1).columns == ()


def test_keep_lists_the_columns_it_reads():
    assert raysp.Keep(where=[("a", "==", 1), ("b", "in", ["x"])]).reads == ("a", "b")
    assert raysp.Keep(1).reads == raysp.Keep(where="module:function").reads == ()


def test_keep_reports_whether_it_needs_decoded_audio():
    assert raysp.Keep(0).reads_seconds
    assert raysp.Keep(max_seconds=1).reads_seconds
    assert not raysp.Keep(where=[("a", "==", 1)]).reads_seconds


def test_two_outputs_of_one_name_clash_and_both_are_named():
    with pytest.raises(
        SpecError, match=r"two columns would be named 'pred_text': one of Transcript\(name='pred'\), one"
    ):
        raysp.Label("c", outputs=[raysp.Transcript(), raysp.Transcript()])


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


def test_every_label_shard_has_the_columns_of_the_data_contract(tmp_path):
    sink = corpora.labelled(tmp_path, {"pred_text": ["one"]}, source={"speaker": ["a"]})
    names = ["id", "speaker", "row", "seconds", "status", "error_type", "error_message"]
    assert pq.read_schema(sink / "a.parquet").names[:7] == names
