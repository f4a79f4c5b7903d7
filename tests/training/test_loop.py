"""Steps of training: the same curve and weights for any number of workers, and after a stop."""

import dataclasses
import math
from functools import partial

import pytest
import torch

from raysp import Schedule
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.loop.not_finite import described_losses, has_grown
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.training_steps import OneWorker, Training
from tests.training.conftest import micro_batch, small_model
from tests.training.criteria import ctc_criterion
from tests.training.teams import assert_equal_curves, parameters, train

pytestmark = pytest.mark.slow

DROPPING = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "feat_proj_dropout": 0.1, "layerdrop": 0.2}


def new_training(extractor, workers=None, **fields) -> Training:
    model = small_model(**{**DROPPING, **fields})
    optimizer = new_optimizer(group_parameters(model, Schedule(steps=1, learning_rate=1e-3)))
    return Training(ctc_criterion(model, extractor), optimizer, seed=7, workers=workers or OneWorker())


@pytest.fixture(scope="module")
def alone(extractor, steps) -> tuple[list[float], Training]:
    training = new_training(extractor)
    return train(training, steps, count=12), training


def test_four_workers_have_the_curve_and_the_weights_of_one(alone, extractor, steps):
    assert_equal_curves(partial(new_training, extractor), steps, alone, 4)


def test_a_gradient_that_is_not_finite_changes_no_weight_and_names_the_rows(extractor, digits):
    training = new_training(extractor)
    before = [one.detach().clone() for one in parameters(training)]
    training.criterion = GradientOf(training.criterion, digits[3][0])
    batches = [micro_batch(digits, 0, [0, 1]), micro_batch(digits, 1, [2, 3])]
    update = training.step(0, 0, batches, learning_rate=1e-3)
    assert math.isfinite(update.loss)
    assert (update.is_finite, update.failed_rows) == (False, [3])
    for one, other in zip(parameters(training), before, strict=True):
        assert torch.equal(one, other)


class GradientOf:
    """An objective whose losses are finite, and whose gradient is not, if a micro-batch has one of its recordings."""

    def __init__(self, objective, wave) -> None:
        self.objective, self.wave = objective, wave
        self.model = objective.model

    def __call__(self, batch: MicroBatch):
        losses = self.objective(batch)
        if any(one is self.wave for one in batch.waves):
            root = next(self.model.parameters()).sum() * 0
            losses = dataclasses.replace(losses, total=losses.total + root.sqrt())
        return losses


def test_the_update_is_that_of_the_mean_over_all_rows(extractor, steps, digits):
    """Of one pass over all rows of a step, without random numbers."""
    fields = dict.fromkeys([*DROPPING, "activation_dropout", "final_dropout", "mask_time_prob"], 0.0)
    one, other = new_training(extractor, **fields), new_training(extractor, **fields)
    update = one.step(0, 0, steps[0], learning_rate=1e-3)
    rows = [row for batch in steps[0] for row in batch.rows]
    whole = other.step(0, 0, [micro_batch(digits, 0, rows)], learning_rate=1e-3)
    assert (update.num_rows, whole.num_rows) == (12, 12)
    assert update.loss == pytest.approx(whole.loss, rel=1e-5)
    assert update.norm == pytest.approx(whole.norm, rel=1e-4)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], False),
        ([(1, 300.0)], False),
        ([(1, 3.0), (2, 2.0), (3, 2.5)], False),
        ([(1, 0.01), (2, 0.2), (3, 9.0)], False),
        ([(1, 3.0), (2, 2.0), (3, 21.0)], True),
        ([(1, 3.0), (2, math.inf)], True),
        ([(1, -0.5), (2, 0.1)], False),
    ],
)
def test_a_loss_far_above_the_lowest_has_grown(losses, expected):
    assert has_grown(losses) is expected


def test_the_history_says_since_when_the_loss_grew():
    found = described_losses([(7, 3.0), (8, 2.31), (9, 40.0), (10, 1.2e9)])
    assert found == "The loss grew since step 8, from 2.31 to 1.2e+09 at step 10"
    assert described_losses([(1, 3.0), (2, 2.0)]) == "The loss was finite until step 2, with 2, and had not grown"
    assert "the weights with which the training begins" in described_losses([])
