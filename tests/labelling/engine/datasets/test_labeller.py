"""`raysp.Labeller` on tables, without Ray."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests.corpora import CHECKPOINT
from tests.labelling.engine.datasets.conftest import COLUMNS, assert_same_rows, by_id, stored_schema

pytestmark = pytest.mark.lengthy
PLAIN = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]


@pytest.mark.slow
def test_a_table_gets_the_columns_and_rows_of_its_label_shard(steps, rows, labelled_sink, label_rows):
    with raysp.Labeller(steps, **COLUMNS) as labeller:
        found = labeller(rows)
    assert stored_schema(found) == pq.read_schema(labelled_sink / "part-0.parquet").remove_metadata()
    assert found.column("id").to_pylist() == rows.column("id").to_pylist()
    types = {row["error_type"] for row in by_id(found).values()}
    assert types >= {"no_audio", "unsupported_format", "filtered", None, "step_failed"}
    assert max(row["seconds"] for row in label_rows.values() if row["status"] == "ok") > 0.5  # of several windows
    assert_same_rows(by_id(found), label_rows)


def test_without_ids_and_row_numbers_both_are_null(rows):
    with raysp.Labeller(PLAIN, id=None) as labeller:
        found = labeller(rows.slice(1, 1).select(["audio"]))
        with pytest.raises(PlanError, match=r'found rows as a dict, .* batch_format="pyarrow"'):
            labeller({"id": ["a"]})
    assert (found.schema.field("id").type, found.schema.field("row").type) == (pa.string(), pa.int64())
    assert found.select(["id", "row", "status"]).to_pylist() == [{"id": None, "row": None, "status": "ok"}]
    sampled = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(generate={"do_sample": True})])
    with pytest.raises(raysp.SpecError, match="draws by the id of a row"):
        raysp.Labeller([raysp.Decode(), sampled], id=None)
