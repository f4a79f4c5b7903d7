"""Attention with a bias by distance in one kernel of torch: its arithmetic, and when it is not used."""

import logging

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from raysp.models.encoder import fused_attention
from raysp.models.encoder.fused_attention import Lookup, fused, kernel_of
from raysp.models.encoder.relative_attention import of_distances

HEADS, WIDTH, COLUMNS, SCALE = 2, 16, 9, 0.3


def inputs(rows: int, frames: int, *, terms: str, is_masked: bool):
    draw = torch.Generator().manual_seed(frames)
    q, k, v = (torch.randn(rows, HEADS, frames, WIDTH, generator=draw) for _ in range(3))
    of_queries, of_keys = (torch.randn(rows, HEADS, frames, COLUMNS, generator=draw) for _ in range(2))
    columns = torch.arange(1 - frames, frames).clamp(-5, 3) + 5
    lookup = Lookup(columns, of_queries if "q" in terms else None, of_keys if "k" in terms else None)
    keys = (torch.arange(frames) < torch.tensor([[frames], *[[frames // 2]] * (rows - 1)]))[:, None, None]
    return q, k, v, lookup, keys if is_masked else None


def plain(q, k, v, lookup, keys, scale):
    """Return attention by a table of distances."""
    scores, frames = q @ k.transpose(2, 3) * scale, torch.arange(q.shape[2])
    columns = lookup.columns_W[frames - frames[:, None] + q.shape[2] - 1]
    if lookup.of_queries_BATR is not None:
        scores += lookup.of_queries_BATR[:, :, frames[:, None], columns]
    if lookup.of_keys_BATR is not None:
        scores += lookup.of_keys_BATR[:, :, frames, columns]
    return (scores if keys is None else scores.masked_fill(~keys, -torch.inf)).softmax(-1) @ v


@pytest.mark.slow
def test_the_kernel_of_torch_gives_the_attention_of_plain_products_and_is_traced_a_few_times_for_all_lengths():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    kernel = torch.compile(flex_attention, backend="eager", dynamic=True, fullgraph=True)
    with torch.inference_mode():
        for rows, frames, is_masked in [(2, 17, True), (3, 23, True), (2, 19, False), (1, 11, False), (4, 31, True)]:
            given = inputs(rows, frames, terms="qk", is_masked=is_masked)
            torch.testing.assert_close(fused(*given, SCALE, kernel), plain(*given, SCALE), rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    torch._dynamo.reset()


@pytest.mark.parametrize("terms", ["q", "k", "qk"])
def test_a_lookup_gives_its_bias(terms):
    q, k, v, lookup, _ = inputs(2, 13, terms=terms, is_masked=False)
    found = (q @ k.transpose(2, 3) * SCALE + lookup.bias()).softmax(-1) @ v
    torch.testing.assert_close(found, plain(q, k, v, lookup, None, SCALE))


def test_values_of_distances_are_read_from_those_of_pairs():
    values = torch.randn(2 * 6 - 1)
    pairs = torch.stack([values[5 - i : 11 - i] for i in range(6)])
    assert torch.equal(of_distances(pairs), values)


@pytest.fixture
def tried(monkeypatch, caplog):
    """Return a function that tries a kernel as that of a device, with the warnings of it."""
    caplog.set_level(logging.WARNING)

    def kernel_of_device(kernel):
        kernel_of.cache_clear()
        monkeypatch.setattr(fused_attention, "compiled", lambda _: kernel)
        return kernel_of(torch.device("cpu"), torch.float32), caplog.text

    yield kernel_of_device
    kernel_of.cache_clear()


def with_score_mod(q, k, v, *, score_mod, scale):
    at = [
        torch.arange(n).view([-1 if axis == one else 1 for one in range(4)])
        for axis, n in enumerate((*q.shape[:3], k.shape[2]))
    ]
    return score_mod(q @ k.transpose(2, 3) * scale, *at).softmax(-1) @ v


def test_a_kernel_whose_trial_is_right_is_used(tried):
    assert tried(with_score_mod) == (with_score_mod, "")


def test_a_kernel_whose_results_differ_is_not_used_and_a_warning_says_so(tried):
    kernel, warnings = tried(lambda q, k, v, *, score_mod, scale: (q @ k.transpose(2, 3) * scale).softmax(-1) @ v)
    assert kernel is None
    assert (
        "in blocks, since torch's kernel for it cannot be used here: its results differ from plain products" in warnings
    )


def test_a_kernel_that_cannot_be_compiled_is_not_used_and_a_warning_says_why(tried):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler\nPlease specify one")

    kernel, warnings = tried(no_compiler)
    assert kernel is None
    assert "cannot be used here: RuntimeError: Failed to find C compiler\n" in warnings


def test_a_cpu_has_no_such_kernel():
    assert fused_attention.compiled(torch.device("cpu")) is None
