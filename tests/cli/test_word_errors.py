"""Word errors on the command line: of a run and of a sink, with their kinds."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands import RECIPE, write_recipe
from tests.corpora import DEMO, write_shard
from tests.here import run_without_ray

TEXTS = RECIPE.replace("raysp.Shards({source!r})", "raysp.Shards({source!r}, text='text')")
KINDS = ("substitutions", "insertions", "deletions")


@pytest.fixture
def labelled(raysp_command, tmp_path, monkeypatch):
    """Labels of three spoken digits, one of which has two words too many, one none; and what the run printed."""
    run_without_ray(monkeypatch)
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 3)
    references = [f"{table['text'][0].as_py()} and more", "", table["text"][2].as_py()]
    column = table.column_names.index("text")
    write_shard(tmp_path / "in" / "a.parquet", table=table.set_column(column, "text", pa.array(references)))
    return json.loads(raysp_command("run", write_recipe(tmp_path, TEXTS), "--json").out)


@pytest.mark.slow
def test_the_json_of_a_run_and_of_its_sink_have_the_rate_and_each_kind(raysp_command, tmp_path, labelled):
    errors = labelled["word_errors"]
    assert (errors["rows"], errors["words"], errors["unlabelled"]) == (3, 4, 0)
    assert errors["deletions"] >= 1
    assert labelled["word_error_rate"] == sum(errors[kind] for kind in KINDS) / 4
    status = json.loads(raysp_command("status", tmp_path / "out", "--json").out)
    assert (status["word_errors"], status["word_error_rate"]) == (errors, labelled["word_error_rate"])


@pytest.mark.slow
@pytest.mark.usefixtures("labelled")
def test_without_references_both_are_null(raysp_command, tmp_path):
    recipe = write_recipe(tmp_path, sink=f"{tmp_path}/other")
    for ran in (raysp_command("run", recipe, "--json"), raysp_command("status", f"{tmp_path}/other", "--json")):
        found = json.loads(ran.out)
        assert (found["word_errors"], found["word_error_rate"]) == (None, None)
