"""Views in Arrow columns are replaced by types that every kernel takes, value for value and within bounds."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raysp
from raysp.corpus.pages import BATCH_BYTES
from raysp.corpus.views import parts_of, table_without_views, without_views
from tests.corpora import a_pipeline, label_here, rows_table

TEXT, NUMBER = pa.string_view(), pa.int32()
KINDS = [
    TEXT,
    pa.binary_view(),
    pa.list_view(NUMBER),
    pa.large_list_view(TEXT),
    pa.struct([("a", pa.list_view(TEXT)), ("b", NUMBER)]),
    pa.list_(pa.list_view(NUMBER)),
    pa.large_list(pa.struct([("a", TEXT)])),
    pa.list_view(pa.struct([("a", pa.list_view(TEXT))])),
    pa.list_(pa.list_view(NUMBER), 2),
    pa.list_(TEXT, 2),
    pa.map_(pa.string(), pa.list_view(NUMBER)),
]


def values(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Return values of a type, null among them."""
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    if isinstance(kind, pa.MapType):
        return st.none() | st.lists(st.tuples(st.sampled_from(["k", "l"]), values(kind.item_type)), max_size=2)
    if pa.types.is_fixed_size_list(kind):
        return st.none() | st.lists(values(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    if kind == NUMBER:
        return st.none() | st.integers(0, 9)
    if kind == TEXT:
        return st.none() | st.sampled_from(["", "six", "a text that is longer than a view"])
    if kind == pa.binary_view():
        return st.none() | st.sampled_from([b"", b"six", b"bytes that are longer than a view"])
    return st.none() | st.lists(values(kind.value_type), max_size=3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_value_changes_without_views(kind):
    @given(st.lists(values(kind), max_size=8), st.integers(0, 3))
    def check(rows, first):
        table = pa.table({"c": pa.chunked_array([pa.array(rows, kind).slice(first), pa.array(rows, kind)])})
        found = table_without_views(table)
        found.validate(full=True)
        assert found.schema.field("c").type == without_views(kind)
        assert found.column("c").to_pylist() == [*rows[first:], *rows]

    check()


def test_a_kept_column_of_list_views_has_its_values_in_the_label_shard(tmp_path):
    (tmp_path / "in").mkdir()
    speakers = [["ana", "bo"], None, ["c" * 40]]
    table = rows_table(3).append_column("speakers", pa.array(speakers, pa.list_view(pa.string())))
    with pa.ipc.new_file(tmp_path / "in" / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    sink = raysp.Parquet(str(tmp_path / "out"), keep=["speakers"])
    label_here(a_pipeline(f"{tmp_path}/in", sink))
    assert pq.read_table(tmp_path / "out/a.parquet").column("speakers").to_pylist() == speakers


def test_lists_that_share_their_values_are_split_into_rows_within_bounds():
    shared = pa.array(np.zeros(8_000_000, np.uint8))
    lists = pa.ListViewArray.from_arrays(
        pa.array([0] * 200, pa.int32()), pa.array([8_000_000] * 200, pa.int32()), shared
    )
    batch = pa.record_batch({"lists": lists, "in structs": pa.StructArray.from_arrays([lists], ["a"])})
    parts = [part.num_rows for part in parts_of(batch)]
    assert sum(parts) == 200
    assert max(parts) * shared.nbytes <= BATCH_BYTES
