"""Arguments, outputs and losses as the models' documents have them, class by class.

promises.md lists every promise with its test. Numbers are compared with transformers elsewhere.
"""

import inspect

import numpy as np
import pytest
import soundfile
import torch

import raysp.models
from raysp.models import (
    BertConfig,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    UniSpeechForPreTrainingOutput,
    Wav2Vec2BertProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)
from tests.models import oracles
from tests.models.decoder_oracles import BERT, VOCAB, token_ids
from tests.models.promises.promised import FORWARD, HEADS, LAYERS, ROWS, WIDTH, inputs_of, labels_of, tiny_model

# Arguments

SPEECH_TO_TEXT = [
    "inputs",
    "attention_mask",
    "decoder_input_ids",
    "decoder_attention_mask",
    "encoder_outputs",
    "past_key_values",
    "decoder_inputs_embeds",
    "labels",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "input_values",
    "input_features",
    "return_dict",
]


def arguments_of(function):
    """Return names and defaults, without `self`."""
    found = inspect.signature(function).parameters
    return {name: parameter.default for name, parameter in found.items() if name != "self"}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_takes_the_arguments_of_the_page_in_their_order(name):
    found = arguments_of(getattr(raysp.models, name).forward)
    assert [*found] == FORWARD[name]
    first, *others = found.values()
    assert first is inspect.Parameter.empty
    assert set(others) == {None}


@pytest.mark.parametrize("name", FORWARD)
def test_a_model_is_made_of_its_configuration(name):
    found = arguments_of(getattr(raysp.models, name))
    assert found == {"config": inspect.Parameter.empty, **({"target_lang": None} if name.endswith("ForCTC") else {})}


def test_speech_encoder_decoder_takes_the_arguments_of_the_page_in_their_order():
    found = arguments_of(SpeechEncoderDecoderModel.forward)
    assert [*found] == [*SPEECH_TO_TEXT, "kwargs"]
    assert {value for name, value in found.items() if name != "kwargs"} == {None}
    assert arguments_of(SpeechEncoderDecoderModel) == {"config": None, "encoder": None, "decoder": None}
    put = inspect.signature(SpeechEncoderDecoderModel.from_encoder_decoder_pretrained).parameters
    assert [*put] == [
        "encoder_pretrained_model_name_or_path",
        "decoder_pretrained_model_name_or_path",
        "model_args",
        "kwargs",
    ]
    assert [value.default for value in put.values()][:2] == [None, None]
    join = SpeechEncoderDecoderConfig.from_encoder_decoder_configs
    assert [*inspect.signature(join).parameters][:2] == ["encoder_config", "decoder_config"]


def test_the_output_of_pretraining_has_the_fields_of_the_page_in_their_order():
    fields = ["loss", "projected_states", "projected_quantized_states", "codevector_perplexity"]
    fields += ["hidden_states", "attentions"]
    assert arguments_of(UniSpeechForPreTrainingOutput) == dict.fromkeys(fields)
    assert UniSpeechForPreTrainingOutput(*range(6)).to_tuple() == (0, 1, 2, 3, 4, 5)


def test_processors_take_the_arguments_of_the_page_in_their_order():
    assert [*arguments_of(Wav2Vec2BertProcessor)] == ["feature_extractor", "tokenizer"]
    found = arguments_of(Wav2Vec2BertProcessor.__call__)
    assert (found.pop("audio"), found.pop("text"), [*found]) == (None, None, ["options"])
    found = arguments_of(Wav2Vec2BertProcessor.save_pretrained)
    assert [*found][:2] == ["save_directory", "push_to_hub"]
    assert found["push_to_hub"] is False


# Outputs


def expected_shapes(name, model, inputs):
    """Return the shape of every field but the loss, as the page has it."""
    config, frames = model.config, inputs.shape[1]
    if config.model_type != "wav2vec2-bert":
        frames = int(model.num_frames(frames))
    inner = frames // config.squeeze_factor if config.model_type == "sew-d" else frames
    match name.partition("For")[2] or "Model":
        case "Model":
            shapes = {"last_hidden_state": (ROWS, frames, WIDTH)}
            if config.model_type == "unispeech":
                shapes["extract_features"] = (ROWS, frames, config.conv_dim[-1])
            if config.model_type == "wav2vec2-bert":  # there is no convolution, whose width the page speaks of
                shapes["extract_features"] = (ROWS, frames, config.feature_projection_input_dim)
        case "CTC":
            shapes = {"logits": (ROWS, frames, config.vocab_size)}
        case "SequenceClassification":
            shapes = {"logits": (ROWS, 3)}
        case "AudioFrameClassification":
            shapes = {"logits": (ROWS, frames, 3)}
        case "XVector":
            shapes = dict.fromkeys(("logits", "embeddings"), (ROWS, config.xvector_output_dim))
        case "PreTraining":
            shapes = dict.fromkeys(("projected_states", "projected_quantized_states"), (ROWS, frames, WIDTH))
            shapes["codevector_perplexity"] = ()
    states = {"hidden_states": [(ROWS, inner, WIDTH)] * (LAYERS + 1)}
    return {**shapes, **states, "attentions": [(ROWS, HEADS, inner, inner)] * LAYERS}


