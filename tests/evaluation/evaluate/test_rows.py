"""References joined with label rows."""

import pyarrow as pa
import pytest

from raysp.corpus.shards import Shard
from raysp.evaluation.evaluate.evaluation_rows import join
from raysp.labelling.planning.references import References


def references(name, texts):
    shard = Shard(f"{name}.parquet", name, 1, "1", len(texts), "0" * 16, ())
    return References(shard, [f"{name}{row}" for row in range(len(texts))], texts, {"by": [name] * len(texts)})


def labels(*rows):
    names = ("status", "error_type", "seconds", "pred_text")
    kinds = (pa.string(), pa.string(), pa.float64(), pa.string())
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return pa.table({name: pa.array(values, kind) for name, values, kind in zip(names, columns, kinds, strict=True)})


def test_rows_of_shards_that_failed_are_counted_and_have_no_labels():
    given = [references("a", ["x", None]), references("b", ["y"]), references("c", ["z"])]
    table = labels(("ok", None, 1.0, "x"), ("ok", None, 2.0, "?"), ("skipped", "filtered", 3.0, None))
    found = join(given, table, {"b.parquet"}, ("pred_text",))
    assert (found.counts.total, found.counts.compared, found.counts.uncommitted) == (4, 1, 1)
    assert (found.counts.without_reference, found.counts.skipped) == (1, {"filtered": 1})
    assert (found.ids, found.places, found.others) == (["a0"], [("a.parquet", 0)], {"by": ["a"]})
    assert found.counts.not_compared == ("1 without a reference", "1 in shards that failed", "1 skipped (filtered)")


def test_no_label_rows_at_all():
    found = join([references("a", ["x", None])], pa.table({}), {"a.parquet"}, ("pred_text", "score"))
    assert (found.counts.compared, found.counts.uncommitted, found.hypotheses) == (0, 1, [])


def test_embeddings_are_vectors_and_those_of_rows_without_one_are_none():
    table = labels(*[("ok", None, 1.0, None)] * 2, ("error", "a", None, None), ("ok", None, 1.0, None))
    for kind in (pa.float32(), pa.float16()):
        column = pa.array([[1, 2], None, None, [3, 4]], pa.list_(kind, 2))
        found = join([references("a", ["x", "y", "y", "x"])], table.append_column("vector", column), {}, ("vector",))
        assert [None if one is None else one.tolist() for one in found.vectors] == [[1, 2], None, [3, 4]]
        assert found.hypotheses == found.scores == [None] * 3
        assert found.references == ["x", "y", "x"]
    assert join([references("a", [None])], table.slice(0, 1), {}, ("pred_text",)).vectors == []


def test_reasons_are_sorted_by_frequency():
    table = labels(("error", "b", None, None), ("error", "a", None, None), ("error", "a", None, None))
    found = join([references("a", ["x", "y", "z"])], table, {}, ("pred_text",))
    assert list(found.counts.errors.items()) == [("a", 2), ("b", 1)]
    assert found.counts.not_compared == ("2 errors (a)", "1 error (b)")


def test_another_number_of_label_rows_is_refused():
    with pytest.raises(ValueError, match="found 0 label rows for 1 rows"):
        join([references("a", ["x"])], labels(), {}, ("pred_text",))
