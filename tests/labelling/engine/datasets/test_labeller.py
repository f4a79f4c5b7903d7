"""`raysp.Labeller` on tables, without Ray."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests.corpora import CHECKPOINT
from tests.labelling.engine.datasets.comparing import assert_same_rows, by_id, stored_schema
from tests.labelling.engine.datasets.conftest import COLUMNS

pytestmark = pytest.mark.lengthy


@pytest.fixture(scope="module")
def labeller(steps):
    with raysp.Labeller(steps, **COLUMNS) as found:
        yield found


@pytest.fixture(scope="module")
def plain():
    with raysp.Labeller([raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]) as found:
        yield found


@pytest.mark.slow
def test_a_table_gets_the_columns_and_rows_of_its_label_shard(labeller, rows, shard, labelled_sink, label_rows):
    found = labeller(rows)
    assert stored_schema(found) == pq.read_schema(labelled_sink / "a.parquet").remove_metadata()
    assert found.column("id").to_pylist() == rows.column("id").to_pylist()
    assert {row["error_type"] for row in by_id(found).values()} >= {
        "no_audio",
        "unsupported_format",
        "filtered",
        None,
        "step_failed",
    }
    assert len(by_id(found)["long"]["pred_words"]) > 10
    assert_same_rows(by_id(found), label_rows)


def test_without_ids_and_row_numbers_both_are_null(rows):
    with raysp.Labeller(
        [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])], id=None
    ) as labeller:
        found = labeller(rows.slice(1, 1).select(["audio"]))
    assert found.schema.field("id").type == pa.string()
    assert found.schema.field("row").type == pa.int64()
    assert (found.column("id").to_pylist(), found.column("row").to_pylist()) == ([None], [None])
    assert found.column("status").to_pylist() == ["ok"]
    sampled = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(generate={"do_sample": True})])
    with pytest.raises(raysp.SpecError, match="draws by the id of a row"):
        raysp.Labeller([raysp.Decode(), sampled], id=None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"id": ["a"], "sound": [b""]},
            "dataset: has no column 'audio', expected one; its columns are id, sound. Name other columns by audio=",
        ),
        ({"name": ["a"], "audio": [b""]}, "dataset: has no column 'id', expected one; its columns are name, audio"),
        ({"id": ["a"], "audio": ["a.wav"]}, "column 'audio' is string. Of paths, set source.audio_root to the folder"),
        ({"id": ["a"], "audio": [{"array": [0.5], "sampling_rate": 8}]}, "column 'audio' is struct<array: list<"),
    ],
)
def test_missing_columns_and_other_types_are_refused(plain, rows, message):
    with pytest.raises(PlanError, match=f".*{message}".replace("(", r"\(")) as found:
        plain(pa.table(rows))
    assert message in str(found.value)


def test_batches_of_another_format_are_refused_with_the_format_to_ask_for(plain):
    with pytest.raises(PlanError, match=r'found rows as a dict, .* batch_format="pyarrow"'):
        plain({"id": ["a"]})