def shapes_of(output):
    def shape(value):
        return [tuple(one.shape) for one in value] if isinstance(value, tuple) else tuple(value.shape)

    return {name: shape(output[name]) for name in output}


@torch.no_grad()
@pytest.mark.parametrize("name", FORWARD)
def test_outputs_have_the_fields_and_shapes_of_the_page(name):
    model = tiny_model(name)
    inputs = inputs_of(model.config)
    expected = expected_shapes(name, model, inputs)
    output = model(inputs, output_attentions=True, output_hidden_states=True)
    assert shapes_of(output) == expected
    for weights in output.attentions:  # after softmax
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    if "last_hidden_state" in expected and model.config.model_type != "sew-d":
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    labels = labels_of(name, model(inputs)[0])
    if labels is not None:
        found = shapes_of(model(inputs, labels=labels))
        assert [*found] == ["loss", *(field for field in expected if field not in ("hidden_states", "attentions"))]
        assert found["loss"] == ()


@torch.no_grad()
@pytest.mark.parametrize("name", FORWARD)
def test_states_and_attentions_are_returned_on_request(name):
    """By argument or by the configuration, where the argument goes first."""
    model = tiny_model(name)
    inputs = inputs_of(model.config)
    fields = {"output_hidden_states": "hidden_states", "output_attentions": "attentions"}
    for option, field in fields.items():
        assert getattr(model(inputs), field) is None
        assert getattr(model(inputs, **{option: True}), field) is not None
        setattr(model.config, option, True)
        assert getattr(model(inputs), field) is not None
        assert getattr(model(inputs, **{option: False}), field) is None
        setattr(model.config, option, False)


@torch.no_grad()
@pytest.mark.parametrize("name", FORWARD)
def test_a_plain_tuple_has_the_fields_that_are_there_in_their_order(name):
    """By argument or by the configuration, where the argument goes first."""
    model = tiny_model(name)
    inputs = inputs_of(model.config)
    named = model(inputs, output_hidden_states=True)
    plain = model(inputs, output_hidden_states=True, return_dict=False)
    assert type(plain) is tuple
    assert len(plain) == len(named.keys())
    for found, expected in zip(plain[:-1], named.to_tuple()[:-1], strict=True):
        assert torch.equal(found, expected)
    assert all(map(torch.equal, plain[-1], named.hidden_states))
    model.config.return_dict = False
    assert type(model(inputs)) is tuple
    assert torch.equal(model(inputs, return_dict=True)[0], named[0])


def test_a_model_is_an_ordinary_module_that_is_called():
    for name in FORWARD:
        model, called = tiny_model(name), []
        assert isinstance(model, torch.nn.Module)
        model.register_forward_hook(lambda *_, called=called: called.append(1))
        with torch.no_grad():
            model(inputs_of(model.config))
        assert called, name
        assert model.train().training
        assert not model.eval().training
        assert model.device == torch.device("cpu")
        assert model.to(torch.bfloat16).dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("name", ["SEWDModel", "UniSpeechModel", "Wav2Vec2BertModel"])
def test_frames_to_mask_may_be_given(name):
    """Their features are replaced by the learned vector, as theirs are; other frames come in unchanged."""
    model = tiny_model(name)
    inputs = inputs_of(model.config)
    frames = model(inputs).last_hidden_state.shape[1]
    masked = torch.zeros(ROWS, frames, dtype=torch.bool)
    masked[0, 3:9] = True
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(inputs)
    model(inputs, mask_time_indices=masked)
    assert (seen[1][masked] == model.masked_spec_embed).all()
    assert torch.equal(seen[1][~masked], seen[0][~masked])


# Waveforms


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_waveforms_are_read_by_soundfile_or_given_as_floats(tmp_path, ending):
    wave = np.random.default_rng(0).integers(-8000, 8000, 3200).astype(np.int16)
    path = tmp_path / f"one.{ending}"
    soundfile.write(path, wave, 16_000)
    read, rate = soundfile.read(path)
    extractor = Wav2Vec2FeatureExtractor()
    values = extractor(read, sampling_rate=rate, return_tensors="pt").input_values
    assert values.dtype == torch.float32
    assert values.shape == (1, 3200)
    from_list = extractor((wave / 32768).tolist(), sampling_rate=16_000, return_tensors="pt").input_values
    torch.testing.assert_close(values, from_list)
    padded = extractor([read, read[:1600]], sampling_rate=rate, padding=True, return_tensors="pt").input_values
    assert padded.shape == (2, 3200)


