"""Groups of parameters, flat gradients, and learning rates."""

import pytest
import torch

import raysp
from raysp.training.loop.course import Course
from raysp.training.loop.optimizing import FlatGradients, group_parameters, new_optimizer, set_rate
from tests.training.conftest import small_model


def test_vectors_have_no_weight_decay():
    optimizer = new_optimizer(group_parameters(small_model(), raysp.Schedule(steps=1, head_rate=1.0, weight_decay=0.1)))
    for group in optimizer.param_groups:
        assert {0.1 if parameter.ndim > 1 else 0.0 for parameter in group["params"]} == {group["weight_decay"]}
    set_rate(optimizer, 0.5)
    assert {one["lr"] for one in optimizer.param_groups} == {0.5}


def test_gradients_are_views_of_one_buffer_and_are_clipped_by_their_norm():
    first, second = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))
    gradients = FlatGradients([first, second], 2)
    for _ in range(2):  # passes add up
        (3 * first.sum() + second.sum()).backward()
    assert gradients.gradients.tolist() == [6.0] * 6 + [2.0] * 4
    gradients.sums[1] = 5.0
    expected = (6 * 36 + 4 * 4) ** 0.5
    assert gradients.clip(None).item() == pytest.approx(expected)
    assert gradients.clip(1.0).item() == pytest.approx(expected)
    assert torch.linalg.vector_norm(first.grad).item() < 1
    assert gradients.clip(2.0).item() == pytest.approx(1.0, rel=1e-4)
    gradients.buffer.zero_()
    assert (first.grad.tolist(), gradients.sums.tolist()) == ([[0.0] * 3] * 2, [0.0, 0.0])


def course_of(shape: str, warmup: float) -> Course:
    final = 1.0 if shape == "constant" else 0.05
    return Course(raysp.Schedule(epochs=1, learning_rate=1.0, shape=shape, warmup=warmup, final=final))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("tri_stage", [0.0, 0.5, 1.0, 1.0, 1.0, 0.2236, 0.05]),
        ("linear", [0.0, 0.5, 1.0, 0.7889, 0.5778, 0.2611, 0.05]),
        ("cosine", [0.0, 0.5, 1.0, 0.8889, 0.6075, 0.1611, 0.05]),
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_rates_over_the_course_of_training(shape, expected):
    points = [0.0, 0.05, 0.1, 0.3, 0.5, 0.75 if shape == "tri_stage" else 0.8, 1.0]
    found = [course_of(shape, 0.1).rate(point) for point in points]
    assert found == pytest.approx(expected, abs=1e-3)
