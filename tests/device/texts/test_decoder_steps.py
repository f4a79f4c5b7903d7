"""Steps of text decoders on the stand-in device: projections in one product, keys and values by one copy."""

import re
from collections import Counter
from threading import Event

import pytest
import torch

import raysp
from raysp.models import (
    BartConfig,
    BartForCausalLM,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    KeyValueCache,
)
from raysp.models.base.folded import JoinedProduct, StepLinear
from tests.device.stand_in import NAME, counted
from tests.ops.test_labelling import block_of, labels
from tests.ops.test_precision import noise, op

DECODERS = {
    "bart": lambda: BartForCausalLM(
        BartConfig(vocab_size=60, d_model=16, decoder_layers=3, decoder_attention_heads=2, decoder_ffn_dim=32)
    ),
    "bert": lambda: BertLMHeadModel(
        BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
            is_decoder=True, add_cross_attention=True,
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=60, n_embd=16, n_layer=3, n_head=2, is_decoder=True, add_cross_attention=True)
    ),
}  # fmt: skip


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return [StepLinear(8, 6).to(NAME).eval() for _ in range(3)]


def places(decoder: torch.nn.Module, tokens: int) -> Counter[str]:
    """Return the launches by file and function."""
    with counted() as counts:
        decoder.generate(
            torch.full((4, 1), 2).to(NAME), encoder_hidden_states=torch.randn(4, 9, 16).to(NAME),
            max_new_tokens=tokens, min_new_tokens=tokens, eos_token_id=2, pad_token_id=1,
        )  # fmt: skip
    found = Counter[str]()
    for where, count in counts.launches_at.items():
        found[re.sub(r":\d+ ", " ", where.partition(" at ")[2])] += count
    return found


@pytest.mark.parametrize("kind", DECODERS)
def test_a_step_projects_the_tokens_once_and_writes_keys_and_values_once_a_layer(kind):
    torch.manual_seed(0)
    decoder = DECODERS[kind]().init_weights().to(NAME).eval()
    places(decoder, 2)  # weights are joined
    more = places(decoder, 9)
    more.subtract(places(decoder, 5))
    steps, layers = 4, 3
    assert more["models/decoder/cache.py append"] == steps * layers
    products = more["models/base/folded.py __call__"]
    head = {"bert": 2}.get(kind, 1)
    assert products == steps * (6 * layers + head)  # of three, out, of frames, out, and the two of the network
    assert more["models/base/folded.py join"] == 0


def test_joined_layers_give_what_each_gives(layers):
    joined, x = JoinedProduct(), torch.randn(4, 1, 8).to(NAME)
    with torch.no_grad():
        found = joined(x, layers)
        torch.testing.assert_close(found.cpu(), torch.cat([one(x).cpu() for one in layers], -1))
        layers[1].weight.mul_(2.0)
        torch.testing.assert_close(joined(x, layers).cpu(), torch.cat([one(x).cpu() for one in layers], -1))


def test_layers_that_do_more_are_called_one_by_one(layers):
    joined, x = JoinedProduct(), torch.randn(4, 1, 8).to(NAME)
    assert joined(x, layers) is None  # with gradients
    with torch.no_grad():
        assert joined(torch.randn(4, 2, 8).to(NAME), layers) is None
        assert joined(torch.randn(4, 1, 8), [one.cpu() for one in [StepLinear(8, 6)] * 3]) is None
        assert joined(x.bfloat16(), layers) is None
        assert joined(x, [*layers[:2], torch.nn.Linear(8, 6).to(NAME)]) is None
        handle = layers[0].register_forward_hook(lambda *_: None)
        assert joined(x, layers) is None
        handle.remove()
        assert joined(x, layers) is not None


@pytest.mark.parametrize("room", [0, 5])
def test_a_cache_on_a_device_keeps_what_one_on_the_host_keeps(room):
    torch.manual_seed(0)
    here, there = KeyValueCache(1, room), KeyValueCache(1, room)
    for step in range(8):  # past its room it grows
        new = torch.randn(2, 2, 3, 1 + (step == 0), 4)
        given = tuple(new.to(NAME)) if step in (0, 3) else new.to(NAME)
        for mine, other in zip(here.layers[0].append(new), there.layers[0].append(given), strict=True):
            assert torch.equal(mine, other.cpu())
        rows = torch.randint(0, 2, (2,))
        here.select(rows)
        there.select(rows.to(NAME))


def test_the_next_batches_are_encoded_while_texts_are_written(checkpoints, monkeypatch):
    folder, outputs = checkpoints("SpeechEncoderDecoderModel"), [raysp.Transcript(generate={"max_new_tokens": 6})]
    waves = noise([1.5, 1.1, 0.7, 1.3, 0.9], seed=2)
    expected = labels(op(folder, outputs, 2, dtype="float32"), block_of(waves))
    one = op(folder, outputs, 2, dtype="float32", device=NAME)
    third, counts, ahead = Event(), Counter[str](), []
    [writing] = one.outputs
    forward, write = one.forward, writing.write

    def forward_and_tell(*args):
        result = forward(*args)
        counts["encoded"] += 1
        if counts["encoded"] == 3:
            third.set()
        return result

    def write_when_the_next_is_encoded(*args):
        counts["written"] += 1
        if counts["written"] == 2:
            ahead.append(third.wait(20))
        return write(*args)

    monkeypatch.setattr(one, "forward", forward_and_tell)
    monkeypatch.setattr(writing, "write", write_when_the_next_is_encoded)
    found = labels(one, block_of(waves))
    assert ahead == [True]
    assert counts["written"] > 2
    assert [label["pred_text"] for label in found.values()] == [label["pred_text"] for label in expected.values()]
