"""What is derived from weights follows them however they change: evaluation is that of a model made of them."""

import copy
import io

import pytest
import torch

import raysp.models
from tests.models.cases import width_of
from tests.models.decoder_oracles import BART, BERT, GPT2, VOCAB
from tests.models.oracles import fields_of
from tests.models.parity import inputs_and_mask

ENCODERS = ("UniSpeechForCTC", "Wav2Vec2ForCTC", "SEWDForCTC", "Wav2Vec2BertForCTC")
DECODERS = {
    "BertLMHeadModel": {**BERT, "is_decoder": True},
    "GPT2LMHeadModel": GPT2,
    "BartForCausalLM": {**BART, "add_cross_attention": False},
}


def model_of(name):
    torch.manual_seed(0)
    cls = getattr(raysp.models, name)
    flags = {"feat_extract_norm": "layer", "do_stable_layer_norm": True} if name == "Wav2Vec2ForCTC" else {}
    return cls(cls.config_class(**(DECODERS[name] if name in DECODERS else fields_of(name, flags)))).eval()


def inputs_of(model):
    """Return rows of speech, or the first token of four texts: a step whose products are packed."""
    if (name := type(model).__name__) in DECODERS:
        return torch.randint(4, VOCAB, (4, 1), generator=torch.Generator().manual_seed(1))
    return inputs_and_mask((1500, 1500) if width_of(name) is None else (60, 60), width_of(name))[0].to(model.dtype)


def evaluated(model):
    with torch.no_grad():
        return model(inputs_of(model)).logits


def made_of_its_weights(model):
    """Return a model that was just made, with the weights of another."""
    other = type(model)(copy.deepcopy(model.config)).to(model.dtype)
    other.load_state_dict(model.state_dict())
    other.tie_weights()
    return other.eval()


def a_fused_step(model):
    """Change weights as the fused optimizer does, which counts up no version."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    model(inputs_of(model)).logits.square().mean().backward()
    optimizer.step()


def data_and_eval(model):
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.eval()


def load_by_assigning(model):
    model.load_state_dict({name: value + 0.1 for name, value in model.state_dict().items()}, assign=True)
    model.tie_weights()


def another_type(model):
    data_and_eval(model)
    model.to(torch.float64)


CHANGES = [data_and_eval, load_by_assigning, another_type]


@pytest.mark.parametrize(
    ("name", "change"),
    [*(("UniSpeechForCTC", change) for change in CHANGES), *((name, a_fused_step) for name in (*ENCODERS, *DECODERS))],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_evaluation_after_a_change_is_that_of_the_weights(name, change):
    model = model_of(name)
    before = evaluated(model)
    change(model)
    expected = evaluated(made_of_its_weights(model))
    assert not torch.allclose(expected, before.to(expected.dtype), atol=1e-3)
    torch.testing.assert_close(evaluated(model), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["SEWDForCTC", "BertLMHeadModel"])
def test_copies_and_pickles_follow_their_own_weights(name):
    model, stream = model_of(name), io.BytesIO()
    before = evaluated(model)
    torch.save(model, stream)
    stream.seek(0)
    for other in (copy.deepcopy(model), torch.load(stream, weights_only=False)):
        torch.testing.assert_close(evaluated(other), before)
        data_and_eval(other)
        torch.testing.assert_close(evaluated(other), evaluated(made_of_its_weights(other)), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(evaluated(model), before)
