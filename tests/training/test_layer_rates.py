"""Learning rates of the layers of every class that can be trained, and of its head."""

import pytest

from raysp import Schedule
from raysp.models import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel, TextTokenizer, registry
from raysp.models.encoder.speech_model import SpeechModel
from raysp.training.loop.optimizing import group_parameters, num_layers_above
from raysp.training.objectives.starting_model import head_names
from tests.models.decoder_oracles import BART, BERT, GPT2, save_parts
from tests.models.oracles import make_oracle
from tests.training.conftest import SMALL
from tests.training.criteria import encoder_decoder

TRANSFORMER = {
    "masked_spec_embed": 2,
    "feature_extractor": 2,
    "feature_projection": 2,
    "encoder.pos_conv_embed": 2,
    "encoder.layer_norm": 2,
    "encoder.layers.0": 1,
    "encoder.layers.1": 0,
}
STABLE = {**TRANSFORMER, "encoder.layer_norm": 0}
ENCODERS = {  # model_type: fields, and the number of layers above the parameters with each prefix
    "hubert": ({}, TRANSFORMER),
    "sew-d": (
        {"conv_dim": (16,) * 13},
        {
            "masked_spec_embed": 2,
            "feature_extractor": 2,
            "layer_norm": 2,
            "feature_projection": 2,
            "encoder.pos_conv_embed": 2,
            "encoder.encoder.rel_embeddings": 2,
            "encoder.encoder.LayerNorm": 2,
            "encoder.encoder.layer.0": 1,
            "encoder.encoder.layer.1": 0,
            "encoder.upsample": 0,
        },
    ),
    "unispeech": ({"do_stable_layer_norm": True, "feat_extract_norm": "layer"}, STABLE),
    "wav2vec2": ({"add_adapter": True}, {**TRANSFORMER, "adapter": 0}),
    "wav2vec2-bert": (
        {"add_adapter": True, "use_intermediate_ffn_before_adapter": True},
        {
            "masked_spec_embed": 2,
            "feature_projection": 2,
            "encoder.layers.0": 1,
            "encoder.layers.1": 0,
            "intermediate_ffn": 0,
            "adapter": 0,
        },
    ),
}
DECODERS = {
    "bart": (
        BART,
        {
            "model.decoder.embed_tokens": 2,
            "model.decoder.embed_positions": 2,
            "model.decoder.layernorm_embedding": 2,
            "model.decoder.layers.0": 1,
            "model.decoder.layers.1": 0,
        },
    ),
    "bert": (
        BERT,
        {"bert.embeddings": 2, "bert.encoder.layer.0": 1, "bert.encoder.layer.1": 0, "cls.predictions": 0},
    ),
    "gpt2": (
        GPT2,
        {
            "transformer.wte": 2,
            "transformer.wpe": 2,
            "transformer.h.0": 1,
            "transformer.h.1": 0,
            "transformer.ln_f": 0,
        },
    ),
}
DECODERS["mbart"] = (BART, {**DECODERS["bart"][1], "model.decoder.layer_norm": 0})


def rates_of(model, schedule: Schedule) -> dict[str, float]:
    """Return the factor of the learning rate of each parameter, each of which is in one group."""
    groups = group_parameters(model, schedule)
    rates = {id(weight): group["rate"] for group in groups for weight in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups)
    return {name: rates[id(weight)] for name, weight in model.named_parameters() if weight.requires_grad}


def classes() -> list[type[SpeechModel]]:
    return [one for kind in ENCODERS for one in registry.architectures_of(kind).values()]


def encoder_config(kind: str, **fields: object):
    heads = {"tdnn_dim": (8, 8), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 8}
    return registry.config_class(kind)(**{**SMALL, **heads, **ENCODERS[kind][0], **fields})


def by_prefix(names, expected: dict[str, object]) -> dict[str, object]:
    """Return the value of the longest prefix of each name; all prefixes must occur."""
    found = {name: max((one for one in expected if f"{name}.".startswith(f"{one}.")), key=len) for name in names}
    assert {*found.values()} == {*expected}
    return {name: expected[prefix] for name, prefix in found.items()}


def test_each_architecture_of_an_encoder_has_its_expectation():
    assert sorted(ENCODERS) == registry.encoder_types()
    assert sorted(DECODERS) == registry.decoder_types()


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_each_parameter_of_an_encoder_has_the_rate_of_its_layer_and_the_head_has_its_own(cls):
    kind = cls.config_class.model_type
    expected = ENCODERS[kind][1]
    if cls.__name__.endswith(("Model", "ForCTC")):
        model = cls(encoder_config(kind))
    else:  # heads that take no adapter
        model = cls(encoder_config(kind, add_adapter=False, use_intermediate_ffn_before_adapter=False))
        expected = {name: number for name, number in expected.items() if name not in ("adapter", "intermediate_ffn")}
    prefix = "" if model.base_model is model else f"{cls.base_model_prefix}."
    layers, head = num_layers_above(model), head_names(model)
    of_base = {f"{prefix}{name}": number for name, number in expected.items()}
    assert {name: layers[name] for name in layers if name not in head} == by_prefix(layers.keys() - head, of_base)
    assert head == {name for name in layers if not name.startswith(prefix)}
    rates = rates_of(model, Schedule(steps=1, head_rate=7.0, layer_decay=0.5))
    assert rates == {name: 7.0 if name in head else 0.5 ** layers[name] for name in layers}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", DECODERS)
def test_layers_of_an_encoder_and_of_its_decoder_are_counted_apart(kind, tied):
    fields, of_decoder = DECODERS[kind]
    decoder = registry.config_class(kind)(**{**fields, "tie_word_embeddings": tied})
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder_config("unispeech"), decoder)
    layers = num_layers_above(SpeechEncoderDecoderModel(config))
    expected = {f"encoder.{name}": number for name, number in STABLE.items()}
    expected |= {f"decoder.{name}": number for name, number in of_decoder.items()}
    if not tied and kind != "bert":
        expected["decoder.lm_head"] = 0
    assert layers == by_prefix(layers, expected)


@pytest.mark.parametrize("width", [32, 16])
def test_the_head_of_an_encoder_decoder_is_what_no_checkpoint_has(tmp_path, width):
    encoder, decoder = save_parts(tmp_path)
    make_oracle(feat_extract_norm="layer", hidden_size=width).save_pretrained(encoder)
    model = encoder_decoder(encoder, TextTokenizer.from_pretrained(decoder), decoder=decoder)
    head = head_names(model)
    expected = {name for name, _ in model.named_parameters() if "crossattention" in name or "enc_to_dec" in name}
    assert head == expected
    assert ("enc_to_dec_proj.weight" in head) == (width != 32)
    rates = rates_of(model, Schedule(steps=1, head_rate=7.0))
    assert {name for name, rate in rates.items() if rate == 7.0} == head
    model.save_pretrained(tmp_path / "whole")
    assert head_names(SpeechEncoderDecoderModel.from_pretrained(tmp_path / "whole")) == set()
