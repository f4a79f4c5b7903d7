"""Losses of all objectives: rows alone, short rows, half precision, targets beyond the model; margins and crops."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysp.errors import PlanError
from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor
from raysp.models.base.modeling import overridden
from raysp.training.data.micro_batches import Losses, MicroBatch, seed_micro_batch
from raysp.training.objectives.passes import Passes
from raysp.training.objectives.starting_model import loading
from raysp.training.objectives.task import Criterion
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


@pytest.mark.parametrize("name", CASES)
def test_a_row_alone_has_the_loss_that_it_has_in_a_batch_and_in_half_precision_almost(name):
    case, model = CASES[name], CASES[name].model()
    batch, counts = random_batch(case.targets), []
    together = case.losses(model, batch)
    for place, target in enumerate(case.targets):
        alone = case.losses(model, MicroBatch(0, [place], [batch.waves[place]], [target]))
        torch.testing.assert_close(together.rows_B[place], alone.rows_B[0], rtol=1e-4, atol=1e-4)
        counts.append(alone.count)
    assert together.count == sum(counts)
    assert counts == {"seq2seq": [4, 2, 1]}.get(name, [1, 1, 1])
    half = case.losses(model, batch, dtype=torch.bfloat16)
    assert (half.count, half.total.dtype) == (together.count, torch.float32)
    assert half.total.item() == pytest.approx(together.total.item(), rel=0.1)
    half.total.backward()
    assert {one.grad.dtype for one in model.parameters() if one.grad is not None} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("seq2seq", ENCODER), *(("single", encoder) for encoder in ("wav2vec2 group", "sew-d", "wav2vec2-bert"))],
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


@pytest.mark.parametrize("name", CASES)
def test_a_target_that_the_model_lacks_is_named_with_its_row(name):
    case, model = CASES[name], CASES[name].model()
    for found in (case.beyond, -1):
        targets = [case.targets[0], [found, *case.targets[1][1:]]]
        with pytest.raises(ValueError, match=f"row 1: target {found} found, expected 0 to {case.beyond - 1}"):
            case.losses(model, random_batch(targets))


def test_rows_without_tokens_have_no_loss():
    case, model = CASES["seq2seq"], CASES["seq2seq"].model()
    losses = case.losses(model, random_batch([[], [4, 2]]))
    assert (losses.rows_B[0].item(), losses.count) == (0.0, 2)
    empty = case.losses(model, random_batch([[], []]))
    assert (empty.total.item(), empty.count) == (0.0, 0)
    empty.total.backward()
    assert all(not one.grad.any() for one in model.parameters() if one.grad is not None)


# Speakers ------------------------------------------------------------------------------------------------------------


def model_of(encoder: str = "wav2vec2 layer"):
    return model_pair(encoder, ENCODERS[encoder][0] + "ForXVector", num_labels=4)[1]


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.mark.parametrize(("progress", "margin"), [(0.0, 0.0), (0.1, 0.1), (1.0, 0.2)])
def test_the_margin_grows_to_the_given_one_and_replaces_that_of_the_class(model, progress, margin):
    objective = speakers_criterion(model, EXTRACTOR, margin=0.2, margin_warmup=0.2, crop_seconds=None)
    assert objective.task.margin_at(progress) == pytest.approx(margin)
    batch = random_batch([[1], [3], [1]], progress=progress)
    losses = objective(batch)
    output, _ = objective.passes(model, batch.waves)
    cosines = F.normalize(output.logits, dim=1) @ F.normalize(model.objective.weight, dim=0)
    cosines[torch.arange(3), torch.tensor([1, 3, 1])] -= margin
    expected = F.cross_entropy(30 * cosines, torch.tensor([1, 3, 1]), reduction="none")
    torch.testing.assert_close(losses.rows_B, expected, rtol=1e-5, atol=1e-5)
    assert losses.count == 3


class Seen(Passes):
    """Collects the waves that a criterion runs."""

    def __call__(self, run, waves, **arguments):
        self.waves = [*waves]
        return super().__call__(run, waves, **arguments)


def cropped(criterion: Criterion, batch: MicroBatch, *place: int) -> list[np.ndarray]:
    passes = criterion.passes
    seen = Seen(passes.model, passes.feature_extractor, passes.dtype)
    seed_micro_batch(*place)
    criterion.model.train()
    criterion.task.loss(seen, batch)
    criterion.model.eval()
    return seen.waves


def test_crops_are_parts_of_their_rows_drawn_from_the_seed_of_the_micro_batch(model):
    batch = random_batch([[0], [1], [2]])
    crops = [
        cropped(speakers_criterion(model, EXTRACTOR, crop_seconds=0.2), batch, *place)
        for place in [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 4)]
    ]
    for crop, wave in zip(crops[0], batch.waves, strict=True):
        assert len(crop) == 3200
        assert np.lib.stride_tricks.sliding_window_view(wave, 3200)[:, :9].tolist().count(crop[:9].tolist()) == 1
    assert all(np.array_equal(one, other) for one, other in zip(crops[0], crops[1], strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(crops[0], crops[2], strict=True))


@pytest.mark.parametrize("encoder", ["wav2vec2 layer", "wav2vec2-bert"])
def test_constant_audio_has_finite_gradients(encoder):
    """Whose statistics have a deviation of 0, where a square root has none."""
    model = model_of(encoder)
    with torch.no_grad():
        for layer in model.tdnn:  # all channels are constant and positive, so that nothing hides behind the ReLU
            layer.kernel.weight.zero_()
            layer.kernel.bias.fill_(1.0)
    waves = [np.zeros(8000, np.float32), np.full(9000, 0.5, np.float32), random_batch([[0]]).waves[0]]
    losses = speakers_criterion(model, extractor_of(encoder))(MicroBatch(0, [0, 1, 2], waves, [[0], [1], [2]]))
    losses.total.backward()
    assert torch.isfinite(losses.rows_B).all()
    for name, one in model.named_parameters():
        assert one.grad is None or torch.isfinite(one.grad).all(), name
    assert model.tdnn[-1].kernel.bias.grad.any()


def test_an_error_in_loading_that_names_no_mask_stays_as_it_is():
    with pytest.raises(TypeError, match="unsupported operand"), loading(0, {"layerdrop": 0.0}):
        operator.add(1, "layerdrop")
    with pytest.raises(PlanError, match=r"objective\.masks: 'layerdorp'"), loading(0, {"layerdorp": 0.0}):
        overridden(Wav2Vec2Config(), {"layerdorp": 0.0})
