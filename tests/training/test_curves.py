"""Objectives with all that is random in training: the same losses and weights for any number of workers."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import raysp.models
from raysp import Schedule
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.training_steps import Training, WorkerGroup
from raysp.training.objectives.task import Criterion
from tests.training.criteria import ctc_criterion, seq2seq_criterion, speakers_criterion
from tests.training.objectives.originals import CTC, ENCODERS, decoder_config, decoder_model, extractor_of
from tests.training.teams import assert_equal_curves, parameters, train

pytestmark = pytest.mark.slow

RANDOM = {
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "feat_proj_dropout": 0.1,
    "final_dropout": 0.1,
    "layerdrop": 0.3,
    "mask_time_prob": 0.2,
    "mask_time_length": 4,
    "mask_feature_prob": 0.1,
    "mask_feature_length": 4,
}
STEPS = 3
"""Steps of a training: into the second epoch."""
Target = Callable[[np.random.Generator, int], list[float]]
"""Draws the target of a row of so many samples."""


def seq2seq(encoder: str, decoder: str) -> Criterion:
    model = decoder_model(decoder_config(encoder, decoder, **RANDOM))
    return seq2seq_criterion(model, extractor_of(encoder))


def head(name: str, encoder: str, **fields: object):
    cls = getattr(raysp.models, name)
    torch.manual_seed(0)
    known = {key: value for key, value in RANDOM.items() if hasattr(cls.config_class, key)}
    return cls(cls.config_class(**{**ENCODERS[encoder][1], **known, "num_labels": 5, **fields})).train()


def letters(encoder: str, **fields: object) -> Criterion:
    return ctc_criterion(head("Wav2Vec2ForCTC", encoder, vocab_size=50, **CTC, **fields), extractor_of(encoder))


def speakers(name: str, encoder: str) -> Criterion:
    return speakers_criterion(head(name, encoder), extractor_of(encoder), margin_warmup=0.5, crop_seconds=0.4)


def tokens(random: np.random.Generator, _: int) -> list[float]:
    return [*random.integers(4, 50, size=random.integers(0, 6)).tolist(), 2]


def one_class(random: np.random.Generator, _: int) -> list[float]:
    return [int(random.integers(5))]


CASES: dict[str, tuple[int, Callable[[], Criterion], Target]] = {
    "letters": (4, lambda: letters("wav2vec2 group"), tokens),
    "encoder with BART": (2, lambda: seq2seq("wav2vec2 layer", "bart"), tokens),
    "speakers": (2, lambda: speakers("Wav2Vec2ForXVector", "wav2vec2 group"), one_class),
}
"""Numbers of workers, objectives and targets."""


def random_steps(target: Target) -> list[list[MicroBatch]]:
    """Draw two steps of four micro-batches of up to three rows, which may be empty."""
    random = np.random.default_rng(0)
    steps = []
    for step in range(2):
        batches = []
        for number in range(4):
            lengths = random.integers(5600, 9000, size=random.integers(0, 4)).tolist()
            waves = [random.normal(size=num_samples).astype(np.float32) for num_samples in lengths]
            targets = [target(random, num_samples) for num_samples in lengths]
            batches.append(MicroBatch(number, range(len(waves)), waves, targets, progress=step / 2))
        steps.append(batches)
    return steps


def new_training(objective: Criterion, workers: WorkerGroup | None = None) -> Training:
    optimizer = new_optimizer(group_parameters(objective.model, Schedule(steps=1, learning_rate=1e-3)))
    return Training(objective, optimizer, seed=7, workers=workers or WorkerGroup())


@pytest.mark.parametrize("name", CASES)
def test_several_workers_have_the_curve_of_one(name):
    count, make, target = CASES[name]
    steps, training = random_steps(target), new_training(make())
    alone = train(training, steps, count=STEPS), training
    assert_equal_curves(lambda workers: new_training(make(), workers), steps, alone, count)


def test_the_curve_depends_on_the_seed_alone():
    _, make, target = CASES["speakers"]
    steps = random_steps(target)
    first, again, other = (new_training(make()) for _ in range(3))
    other.seed = 8
    expected = train(first, steps, count=STEPS)
    assert train(again, steps, count=STEPS) == expected  # bit for bit
    assert train(other, steps, count=2) != expected[:2]


class GradientOf:
    """An objective whose losses are finite, and whose gradient is not, if a micro-batch has one of its recordings."""

    def __init__(self, objective: Criterion, wave: np.ndarray) -> None:
        self.objective, self.wave, self.model = objective, wave, objective.model

    def __call__(self, batch: MicroBatch):
        losses = self.objective(batch)
        if any(one is self.wave for one in batch.waves):
            root = next(self.model.parameters()).sum() * 0
            losses = dataclasses.replace(losses, total=losses.total + root.sqrt())
        return losses


def letters_of(numbers: range, number: int = 0) -> MicroBatch:
    """Return a micro-batch of rows that are always the same."""
    waves = [np.random.default_rng(row).normal(size=6000 + 300 * row).astype(np.float32) for row in numbers]
    return MicroBatch(number, numbers, waves, [[4 + row, 2] for row in numbers])


def test_a_gradient_that_is_not_finite_changes_no_weight_and_names_the_rows():
    training = new_training(letters("wav2vec2 group"))
    before = [one.detach().clone() for one in parameters(training)]
    batches = [letters_of(range(2)), letters_of(range(2, 4), 1)]
    training.criterion = GradientOf(training.criterion, batches[1].waves[1])
    update = training.step(0, 0, batches, learning_rate=1e-3)
    assert math.isfinite(update.loss)
    assert (update.is_finite, update.failed_rows) == (False, [3])
    for one, other in zip(parameters(training), before, strict=True):
        assert torch.equal(one, other)


def test_the_update_is_that_of_the_mean_over_all_rows():
    """Of one pass over all rows of a step, without random numbers."""
    fields = {name: 0.0 for name in RANDOM if not name.endswith("length")} | {"activation_dropout": 0.0}
    one, other = (new_training(letters("wav2vec2 layer", **fields)) for _ in range(2))
    update = one.step(0, 0, [letters_of(range(2)), letters_of(range(2, 6), 1)], learning_rate=1e-3)
    whole = other.step(0, 0, [letters_of(range(6))], learning_rate=1e-3)
    assert (update.num_rows, whole.num_rows) == (6, 6)
    assert update.loss == pytest.approx(whole.loss, rel=1e-5)
    assert update.norm == pytest.approx(whole.norm, rel=1e-4)
