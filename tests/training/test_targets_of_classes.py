"""Targets of classification: classes of a corpus or given ones, rows that are left out, columns that are refused."""

import pyarrow as pa
import pytest

import raysp
from raysp import Classify, Finetune, PlanError, finetune
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table
from tests.training.trained import planned

TEXTS, LISTS = pa.string(), pa.list_(pa.string())


def of_classes(folder, checkpoint, values, kind, **fields) -> Finetune:
    """Make a recipe over a row for each value."""
    table = words_table(len(values)).append_column("target", pa.array(values, kind))
    write_shard(folder / "in" / "a.parquet", table=table)
    objective = Classify(str(checkpoint), **{"column": "target", **fields})
    source = raysp.Shards(f"{folder}/in/*.parquet")
    return a_recipe("", checkpoint, folder / "out", source=source, objective=objective)


@pytest.mark.parametrize(
    ("values", "kind", "fields", "names", "left_out"),
    [
        (["b", "a", None, "", "a"], TEXTS, {}, ("a", "b"), {"no_class": 2}),
        (["b", "a", "c"], TEXTS, {"classes": ["b", "a"]}, ("b", "a"), {"unknown_class": 1}),
        ([10, 9, None], pa.int64(), {}, ("9", "10"), {"no_class": 1}),
        (["10", "9", "a"], TEXTS, {}, ("10", "9", "a"), {}),
        (["a", "b"], pa.dictionary(pa.int8(), TEXTS), {}, ("a", "b"), {}),
    ],
)
def test_every_row_has_a_class_or_a_reason(headless, tmp_path, values, kind, fields, names, left_out):
    found = planned(of_classes(tmp_path, headless, values, kind, **fields))
    assert found["classes"] == [*names]
    assert found["left_out"] == left_out
    assert found["rows_trained"] == len(values) - sum(left_out.values())


def test_facts_name_the_classes_with_their_rows_and_what_is_none_of_them(headless, tmp_path):
    values = ["b", "a", "c", "b"]
    assert planned(of_classes(tmp_path, headless, values, TEXTS)).facts["classes"] == "3 classes: b (2), a (1), c (1)"
    found = planned(of_classes(tmp_path, headless, values, TEXTS, classes=["a", "b"]))
    assert found.facts["classes"] == "2 classes: b (2), a (1); unknown: c (1)"
    assert found.facts["objective"] == "Classify, of the column target"


@pytest.mark.parametrize(
    ("values", "kind", "fields", "message"),
    [
        ([["a"]], LISTS, {}, r"column 'target' holds list<.*>, expected strings or integers, one for each row"),
        (["a", "a"], TEXTS, {}, r"objective.column: 'target' holds 'a', expected at least 2 classes"),
        ([None, None], TEXTS, {}, r"no row is left to train on: 2 rows, left out: 2 no_class"),
    ],
)
def test_what_holds_no_classes_is_refused(headless, tmp_path, values, kind, fields, message):
    with pytest.raises(PlanError, match=message):
        finetune(of_classes(tmp_path, headless, values, kind, **fields))
