"""Moving averages of weights: exact, resumed bit for bit, and seen by everything that is derived from weights."""

import numpy as np
import pytest
import torch

from raysp.models import UniSpeechForCTC
from raysp.training.loop.averaging import MovingAverage
from tests.models.oracles import make_oracle


def changing(seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(3, size, generator=generator) for name, size in (("a", 4), ("b.c", 7))}
    return {**weights, "count": torch.tensor(5)}, generator


def change(weights: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    for one in weights.values():
        if one.is_floating_point():
            one += torch.randn(one.shape, generator=generator)


def values(average: MovingAverage) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in average.tensors.items() if name != "updates"}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_an_average_forgets_by_its_decay_and_faster_at_first(decay):
    weights, generator = changing()
    average = MovingAverage(weights, decay)
    expected = {name: weights[name].double() for name in ("a", "b.c")}
    for done in range(30):
        change(weights, generator)
        average.update()
        kept = min(decay, (1 + done) / (10 + done))
        expected = {name: kept * one + (1 - kept) * weights[name] for name, one in expected.items()}
    assert average.updates == 30
    for name, one in values(average).items():
        torch.testing.assert_close(one, expected[name].float(), rtol=1e-5, atol=1e-5)


def model_and_inputs(tmp_path):
    make_oracle("UniSpeechForCTC").save_pretrained(tmp_path)
    wave = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3000)).astype(np.float32))
    return UniSpeechForCTC.from_pretrained(tmp_path), wave


def test_a_model_computes_with_the_average_and_then_with_its_own_weights_again(tmp_path):
    """Also by weights that are derived from others for inference."""
    model, wave = model_and_inputs(tmp_path)
    average = MovingAverage(model.stored_weights(), 0.5)
    with torch.no_grad():
        for one in model.parameters():
            one += 0.05 * torch.randn_like(one)
    average.update()
    with torch.inference_mode():
        own = model(wave).logits
    with average.applied(), torch.inference_mode():
        averaged = model(wave).logits
        model.save_pretrained(tmp_path / "averaged")
    with torch.inference_mode():
        assert torch.equal(model(wave).logits, own)
        assert not torch.allclose(averaged, own, atol=1e-3)
        fresh = UniSpeechForCTC.from_pretrained(tmp_path / "averaged")(wave).logits
    torch.testing.assert_close(fresh, averaged, rtol=1e-4, atol=1e-4)
