"""Status, report and gc of a training whose sink is in object storage."""

import pytest

import raysp
from raysp import Schedule, finetune
from tests.recipes import a_recipe
from tests.trainings import Files, Sink


@pytest.fixture
def url(s3) -> str:
    return f"s3://{s3.bucket()}/model"


@pytest.mark.slow
def test_a_training_in_a_bucket_is_shown_as_one_on_a_disk(url, s3):
    sink = Sink(url, s3.options)
    for first in (1, 11):
        sink.train(range(first, first + 10))
    sink.evaluate(10)
    found = raysp.status(url, s3.options)
    assert (found.steps, found.share, found.best.steps, found.last_steps.number) == (20, 0.5, 10, 20)
    sink.export(20)
    assert raysp.status(url, s3.options).steps_exported == 20
    for _ in range(2):
        assert raysp.report(url, storage_options=s3.options) == f"{url}/.raysp/report.html"
    assert b"Evaluation at step 10" in sink.files.read(".raysp/report.html")


@pytest.mark.slow
def test_what_a_killed_training_left_is_removed(url, s3, words, tiny):
    place = raysp.Checkpoint(url, every=1, storage_options=s3.options)
    finetune(a_recipe(words, tiny, place, schedule=Schedule(steps=2)))
    files = Files(url, s3.options)
    files.write(".raysp/steps/3.ab/model.safetensors", b"left")
    assert [orphan.path for orphan in raysp.gc(url, s3.options).orphans] == [".raysp/steps/3.ab/model.safetensors"]
    assert raysp.status(url, s3.options).steps == 2
