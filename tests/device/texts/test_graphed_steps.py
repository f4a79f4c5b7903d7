"""Steps of a text decoder as graphs: the bits of steps without them, in three launches, while no text leaves."""

import gc
from typing import Any

import pytest
import torch

from raysp import models
from raysp.models.decoder.graphed_steps import GraphedSteps
from raysp.models.decoder.sampling import Decoding
from tests.device.stand_in import NAME, counted
from tests.device.streams import stand_in_graphs

TEXTS, FRAMES, TOKENS = 4, 9, 6


@pytest.fixture(scope="module")
def decoder(request) -> Any:
    """Return a small decoder: BART, or of the kind that a test names."""
    kind = getattr(request, "param", "Bart")
    torch.manual_seed(1)
    bart = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    options = {"vocab_size": 60, "is_decoder": True, "add_cross_attention": True}
    config = getattr(models, f"{kind}Config")(**(bart if kind == "Bart" else bert), **options)
    cls = models.BartForCausalLM if kind == "Bart" else models.BertLMHeadModel
    return cls(config).init_weights().to(torch.bfloat16).to(NAME).eval()


@pytest.fixture
def steps(decoder) -> Any:
    decoder.graphed_steps = GraphedSteps(torch.device(NAME))
    yield decoder.graphed_steps
    decoder.graphed_steps = None


def generate(
    decoder: Any, seed: int, *, texts: int = TEXTS, graphs: bool = True, scores: bool = True, **options: Any
) -> list[torch.Tensor]:
    """Return the texts of a batch, and the scores of each token, with which all texts stay in it."""
    draw = torch.Generator().manual_seed(seed)
    frames = torch.randn(texts, FRAMES, 32, generator=draw).to(torch.bfloat16).to(NAME)
    mask = (torch.arange(FRAMES) < torch.randint(3, FRAMES + 1, (texts, 1), generator=draw)).to(NAME)
    given = {"max_new_tokens": TOKENS, "eos_token_id": 2, "pad_token_id": 1, "min_length": TOKENS + 1, **options}
    kept, decoder.graphed_steps = decoder.graphed_steps, decoder.graphed_steps if graphs else None
    found = decoder.generate(
        torch.full((texts, 1), 5).to(NAME),
        attention_mask=torch.ones(texts, 1, dtype=torch.int64).to(NAME),
        encoder_hidden_states=frames,
        encoder_attention_mask=mask,
        return_dict_in_generate=True,
        output_scores=scores,
        **given,
    )
    decoder.graphed_steps = kept
    return [found.sequences.cpu(), *(one.cpu() for one in found.scores or ())]


def assert_same(decoder: Any, seed: int, **options: Any) -> None:
    found, expected = (generate(decoder, seed, graphs=one, **options) for one in (True, False))
    assert len(found) == len(expected)
    assert all(one.equal(other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("decoder", ["Bart", "Bert"], indirect=True)
@torch.inference_mode()
def test_texts_and_scores_have_the_bits_of_steps_without_graphs(decoder, steps):
    for seed in range(3):
        assert_same(decoder, seed)
    [memory] = steps.memories.values()
    assert steps.why_not == ""
    assert sorted(memory.graphs) == list(range(1, TOKENS))
    assert memory.owner is None


@torch.inference_mode()
def test_a_step_is_three_launches(decoder, steps, monkeypatch):
    launches: dict[bool, list[int]] = {True: [], False: []}
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    call = Decoding.__call__

    def count(decoding: Decoding, tokens: torch.Tensor) -> torch.Tensor:
        with counted() as counts:
            found = call(decoding, tokens)
        launches[decoding.memory is not None].append(counts.launches)
        kept.append((found, found.cpu()))
        return found

    for seed in range(2):
        generate(decoder, seed)
    monkeypatch.setattr(Decoding, "__call__", count)
    free = {"min_length": 0, "eos_token_id": None}  # without changes of logits in place
    generate(decoder, 2, graphs=False, **free)
    plain = launches[False][1:]
    generate(decoder, 3, **free)
    assert min(plain) > 30
    assert set(launches[True][1:]) == {3}  # the first one copies the cache too
    of_graphs = kept[TOKENS:-1]  # the last token is forced, in place
    assert all(logits.cpu().equal(values) for logits, values in of_graphs)  # after later steps


@torch.inference_mode()
def test_texts_that_leave_go_on_without_graphs(decoder, steps):
    for seed in range(4):
        assert_same(decoder, seed, scores=False, min_length=2, eos_token_id=[*range(2, 30)])
    assert steps.why_not == ""


@torch.inference_mode()
def test_beams_and_other_shapes_are_those_without_graphs(decoder, steps):
    for seed in range(3):
        assert_same(decoder, seed, num_beams=2)
        assert_same(decoder, seed, texts=2 + seed)
    assert steps.why_not == ""
    assert all(memory.owner is None for memory in steps.memories.values())


@torch.inference_mode()
def test_a_batch_beside_another_one_has_memory_of_its_own(decoder, steps):
    for seed in range(2):
        generate(decoder, seed)
    [memory] = steps.memories.values()
    memory.owner = object()  # a batch of another thread
    assert_same(decoder, 5)
    memory.owner = None
    assert_same(decoder, 6)


@pytest.mark.parametrize("fault", ["a wait", "other values"])
@torch.inference_mode()
def test_a_step_that_cannot_be_recorded_has_run_and_later_ones_do_too(decoder, steps, monkeypatch, caplog, fault):
    feed = Decoding.feed

    def faulty(decoding: Decoding, tokens: torch.Tensor) -> torch.Tensor:
        found = feed(decoding, tokens)
        if stand_in_graphs.current() is None:
            return found
        if fault == "a wait":
            found.sum().item()
        return found + 1

    monkeypatch.setattr(Decoding, "feed", faulty)
    for seed in range(3):
        assert_same(decoder, seed)
    assert steps.memories == {}
    assert [record.getMessage() for record in caplog.records] == [
        f"steps of the text decoder run without graphs: {steps.why_not}"
    ]


@torch.inference_mode()
def test_graphs_that_are_stopped_free_their_memory(decoder, steps):
    for seed in range(2):
        generate(decoder, seed)
    [memory] = steps.memories.values()
    places = [one.inner.untyped_storage()._weak_ref() for one in memory.layers[0]]
    del memory
    steps.stop("the device is full")
    gc.collect()
    assert [torch.UntypedStorage._new_with_weak_ptr(one) for one in places] == [None] * 3
    assert_same(decoder, 7)
