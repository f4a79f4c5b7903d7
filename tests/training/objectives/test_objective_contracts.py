"""Contracts of the losses of all objectives: rows alone, short rows, half precision, and targets beyond the model."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch

from raysp.models import Wav2Vec2FeatureExtractor
from raysp.training.data.micro_batches import Losses, MicroBatch, seed_micro_batch
from tests.training.criteria import classify_criterion, ctc_criterion, seq2seq_criterion, speakers_criterion
from tests.training.objectives.originals import (
    CTC,
    ENCODERS,
    decoder_pair,
    extractor_of,
    model_pair,
    random_batch,
)

EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)
ENCODER = "wav2vec2 layer"


class Case(NamedTuple):
    """An objective with its model and targets of three rows."""

    objective: Callable[..., Any]
    model: Callable[[], Any]
    targets: Sequence[Sequence[float]]
    beyond: int
    """A number that is no target, as the model has so many outputs."""
    options: dict[str, Any] = {}  # noqa: RUF012 - a default that no case changes

    def losses(self, model: Any, batch: MicroBatch, **options: Any) -> Losses:
        """Return the losses of a micro-batch, whose random numbers are always the same."""
        seed_micro_batch(1, 2, 3, 4)
        return self.objective(model, EXTRACTOR, **self.options, **options)(batch)


def with_head(head: str, encoder: str = ENCODER, **fields):
    return model_pair(encoder, ENCODERS[encoder][0] + head, **fields)[1]


TEXTS = [[4, 5, 6, 6, 9], [7], [8, 5, 4]]
CASES = {
    "ctc": Case(ctc_criterion, lambda: with_head("ForCTC", vocab_size=20, **CTC), TEXTS, 20),
    "single": Case(
        classify_criterion, lambda: with_head("ForSequenceClassification", num_labels=3), [[0], [1], [1]], 3
    ),
    "speakers": Case(
        speakers_criterion, lambda: with_head("ForXVector", num_labels=4), [[2], [0], [1]], 4, {"crop_seconds": None}
    ),
    "seq2seq": Case(seq2seq_criterion, lambda: decoder_pair(ENCODER, "bart")[1], [[4, 5, 6, 2], [7, 2], [2]], 50),
}


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("name", CASES)
def test_a_row_alone_has_the_loss_and_the_count_that_it_has_in_a_batch(name):
    case, model = CASES[name], CASES[name].model()
    batch = random_batch(case.targets)
    together = case.losses(model, batch)
    counts = []
    for place, target in enumerate(case.targets):
        alone = case.losses(model, MicroBatch(0, [place], [batch.waves[place]], [target]))
        torch.testing.assert_close(together.rows_B[place], alone.rows_B[0], rtol=1e-4, atol=1e-4)
        counts.append(alone.count)
    assert together.count == sum(counts)
    per_target = {"seq2seq": [4, 2, 1]}
    assert counts == per_target.get(name, [1, 1, 1])


@pytest.mark.parametrize(
    ("name", "encoder"),
    [*((name, ENCODER) for name in CASES if name != "single"), *(("single", encoder) for encoder in ENCODERS)],
)
def test_rows_shorter_than_a_mask_are_trained_on(name, encoder):
    case = CASES[name]
    model = case.model() if name != "single" else with_head("ForSequenceClassification", encoder, num_labels=3)
    config = model.speech_encoder.config
    config.apply_spec_augment, config.mask_time_length, config.mask_time_prob = True, 10_000, 0.5
    seed_micro_batch(0, 0, 0, 0)
    losses = case.objective(model, extractor_of(encoder), **case.options)(random_batch(case.targets))
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert losses.count > 0
    assert model.speech_encoder.masked_spec_embed.grad.any()
    assert config.mask_time_length == 10_000


def test_half_precision_is_near_and_losses_and_gradients_are_in_float32(case):
    model, batch = case.model(), random_batch(case.targets)
    exact, half = case.losses(model, batch), case.losses(model, batch, dtype=torch.bfloat16)
    assert half.count == exact.count
    assert half.total.dtype == torch.float32
    assert half.total.item() == pytest.approx(exact.total.item(), rel=0.1)
    half.total.backward()
    assert {one.grad.dtype for one in model.parameters() if one.grad is not None} == {torch.float32}


@pytest.mark.parametrize("wrong", ["beyond", -1])
@pytest.mark.parametrize("name", CASES)
def test_a_target_that_the_model_lacks_is_named_with_its_row(name, wrong):
    case = CASES[name]
    found = case.beyond if wrong == "beyond" else wrong
    targets = [case.targets[0], [found, *case.targets[1][1:]]]
    with pytest.raises(ValueError, match=f"row 1: target {found} found, expected 0 to {case.beyond - 1}"):
        case.losses(case.model(), random_batch(targets))
