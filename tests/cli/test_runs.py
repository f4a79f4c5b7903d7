"""The verbs run and retry: summaries and exit codes of runs that label no row."""

import json

import pyarrow as pa
import pytest

from tests.commands import RECIPE, write_recipe
from tests.corpora import rows_table, write_shard


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.setenv("RAYSP_ENGINE", "here")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_complete_run_whose_label_shards_hold_no_row_exits_0(raysp_command, tmp_path, rows):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(rows))
    filtered = 'raysp.Decode(), raysp.Keep(where=[("language", "==", "fr")])'
    text = RECIPE.replace("{sink!r}", "{sink!r}, rows='ok'").replace("raysp.Decode()", filtered)
    ran = raysp_command("run", write_recipe(tmp_path, text))
    assert ran.code == 0, ran.err
    assert "no row of this run is ok, and the label shards hold no others (rows='ok')" in ran.out
    assert "1 of 1 shard committed" in ran.out


@pytest.mark.slow
def test_commands_without_a_new_label_end_with_exit_code_3_the_reason_and_the_remedy(raysp_command, recipe, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=b"no audio at all"))
    for expected, *options in (
        ("0 of 2 rows were labelled (2 unsupported_format); for example a.parquet row 0 (id 'u0'): ", "--rows", "2"),
        ("0 of 3 rows were labelled (3 unsupported_format)",),
        ("0 of 3 rows have a label", "--json"),
    ):
        ran = raysp_command("run", recipe, *options)
        said = json.loads(ran.out)["nothing_labelled"] if "--json" in options else ran.complaints[-1]
        assert (ran.code, "For unsupported_format: convert the recordings to FLAC" in said) == (3, True)
        assert expected in said
    ran = raysp_command("retry", recipe)
    assert (ran.code, ran.complaints[-1].count("For unsupported_format")) == (3, 1)
    write_shard(tmp_path / "in" / "b.parquet", 1)
    assert [raysp_command("run", recipe).code for _ in range(2)] == [0, 0]


@pytest.mark.slow
def test_a_sink_without_results_as_of_a_run_stopped_by_errors_accepts_any_pipeline(raysp_command, recipe, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(30, audio=b"no audio at all"))
    ran = raysp_command("run", recipe)
    assert (ran.code, "30 of 30 rows failed" in ran.err) == (1, True)
    write_shard(tmp_path / "other" / "x" / "c.parquet", 2)
    settings = ("--set", "steps.1.overlap_seconds=2", "--set", f"source.url={tmp_path}/other")
    ran = raysp_command("run", recipe, *settings)
    assert (ran.code, "rows to do" in ran.err) == (0, True)
    found = json.loads(raysp_command("status", tmp_path / "out", "--json").out)
    assert (found["shards"], found["shards_committed"], found["failed"]) == (1, 1, {})
    assert raysp_command("verify", recipe, *settings).code == 0
    ran = raysp_command("run", recipe)
    assert (ran.code, "undo the change" in ran.err) == (2, True)


@pytest.mark.slow
def test_a_shard_without_rows_is_committed(raysp_command, recipe, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(1).slice(1))
    write_shard(tmp_path / "in" / "b.parquet", table=pa.table({"id": pa.nulls(0), "audio": pa.nulls(0)}))
    for said in ("2 of 2 shards committed", "nothing to do, 2 of 2 shards"):
        ran = raysp_command("run", recipe)
        assert (ran.code, said in ran.out) == (0, True)
    assert raysp_command("run", recipe, "--rows", "3").code == 0
    assert raysp_command("verify", recipe).code == 0
