"""The verbs run and retry in this process: summaries and exit codes."""

import json

import pyarrow as pa
import pytest

from tests import kit
from tests.commands import RECIPE, write_recipe
from tests.corpora import a_pipeline, rows_table, write_shard
from tests.here import run_without_ray


@pytest.mark.parametrize("rows", [0, 1])
def test_a_complete_run_whose_label_shards_hold_no_row_exits_0(raysp_command, tmp_path, rows):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(rows))
    filtered = 'raysp.Decode(), raysp.Keep(where=[("language", "==", "fr")])'
    text = RECIPE.replace("{sink!r}", "{sink!r}, rows='ok'").replace("raysp.Decode()", filtered)
    ran = raysp_command("run", write_recipe(tmp_path, text), "--engine", "here")
    assert ran.code == 0, ran.err
    assert "no row of this run is ok, and the label shards hold no others (rows='ok')" in ran.out
    assert "1 of 1 shard committed" in ran.out


class TestRowsWithoutLabels:
    @pytest.fixture(autouse=True)
    def _here(self, monkeypatch):
        run_without_ray(monkeypatch)

    @pytest.mark.slow
    @pytest.mark.parametrize("arguments", [(), ("--rows", "2"), ("--json",)])
    def test_a_run_that_labels_no_row_ends_with_exit_code_3_the_reason_and_the_remedy(
        self, raysp_command, recipe, tmp_path, arguments
    ):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=b"no audio at all"))
        ran = raysp_command("run", recipe, *arguments)
        assert ran.code == 3
        said = json.loads(ran.out)["nothing_labelled"] if "--json" in arguments else ran.complaints[-1]
        number = 2 if "--rows" in arguments else 3
        assert f"0 of {number} rows were labelled ({number} unsupported_format); for example a.parquet row 0" in said
        assert "(id 'u0'): unsupported_format: " in said
        assert "For unsupported_format: convert the recordings to FLAC" in said

    @pytest.mark.slow
    def test_the_same_command_again_ends_with_exit_code_3_too_until_a_row_has_a_label(
        self, raysp_command, recipe, tmp_path
    ):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(2, audio=b"no audio at all"))
        raysp_command("run", recipe)
        ran = raysp_command("run", recipe)
        assert ran.code == 3
        assert "0 of 2 rows have a label (2 unsupported_format). For unsupported_format: convert" in ran.err
        assert f"once fixed   raysp retry {recipe}\n" in ran.out
        write_shard(tmp_path / "in" / "b.parquet", 1)
        assert [raysp_command("run", recipe).code for _ in range(2)] == [0, 0]

    @pytest.mark.slow
    def test_a_retry_without_a_new_label_ends_with_exit_code_3_too(self, raysp_command, recipe, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=b"no audio at all"))
        raysp_command("run", recipe)
        ran = raysp_command("retry", recipe)
        assert (ran.code, ran.complaints[-1].count("For unsupported_format")) == (3, 1)

    @pytest.mark.slow
    @pytest.mark.parametrize("change", ["steps.1.overlap_seconds=2", "source.text=text", "source.url={tmp}/other"])
    def test_a_sink_without_results_accepts_any_pipeline(self, raysp_command, recipe, tmp_path, change):
        write_shard(tmp_path / "other" / "x" / "c.parquet", 2)
        write_shard(tmp_path / "in" / "b.parquet", 2)
        kit.begun(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"), tmp_path / "in")
        settings = ("--set", change.format(tmp=tmp_path))
        ran = raysp_command("run", recipe, *settings)
        assert (ran.code, "rows to do" in ran.err) == (0, True)
        found = json.loads(raysp_command("status", tmp_path / "out", "--json").out)
        number = 1 if "other" in change else 2
        assert (found["shards"], found["shards_committed"], found["failed"]) == (number, number, {})
        assert raysp_command("verify", recipe, *settings).code == 0
        ran = raysp_command("run", recipe)
        assert (ran.code, "undo the change" in ran.err) == (2, True)

    @pytest.mark.slow
    def test_a_sink_of_a_run_stopped_by_errors_accepts_any_pipeline(self, raysp_command, recipe, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(30, audio=b"no audio at all"))
        ran = raysp_command("run", recipe)
        assert (ran.code, "30 of 30 rows failed" in ran.err) == (1, True)
        write_shard(tmp_path / "in" / "a.parquet", 2)
        assert raysp_command("run", recipe, "--set", "steps.1.overlap_seconds=2").code == 0

    @pytest.mark.slow
    def test_a_shard_without_rows_is_committed(self, raysp_command, recipe, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(1).slice(1))
        write_shard(tmp_path / "in" / "b.parquet", table=pa.table({"id": pa.nulls(0), "audio": pa.nulls(0)}))
        ran = raysp_command("run", recipe)
        assert (ran.code, "2 of 2 shards committed" in ran.out) == (0, True)
        ran = raysp_command("run", recipe)
        assert (ran.code, "nothing to do, 2 of 2 shards" in ran.out) == (0, True)
        assert raysp_command("run", recipe, "--rows", "3").code == 0
        assert raysp_command("verify", recipe).code == 0


@pytest.mark.parametrize(
    ("outputs", "shown"),
    [
        ("raysp.Embedding(), raysp.Transcript('said')", "of 6 reference words in 3 labelled rows"),
        ("raysp.Embedding()", None),
    ],
)
def test_a_run_whose_first_output_is_not_a_transcript_compares_the_first_transcript(
    raysp_command, tmp_path, outputs, shown
):
    write_shard(tmp_path / "in" / "a.parquet", 3)
    text = RECIPE.replace("{source!r}", "{source!r}, text='text'").replace("raysp.Transcript()", outputs)
    ran = raysp_command("run", write_recipe(tmp_path, text), "--engine", "here")
    assert ran.code == 0, ran.err
    assert ("word errors" in ran.out) == (shown is not None)
    assert shown is None or shown in ran.out
