"""`raysp.apply` and `raysp.Labeller` in Ray Data programs, on a real Ray."""

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests.cluster.test_process_state import differing, plain, snapshot
from tests.labelling.engine.datasets.comparing import assert_same_rows, by_id, stored_schema
from tests.labelling.engine.datasets.conftest import COLUMNS

if TYPE_CHECKING:
    pass

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def dataset(shard):
    """Return a function that makes datasets of the rows."""
    import ray.data

    def make():
        return ray.data.read_parquet(str(shard))

    return make


def table_of(dataset) -> pa.Table:
    return pa.concat_tables(list(dataset.iter_batches(batch_size=None, batch_format="pyarrow")))


def test_label_rows_are_those_of_a_run_whatever_the_blocks(steps, dataset, rows, label_rows, labelled_sink):
    for one in (dataset(), dataset().repartition(rows.num_rows)):
        found = table_of(raysp.apply(steps, one, **COLUMNS))
        assert_same_rows(by_id(found), label_rows)
    assert stored_schema(found) == pq.read_schema(labelled_sink / "a.parquet").remove_metadata()


def test_the_calling_process_and_its_dataset_are_as_before(steps, dataset):
    def unchanged(table: pa.Table) -> pa.Table:
        return table

    given = dataset()
    table_of(dataset().map_batches(unchanged, batch_format="pyarrow"))  # Ray Data sets itself up when it first runs
    own_context, before = plain(given.context), snapshot()
    labelled = raysp.apply(steps, given, **COLUMNS)
    assert differing(before) == []
    assert plain(given.context) == own_context
    assert table_of(labelled.limit(2)).num_rows == 2
    assert differing(before) == []
    executions = {"_execution_idx"}  # which Ray Data counts
    assert {name for name, value in plain(given.context).items() if value != own_context[name]} <= executions


def test_nothing_is_read_before_the_result_is_consumed(steps, tmp_path):
    import ray.data

    seen = tmp_path / "seen"

    def counted(table: pa.Table) -> pa.Table:
        seen.touch()
        return table

    given = ray.data.range(3).map_batches(counted, batch_format="pyarrow")
    labelled = raysp.apply(steps, given)
    assert not seen.exists()
    with pytest.raises(Exception, match="dataset: has no column 'audio', expected one; its columns are id"):
        labelled.take_all()
    assert seen.exists()


def test_missing_columns_of_a_known_schema_and_swapped_arguments_are_refused_at_once(steps, dataset):
    import ray.data

    with pytest.raises(PlanError, match="dataset: has no column 'audio', expected one; its columns are id"):
        raysp.apply(steps, ray.data.range(3))
    with pytest.raises(PlanError, match=r"found a list as dataset, expected a ray.data.Dataset"):
        raysp.apply(dataset(), steps)
    no_model = [raysp.Decode(), raysp.Label("no-such-model", outputs=[raysp.Transcript()])]
    with pytest.raises(raysp.CheckpointError, match="no-such-model"):
        raysp.apply(no_model, dataset())
