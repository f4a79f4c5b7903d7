"""Speed of a worker from the steps of earlier trainings."""

from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from tests.recipes import a_recipe
from tests.training.trained import planned
from tests.trainings import Sink

ALIKE = {"device": "cpu", "dtype": "float32", "cpus_per_worker": 1}


@pytest.fixture(scope="module")
def recipe(words, tiny, tmp_path_factory) -> raysp.Finetune:
    return a_recipe(words, tiny, tmp_path_factory.mktemp("sink") / "out")


@pytest.fixture(scope="module")
def parts(recipe) -> dict[str, object]:
    return planned(recipe)["parts"]


def train(place: Path, parts, *, resolved=ALIKE, **others: object) -> None:
    """Write the sink of a training of two workers: ten seconds of audio a step, the first in twenty, others in two."""
    sink = Sink(place, record={"parts": {**parts, **others}}, resolved=resolved)
    sink.write_metrics([1], seconds=20.0, audio_seconds=10.0, waited=0.5)
    sink.write_metrics(range(2, 6), seconds=2.0, audio_seconds=10.0, waited=0.5)
    sink.commit(5, num_workers=2)


def test_the_speed_is_that_of_a_worker_without_the_first_step_and_without_waiting_for_others(recipe, parts, tmp_path):
    train(tmp_path, parts)
    found = raysp.estimate(recipe, like=str(tmp_path))
    assert found.imbalance[2] > 1.01
    assert found.speed.rtfx == pytest.approx(10 / 2 / 2 * found.imbalance[2])
    assert found.speed.origin == (
        f"4 steps in {tmp_path}: 0:40 of audio in 0:08 on 2 workers, waiting for rows 25% of the time"
    )


ANOTHER_DEVICE = r"--like .*: its last run has no steps on float32 on cpu, 1 CPU a worker"
ANOTHER_TRAINING = r"{}(.|\n)*name the sink of a training that is alike, or state the speed"


@pytest.mark.parametrize(
    ("resolved", "others", "message"),
    [
        ({"device": "cuda"}, {}, ANOTHER_DEVICE),
        ({"cpus_per_worker": 8}, {}, ANOTHER_DEVICE),
        ({"dtype": "bfloat16"}, {}, ANOTHER_DEVICE),
        ({}, {"checkpoint_digest": "other"}, ANOTHER_TRAINING.format("checkpoint_digest 'other', here")),
        ({}, {"schedule.checkpointing": True}, ANOTHER_TRAINING.format("schedule.checkpointing True, here False")),
        ({}, {"objective.freeze": "base"}, ANOTHER_TRAINING.format("objective.freeze 'base', here None")),
        ({}, {"objective.lora": {"rank": 4}}, ANOTHER_TRAINING.format("lora True, here False")),
    ],
)
def test_steps_on_another_device_or_of_a_training_that_differs_in_its_speed_are_refused(
    recipe, parts, tmp_path, resolved, others, message
):
    train(tmp_path, parts, resolved={**ALIKE, **resolved}, **others)
    with pytest.raises(PlanError, match=message):
        raysp.estimate(recipe, like=str(tmp_path))