# Losses


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in FORWARD if name.endswith("ForCTC")])
def test_ctc_labels_are_tokens_or_ignored(name):
    model = tiny_model(name, ctc_loss_reduction="sum")
    inputs = inputs_of(model.config)
    loss = model(inputs, labels=torch.tensor([[5, 6, 19], [7, -100, -100]])).loss
    alone = [model(inputs[:1], labels=torch.tensor([[5, 6, 19]])), model(inputs[1:], labels=torch.tensor([[7]]))]
    torch.testing.assert_close(loss, sum(one.loss for one in alone))
    for wrong in (20, -1):
        with pytest.raises(ValueError, match=f"label {wrong} found, expected"):
            model(inputs, labels=torch.tensor([[5], [wrong]]))


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in FORWARD if name.endswith("ForSequenceClassification")])
def test_one_class_is_a_regression_and_several_are_a_classification(name):
    labels = torch.tensor([1, 0])
    model = tiny_model(name, num_labels=1)
    inputs = inputs_of(model.config)
    output = model(inputs, labels=labels)
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - labels).square().mean())
    model = tiny_model(name)
    output = model(inputs, labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    with pytest.raises(ValueError, match="label 3 found, expected below num_labels 3"):
        model(inputs, labels=torch.tensor([3, 0]))


# Speech encoder decoder


def speech_to_text(**flags):
    torch.manual_seed(0)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**oracles.TINY), BertConfig(**BERT), decoder_start_token_id=3, pad_token_id=0, **flags
    )
    return SpeechEncoderDecoderModel(config).eval()


@torch.no_grad()
def test_speech_encoder_decoder_outputs_have_the_fields_and_shapes_of_the_page():
    """Cross attentions have the encoder's frames last, where the page says the decoder's length."""
    model = speech_to_text()
    waves, ids = torch.randn(ROWS, 1500), token_ids(ROWS, 5)
    frames = int(model.num_frames(1500))
    asked = {"output_attentions": True, "output_hidden_states": True, "use_cache": True}
    output = model(waves, labels=ids, **asked)
    past = [(ROWS, HEADS, 5, 8)] * 2 + [(ROWS, HEADS, frames, 8)] * 2
    assert [[tuple(one.shape) for one in layer] for layer in output.past_key_values] == [past] * LAYERS
    shapes = {name: output[name] for name in output if name != "past_key_values"}
    assert {
        name: [tuple(one.shape) for one in value] if isinstance(value, tuple) else tuple(value.shape)
        for name, value in shapes.items()
    } == {
        "loss": (),
        "logits": (ROWS, 5, VOCAB),
        "decoder_hidden_states": [(ROWS, 5, WIDTH)] * (LAYERS + 1),
        "decoder_attentions": [(ROWS, HEADS, 5, 5)] * LAYERS,
        "cross_attentions": [(ROWS, HEADS, 5, frames)] * LAYERS,
        "encoder_last_hidden_state": (ROWS, frames, WIDTH),
        "encoder_hidden_states": [(ROWS, frames, WIDTH)] * (LAYERS + 1),
        "encoder_attentions": [(ROWS, HEADS, frames, frames)] * LAYERS,
    }
    assert [*model(waves, decoder_input_ids=ids, use_cache=False)] == ["logits", "encoder_last_hidden_state"]
    model.config.decoder.use_cache = False
    assert model(waves, decoder_input_ids=ids).past_key_values is None


@torch.no_grad()
def test_padding_behind_a_text_needs_no_mask():
    """The page makes one by default and neither library does: what stands behind a token has no part in it."""
    model = speech_to_text()
    waves, ids = torch.randn(ROWS, 1500), token_ids(ROWS, 6)
    ids[0, 4:] = model.config.pad_token_id
    masked = model(waves, decoder_input_ids=ids, decoder_attention_mask=(ids != 0).long()).logits
    found = model(waves, decoder_input_ids=ids).logits
    torch.testing.assert_close(found[0, :4], masked[0, :4])
    torch.testing.assert_close(found[1], masked[1])
    torch.testing.assert_close(model(waves[:1], decoder_input_ids=ids[:1, :4]).logits[0], found[0, :4])


def test_embeddings_of_speech_are_no_argument():
    """The page describes `inputs_embeds` and its signature lacks it; no encoder of speech takes them."""
    with pytest.raises(TypeError, match="inputs_embeds"):
        speech_to_text()(torch.randn(1, 1500), inputs_embeds=torch.zeros(1, 4, 32), labels=token_ids(1, 3))


def test_further_arguments_go_to_the_parts_classes(tmp_path):
    """None of which takes one."""
    for folder, config in (("encoder", Wav2Vec2Config(**oracles.TINY)), ("decoder", BertConfig(**BERT))):
        auto = raysp.models.AutoModel if folder == "encoder" else raysp.models.AutoModelForCausalLM
        auto.from_config(config).save_pretrained(tmp_path / folder)
    with pytest.raises(TypeError, match="positional argument"):
        SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder", "more")


def test_a_configuration_of_two_may_be_of_a_derived_class():
    class Mine(SpeechEncoderDecoderConfig):
        pass

    made = Mine.from_encoder_decoder_configs(Wav2Vec2Config(**oracles.TINY), BertConfig(**BERT), my_own=3)
    assert type(made) is Mine
    assert (made.my_own, made.encoder.hidden_size, made.decoder.add_cross_attention) == (3, 32, True)
