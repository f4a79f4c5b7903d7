"""Every objective with all that is random in training: the same losses and weights for any number of workers."""

from collections.abc import Callable

import numpy as np
import pytest

from raysp.training.batches import MicroBatch, Objective
from raysp.training.loop import Training, Workers
from raysp.training.optimizing import adamw, group_parameters
from raysp.training.seq2seq import Seq2SeqObjective
from tests.training.originals import decoder_config, decoder_model, extractor_of
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


def seq2seq(encoder: str = "wav2vec2 layer", decoder: str = "bart") -> Objective:
    model = decoder_model(decoder_config(encoder, decoder, **RANDOM))
    return Seq2SeqObjective(model, extractor_of(encoder))


def tokens(random: np.random.Generator) -> list[int]:
    return [*random.integers(4, 50, size=random.integers(0, 6)).tolist(), 2]


CASES: dict[str, tuple[Callable[[], Objective], Callable[[np.random.Generator], list[float]]]] = {
    "encoder with BART": (seq2seq, tokens),
    "Wav2Vec2-BERT with GPT-2": (lambda: seq2seq("wav2vec2-bert", "gpt2"), tokens),
}
"""Objectives, and targets of a row."""


def random_steps(target: Callable[[np.random.Generator], list[float]]) -> list[list[MicroBatch]]:
    """Draw six steps of four micro-batches of up to three rows, which may be empty."""
    random = np.random.default_rng(0)
    steps = []
    for step in range(6):
        batches = []
        for number in range(4):
            num_rows = int(random.integers(0, 4))
            lengths = random.integers(4000, 9000, num_rows)
            waves = [random.normal(size=num_samples).astype(np.float32) for num_samples in lengths]
            targets = [target(random) for _ in range(num_rows)]
            batches.append(MicroBatch(number, range(num_rows), waves, targets, progress=step / 6, updates=step))
        steps.append(batches)
    return steps


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A function that returns a training, its steps, and the losses of one worker."""
    make, target = CASES[request.param]

    def new_training(workers: Workers | None = None) -> Training:
        objective = make()
        groups = group_parameters(objective.model)
        optimizer = adamw(groups, learning_rate=1e-3, weight_decay=0.01)
        return Training(objective, optimizer, seed=7, workers=workers)

    steps, training = random_steps(target), new_training()
    return new_training, steps, (train(training, steps, count=12), training)


@pytest.mark.parametrize("num_workers", [2, 3, 4])
def test_the_curve_is_the_same_for_any_number_of_workers(case, num_workers):
    new_training, steps, alone = case
    assert_equal_curves(new_training, steps, alone, num_workers)


def test_the_curve_depends_on_what_is_random(case):
    new_training, steps, (expected, _) = case
    training = new_training()
    assert train(training, steps, count=12) == expected  # bit for bit
    other = new_training()
    other.seed = 8
    assert train(other, steps, count=3) != expected[:3]
