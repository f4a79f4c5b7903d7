"""`raysp.Labeller` on tables, without Ray."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import PlanError, SpecError
from raysp.audio import isolation
from raysp.cluster.resources import ActorCpus
from raysp.labelling.engine.datasets.applying import BLOCKS_AT_ONCE, TableActor, _actors
from raysp.labelling.engine.datasets.table_job import TableColumns, table_job
from raysp.ops.labelling import Batch
from tests.corpora import CHECKPOINT
from tests.labelling.engine.datasets.comparing import assert_same_rows, by_id, stored_schema
from tests.labelling.engine.datasets.conftest import COLUMNS

pytestmark = pytest.mark.lengthy

MAIN_PROGRAM = """
import sys
import raysp
from ray import cloudpickle
from raysp.labelling.engine.datasets.table_job import TableColumns, table_job
from raysp.ops.step_ops import RowOp
from raysp.specs import spec
from raysp.specs.steps import Step

@spec
class Spoken(Step):
    column: str = "text"

    @property
    def reads(self):
        return (self.column,)

    def op(self, functions):
        return HasText(self.column)

class HasText(RowOp):
    def __init__(self, column):
        self.column = column

    def __call__(self, rows):
        return [None if text else "no text" for text in rows.column(self.column).to_pylist()]

def wanted(rows):
    return [name != "b" for name in rows.column("id").to_pylist()]

label = raysp.Label(sys.argv[1], outputs=[raysp.Transcript()])
steps = [Spoken(), raysp.Keep(where="__main__:wanted"), raysp.Decode(), label]
sys.stdout.buffer.write(cloudpickle.dumps(table_job(steps, TableColumns())))
"""


@pytest.fixture(scope="module")
def labeller(steps):
    with raysp.Labeller(steps, **COLUMNS) as found:
        yield found


@pytest.fixture(scope="module")
def plain():
    with raysp.Labeller([raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]) as found:
        yield found


@pytest.fixture(scope="module")
def job(steps):
    return table_job(steps, TableColumns(**COLUMNS))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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


def test_a_row_number_that_is_no_integer_and_a_filter_of_another_type_are_refused(rows):
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])
    by_text = table_job([raysp.Decode(), label], TableColumns(row="text"))
    with pytest.raises(PlanError, match="column 'text' is string, expected integers"):
        by_text.check(rows.schema)
    filtered = [raysp.Keep(where=[("place", "==", "x")]), raysp.Decode(), label]
    with pytest.raises(PlanError, match="dataset: Keep cannot compare 'place' == 'x'"):
        table_job(filtered, TableColumns()).check(rows.schema)


def test_batches_of_another_format_are_refused_with_the_format_to_ask_for(plain):
    with pytest.raises(PlanError, match=r'found rows as a dict, .* batch_format="pyarrow"'):
        plain({"id": ["a"]})


def test_steps_of_no_pipeline_and_columns_that_clash_are_refused_when_it_is_made():
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])
    with pytest.raises(SpecError, match="expected one Decode and at least one Label"):
        raysp.Labeller([label])
    with pytest.raises(SpecError, match="two columns would be named 'pred_text'"):
        raysp.Labeller([raysp.Decode(), label], keep=["pred_text"])


def test_samples_of_a_text_decoder_need_ids_to_draw_by():
    sampled = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(generate={"do_sample": True})])
    with pytest.raises(SpecError, match="draws by the id of a row"):
        raysp.Labeller([raysp.Decode(), sampled], id=None)


def test_samples_are_drawn_by_the_ids_of_rows_not_by_their_place(plain, rows, monkeypatch):
    seen, forward = [], Batch.forward

    def named(batch):
        results = forward(batch)
        seen.extend(results.rows.names)
        return results

    monkeypatch.setattr(Batch, "forward", named)  # names of windows reach no public result
    for first in (1, 2):
        plain(rows.slice(first, 1))
    assert seen == [f"{name}|0" for name in rows.column("id").to_pylist()[1:3]]


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_several_batches_at_once_give_the_same_rows_and_the_program_keeps_its_threads(steps, rows, label_rows):
    with raysp.Labeller(steps, **COLUMNS) as labeller:
        assert labeller._models[0].op.at_once == 2
        assert_same_rows(by_id(labeller(rows)), label_rows)
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(torch.get_num_threads).result() == 2


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_an_actor_of_several_cpus_labels_several_batches_of_a_table_at_once(job, rows, label_rows):
    [one] = job.passes
    job = replace(job, passes=(one._replace(settings=replace(one.settings, cpus_per_actor=ActorCpus(2))),))
    actor = TableActor(job)
    assert actor._models[0].op.at_once == 2
    assert_same_rows(by_id(actor(rows)), label_rows)
    actor.close()


@pytest.mark.slow
def test_steps_and_functions_of_a_main_program_travel_by_value(tmp_path):
    (tmp_path / "program.py").write_text(MAIN_PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(CHECKPOINT)]
    job = pickle.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    actor = TableActor(job)
    labelled = actor(pa.table({"id": ["a", "b", "c"], "audio": [b""] * 3, "text": ["", "x", "x"]}))
    actor.close()
    found = [(row["error_type"], row["error_message"]) for row in labelled.to_pylist()]
    assert found[:2] == [("filtered", "no text"), ("filtered", "does not meet where=__main__:wanted")]
    assert found[2][0] == "no_audio"


def test_the_decoding_process_is_that_of_the_next_labeller(plain, rows):
    isolation.end_idle()
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]

    def children() -> set[int]:
        return {one.pid for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE}

    before = children()
    for _ in range(3):
        labeller = raysp.Labeller(steps)
        labeller(rows.slice(1, 1))
        [decoder] = children() - before
    labeller.close()
    assert decoder not in children()
    assert labeller(rows.slice(1, 1)).num_rows == 1


@pytest.mark.drivers
@pytest.mark.slow
def test_a_labeller_imports_no_ray():
    code = (
        "import sys, pyarrow as pa, raysp\n"
        f"steps = [raysp.Decode(), raysp.Label({str(CHECKPOINT)!r}, outputs=[raysp.Transcript()])]\n"
        "rows = raysp.Labeller(steps)(pa.table({'id': ['a'], 'audio': [b'']}))\n"
        "print(rows.column('error_type')[0], 'ray' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert ran.stdout.split() == ["no_audio", "False"]


def test_actors_with_a_device_are_given_the_next_slice_while_they_label_one():
    on_device, on_cpus = _actors(1, 4, "cuda"), _actors(1, 4, "cpu")
    assert (on_device.max_concurrent_calls_per_actor, on_device.min_size, on_device.max_size) == (BLOCKS_AT_ONCE, 1, 4)
    assert on_cpus.max_concurrent_calls_per_actor != BLOCKS_AT_ONCE
