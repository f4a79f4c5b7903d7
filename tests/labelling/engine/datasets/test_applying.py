"""`raysp.apply` in Ray Data programs, on a real Ray."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests.cluster.test_process_state import differing, plain, snapshot
from tests.labelling.engine.datasets.conftest import COLUMNS, assert_same_rows, by_id, stored_schema

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def table_of(dataset) -> pa.Table:
    return pa.concat_tables(list(dataset.iter_batches(batch_size=None, batch_format="pyarrow")))


def test_label_rows_are_those_of_a_run_and_the_calling_process_is_as_before(steps, shard, label_rows, labelled_sink):
    import ray.data

    given = ray.data.read_parquet(str(shard)).repartition(5)
    given.count()  # Ray Data sets itself up when it first runs
    own_context, before = plain(given.context), snapshot()
    labelled = raysp.apply(steps, given, **COLUMNS)
    assert differing(before) == []
    assert plain(given.context) == own_context
    found = table_of(labelled)
    assert_same_rows(by_id(found), label_rows)
    assert stored_schema(found) == pq.read_schema(labelled_sink / "part-0.parquet").remove_metadata()
    assert differing(before) == []
    executions = {"_execution_idx"}  # which Ray Data counts
    assert {name for name, value in plain(given.context).items() if value != own_context[name]} <= executions


def test_nothing_is_read_before_the_result_is_consumed_and_what_is_known_is_refused_at_once(steps, tmp_path):
    import ray.data

    seen = tmp_path / "seen"

    def counted(table: pa.Table) -> pa.Table:
        seen.touch()
        return table

    labelled = raysp.apply(steps, ray.data.range(3).map_batches(counted, batch_format="pyarrow"))
    assert not seen.exists()
    missing = "dataset: has no column 'audio', expected one; its columns are id"
    with pytest.raises(Exception, match=missing):
        labelled.take_all()
    assert seen.exists()
    with pytest.raises(PlanError, match=missing):
        raysp.apply(steps, ray.data.range(3))
    with pytest.raises(PlanError, match=r"found a list as dataset, expected a ray.data.Dataset"):
        raysp.apply(ray.data.range(3), steps)
    no_model = [raysp.Decode(), raysp.Label("no-such-model", outputs=[raysp.Transcript()])]
    with pytest.raises(raysp.CheckpointError, match="no-such-model"):
        raysp.apply(no_model, ray.data.range(3))
