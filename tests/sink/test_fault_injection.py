"""RAYSP_FAIL_AT kills a run at a passing of a phase, in whichever process it is counted."""

import pytest

from tests.corpora import a_pipeline, write_shard
from tests.kit import label_shards, pipeline_file, run

PHASES = "plan_written, piece_staged, shard_committed, stage_removed, run_finished"


@pytest.fixture
def line(tmp_path) -> list[object]:
    """A run over three shards of a row each."""
    for name in "abc":
        write_shard(tmp_path / "in" / f"{name}.parquet", 1)
    return ["run", pipeline_file(tmp_path / "made.py", a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"))]


@pytest.mark.parametrize("value", ["shard_committed:1", "after_lunch:1"])
def test_an_invalid_value_is_refused_with_the_expected_ones(tmp_path, line, value):
    found = run(line, RAYSP_FAIL_AT=value)
    assert found.code == 2
    assert f"RAYSP_FAIL_AT='{value}': expected before_ or after_, one of {PHASES}, " in found.err
    assert found.err.rstrip().endswith("and a count from 1, such as after_shard_committed:2")
    assert label_shards(tmp_path / "out") == {}
