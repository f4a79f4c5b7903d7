"""Actors that cannot load their model."""

import pytest

import raysp
from raysp import RunError, run
from tests.labelling.engine.deadly import UnloadableTranscript

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.usefixtures("local_ray")]


def test_a_run_continues_while_another_actor_can_load_and_names_the_node(make_pipeline, write_shards, tmp_path, caplog):
    outputs = [UnloadableTranscript(folder=str(tmp_path), failures=1)]
    result = run(make_pipeline(write_shards(2, 1), outputs=outputs, pool=raysp.Pool(1)))
    assert (result.exit_code, result.rows) == (0, 2)
    [said] = [one.getMessage() for one in caplog.records if "failed to start" in one.getMessage()]
    assert "starting another one: node " in said
    assert "No space left on device" in said


@pytest.mark.parametrize(
    ("crashes", "message"),
    [
        (False, r"node \S+: .*OSError: .*No space left on device.*Run again: committed labels are kept"),
        (True, r"3 consecutive processes crashed while loading this model.*lower pool.actors"),
    ],
)
def test_a_model_that_no_actor_can_load_ends_the_run_after_three(
    make_pipeline, write_shards, tmp_path, crashes, message
):
    outputs = [UnloadableTranscript(folder=str(tmp_path), failures=99, crashes=crashes)]
    with pytest.raises(RunError, match=message):
        run(make_pipeline(write_shards(1, 1), outputs=outputs, pool=raysp.Pool(1)))
    assert len([*tmp_path.glob("load-*")]) == 3  # one more than are tolerated
