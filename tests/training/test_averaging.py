"""Moving averages of weights: exact, resumed bit for bit, and seen by everything that is derived from weights."""

import pytest
import torch

from raysp.training.loop.averaging import MovingAverage


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
