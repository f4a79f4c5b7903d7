"""Actors that cannot load their model."""

import pytest

import raysp
from raysp import RunError, run
from tests.labelling.engine.deadly import UnloadableTranscript


@pytest.fixture
def shards(write_shards):
    return write_shards(3, 2)


@pytest.mark.drivers
@pytest.mark.cluster
def test_a_run_continues_while_another_actor_can_load_and_names_the_node(
    local_ray, make_pipeline, shards, tmp_path, caplog
):
    outputs = [UnloadableTranscript(folder=str(tmp_path), failures=1)]
    result = run(make_pipeline(shards, outputs=outputs, pool=raysp.Pool(1)))
    assert (result.exit_code, result.rows) == (0, 6)
    said = [one.getMessage() for one in caplog.records if "failed to start" in one.getMessage()]
    assert len(said) == 1
    assert "starting another one: node " in said[0]
    assert "No space left on device" in said[0]


@pytest.mark.drivers
@pytest.mark.cluster
def test_a_run_of_which_no_actor_can_load_ends_with_the_reason_after_a_few(local_ray, make_pipeline, shards, tmp_path):
    outputs = [UnloadableTranscript(folder=str(tmp_path), failures=99)]
    with pytest.raises(
        RunError, match=r"node \S+: .*OSError: .*No space left on device.*Run again: committed labels are kept"
    ):
        run(make_pipeline(shards, outputs=outputs, pool=raysp.Pool(1)))
    assert len([*tmp_path.glob("load-*")]) == 3  # one more than are tolerated


@pytest.mark.drivers
@pytest.mark.cluster
def test_a_model_over_which_processes_crash_is_loaded_three_times(local_ray, make_pipeline, shards, tmp_path):
    outputs = [UnloadableTranscript(folder=str(tmp_path), failures=99, crashes=True)]
    with pytest.raises(RunError, match=r"3 consecutive processes crashed while loading this model.*lower pool.actors"):
        run(make_pipeline(shards, outputs=outputs, pool=raysp.Pool(1)))
    assert len([*tmp_path.glob("load-*")]) == 3
