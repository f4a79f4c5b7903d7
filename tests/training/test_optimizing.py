"""Groups of parameters with their learning rates, of every class that can be trained; gradients, rates over time."""

import re

import pytest
import torch

from raysp import Schedule
from raysp.models import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel, registry
from raysp.training.loop.course import Course
from raysp.training.loop.optimizing import FlatGradients, group_parameters, new_optimizer, num_layers_above
from raysp.training.objectives.starting_model import head_names
from tests.models.decoder_oracles import BART, BERT, GPT2, save_parts
from tests.models.oracles import make_oracle
from tests.recipes import SMALL
from tests.training.conftest import small_model

ENCODERS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "hubert": ({}, ()),
    "sew-d": ({"conv_dim": (16,) * 13}, ("encoder.upsample",)),
    "unispeech": ({"do_stable_layer_norm": True, "feat_extract_norm": "layer"}, ("encoder.layer_norm",)),
    "wav2vec2": ({"add_adapter": True}, ("adapter",)),
    "wav2vec2-bert": (
        {"add_adapter": True, "use_intermediate_ffn_before_adapter": True},
        ("adapter", "intermediate_ffn"),
    ),
}
"""Fields of an encoder, and beginnings of the names of its parameters after the last layer, by its model type."""
DECODERS = {
    "bart": (BART, ("lm_head",)),
    "mbart": (BART, ("lm_head", "model.decoder.layer_norm")),
    "bert": (BERT, ("cls.predictions",)),
    "gpt2": (GPT2, ("lm_head", "transformer.ln_f")),
}
LAYER = re.compile(r"(?:^|\.)(?:layers?|h)\.(\d+)\.")


def layers_above(name: str, after: tuple[str, ...]) -> int:
    """Return the number of layers above a parameter, of two."""
    match = LAYER.search(name)
    return 0 if name.startswith(after) else 1 - int(match[1]) if match else 2


def rates_of(model, schedule: Schedule) -> dict[str, float]:
    """Return the factor of the learning rate of each parameter, each of which is in one group."""
    groups = group_parameters(model, schedule)
    rates = {id(weight): group["rate"] for group in groups for weight in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups)
    return {name: rates[id(weight)] for name, weight in model.named_parameters() if weight.requires_grad}


def encoder_config(kind: str, **fields: object):
    heads = {"tdnn_dim": (8, 8), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 8}
    return registry.config_class(kind)(**{**SMALL, **heads, **ENCODERS[kind][0], **fields})


@pytest.mark.parametrize("kind", ENCODERS)
def test_each_parameter_of_an_encoder_has_the_rate_of_its_layer_and_the_head_has_its_own(kind):
    for name, cls in registry.architectures_of(kind).items():
        fields = {}
        if not name.endswith(("Model", "ForCTC")):  # heads that take no adapter
            fields = {"add_adapter": False, "use_intermediate_ffn_before_adapter": False}
        model = cls(encoder_config(kind, **fields))
        prefix = "" if model.base_model is model else f"{cls.base_model_prefix}."
        layers, head = num_layers_above(model), head_names(model)
        assert head == {one for one in layers if not one.startswith(prefix)}
        for one in layers.keys() - head:
            assert layers[one] == layers_above(one.removeprefix(prefix), ENCODERS[kind][1]), (name, one)
        rates = rates_of(model, Schedule(steps=1, head_rate=7.0, layer_decay=0.5))
        assert rates == {one: 7.0 if one in head else 0.5 ** layers[one] for one in layers}


@pytest.mark.parametrize("kind", DECODERS)
def test_layers_of_an_encoder_and_of_its_decoder_are_counted_apart(kind):
    fields, after = DECODERS[kind]
    decoder = registry.config_class(kind)(**{**fields, "tie_word_embeddings": kind == "bart"})
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder_config("unispeech"), decoder)
    after = ("encoder.encoder.layer_norm", *(f"decoder.{name}" for name in after))
    layers = num_layers_above(SpeechEncoderDecoderModel(config))
    assert layers == {name: layers_above(name, after) for name in layers}
    assert {*layers.values()} == {0, 1, 2}


def test_the_head_of_an_encoder_decoder_is_what_no_checkpoint_has(tmp_path):
    encoder, decoder = save_parts(tmp_path)
    make_oracle(feat_extract_norm="layer", hidden_size=16).save_pretrained(encoder)
    model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(encoder, decoder)
    head = head_names(model)
    expected = {name for name, _ in model.named_parameters() if "crossattention" in name or "enc_to_dec" in name}
    assert head == expected
    assert "enc_to_dec_proj.weight" in head  # of another width
    rates = rates_of(model, Schedule(steps=1, head_rate=7.0))
    assert {name for name, rate in rates.items() if rate == 7.0} == head
    model.save_pretrained(tmp_path / "whole")
    assert head_names(SpeechEncoderDecoderModel.from_pretrained(tmp_path / "whole")) == set()


def test_vectors_have_no_weight_decay():
    optimizer = new_optimizer(group_parameters(small_model(), Schedule(steps=1, head_rate=1.0, weight_decay=0.1)))
    for group in optimizer.param_groups:
        assert {0.1 if parameter.ndim > 1 else 0.0 for parameter in group["params"]} == {group["weight_decay"]}


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
    final = 1.0 if shape == "constant" else 0.05
    course = Course(Schedule(epochs=1, learning_rate=1.0, shape=shape, warmup=0.1, final=final))
    assert [course.rate(point) for point in points] == pytest.approx(expected, abs=1e-3)
