"""What is derived from weights follows them however they change: evaluation is that of a model made of them."""

import copy
import io

import pytest
import torch

import raysp.models
from tests.models.decoder_oracles import BART, BERT, GPT2, VOCAB
from tests.models.oracles import TINY, TINY_SEW_D, TINY_WAV2VEC2_BERT
from tests.models.parity import inputs_and_mask

DECODER = {"is_decoder": True, "add_cross_attention": False}
MODELS = {
    "UniSpeechForCTC": TINY,
    "Wav2Vec2ForCTC": {**TINY, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "SEWDForCTC": TINY_SEW_D,
    "Wav2Vec2BertForCTC": TINY_WAV2VEC2_BERT,
    "BertLMHeadModel": {**BERT, **DECODER},
    "GPT2LMHeadModel": GPT2,
    "BartForCausalLM": {**BART, **DECODER},
}


def model_of(name):
    torch.manual_seed(0)
    cls = getattr(raysp.models, name)
    return cls(cls.config_class(**MODELS[name])).eval()


def inputs_of(model):
    """Return rows of speech, or the first token of four texts: a step whose products are packed."""
    if not hasattr(model, "freeze_base_model"):
        return torch.randint(4, VOCAB, (4, 1), generator=torch.Generator().manual_seed(1))
    width = getattr(model.config, "feature_projection_input_dim", None)
    return inputs_and_mask((1500, 1500) if width is None else (60, 60), width)[0].to(model.dtype)


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


def a_fused_step_in_training(model):
    a_fused_step(model.train())
    model.eval()


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


CHANGES = [a_fused_step_in_training, data_and_eval, load_by_assigning, another_type]


@pytest.mark.parametrize(
    ("name", "change"),
    [*(("UniSpeechForCTC", change) for change in CHANGES), *((name, a_fused_step) for name in MODELS)],
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
