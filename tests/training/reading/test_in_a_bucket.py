"""Status, report, event files and gc of a training whose sink is in object storage."""

import pytest

import raysp
from raysp.storage.store import Store
from raysp.storage.stores import open_store
from raysp.training.reading.training_status import TrainingStatus
from raysp.training.sink import evaluation_records
from raysp.training.sink.tensorboard import TENSORBOARD, TensorBoardLog
from tests.evaluation.evaluated import an_evaluation
from tests.trainings import Sink


@pytest.fixture
def store(s3) -> Store:
    return open_store(f"s3://{s3.bucket()}/model", s3.options)


@pytest.mark.slow
def test_a_training_in_a_bucket_is_shown_as_one_on_a_disk(store, s3):
    sink = Sink(store)
    for first in (1, 11):
        sink.train(range(first, first + 10))
    evaluation_records.save(store, 10, an_evaluation(), run_id=sink.run.run_id)
    found = raysp.status(store.url, s3.options)
    assert isinstance(found, TrainingStatus)
    assert (found.steps, found.share, found.best.steps, found.last_steps.number) == (20, 0.5, 10, 20)
    sink.export(20)
    assert raysp.status(store).steps_exported == 20
    assert raysp.report(store.url, storage_options=s3.options) == f"{store.url}/.raysp/report.html"
    raysp.report(store)  # again
    assert b"Evaluation at step 10" in store.read(".raysp/report.html")


def test_event_files_are_published_and_what_a_killed_training_left_is_removed(store):
    Sink(store).train(range(1, 3))
    log = TensorBoardLog(store, "r")
    log.log(1, {"x": 1.0})
    log.finish()
    store.create(".raysp/steps/3.ab/model.safetensors", b"left")
    assert [orphan.path for orphan in raysp.gc(store).orphans] == [".raysp/steps/3.ab/model.safetensors"]
    assert [entry.path for entry in store.list(TENSORBOARD)] == [f"{TENSORBOARD}events.out.tfevents.r-000000001"]
    assert raysp.status(store).steps == 2
