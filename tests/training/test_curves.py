"""Every objective with all that is random in training: the same losses and weights for any number of workers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import raysp.models
from raysp import Schedule
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.training_steps import OneWorker, Training, Workers
from raysp.training.objectives.task import Criterion
from tests.training.criteria import classify_criterion, seq2seq_criterion, speakers_criterion
from tests.training.objectives.originals import ENCODERS, decoder_config, decoder_model, extractor_of
from tests.training.teams import assert_equal_curves, train

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


def classes(name: str, encoder: str) -> Criterion:
    return classify_criterion(head(name, encoder), extractor_of(encoder))


def speakers(name: str, encoder: str) -> Criterion:
    return speakers_criterion(head(name, encoder), extractor_of(encoder), margin_warmup=0.5, crop_seconds=0.4)


def tokens(random: np.random.Generator, _: int) -> list[float]:
    return [*random.integers(4, 50, size=random.integers(0, 6)).tolist(), 2]


def one_class(random: np.random.Generator, _: int) -> list[float]:
    return [int(random.integers(5))]


CASES: dict[str, tuple[Callable[[], Criterion], Target]] = {
    "encoder with BART": (lambda: seq2seq("wav2vec2 layer", "bart"), tokens),
    "encoder with GPT-2": (lambda: seq2seq("wav2vec2-bert", "gpt2"), tokens),
    "classes": (lambda: classes("HubertForSequenceClassification", "hubert"), one_class),
    "classes of SEW-D": (lambda: classes("SEWDForSequenceClassification", "sew-d"), one_class),
    "speakers": (lambda: speakers("Wav2Vec2ForXVector", "wav2vec2 group"), one_class),
    "speakers of features": (lambda: speakers("Wav2Vec2BertForXVector", "wav2vec2-bert"), one_class),
}


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


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A function that returns a new training, its steps, and the losses of one worker with its training."""
    make, target = CASES[request.param]

    def new_training(workers: Workers | None = None) -> Training:
        objective = make()
        optimizer = new_optimizer(group_parameters(objective.model, Schedule(steps=1, learning_rate=1e-3)))
        return Training(objective, optimizer, seed=7, workers=workers or OneWorker())

    steps, training = random_steps(target), new_training()
    return new_training, steps, (train(training, steps, count=STEPS), training)


def test_three_workers_have_the_curve_of_one(case):
    new_training, steps, alone = case
    assert_equal_curves(new_training, steps, alone, 3)


@pytest.mark.parametrize("case", ["speakers"], indirect=True)
def test_the_curve_depends_on_the_seed_alone(case):
    new_training, steps, (expected, _) = case
    assert train(new_training(), steps, count=STEPS) == expected  # bit for bit
    other = new_training()
    other.seed = 8
    assert train(other, steps, count=2) != expected[:2]
