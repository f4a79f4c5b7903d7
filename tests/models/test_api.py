"""Names, arguments, outputs and messages of the public classes of models, as programs for transformers use them."""

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import raysp.models
from raysp import CheckpointError
from raysp.models import (
    AutoModelForCTC,
    GenerationConfig,
    SpeechEncoderDecoderModel,
    UniSpeechConfig,
    UniSpeechForCTC,
)
from tests.models.cases import batch_of
from tests.models.oracles import random_model, transformers
from tests.models.parity import waves_and_mask

DIGITS = Path(__file__).parents[2] / "pipelines" / "demo" / "unispeech-digits-ctc"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"
LIBRARIES = (raysp.models, transformers)
WAVES = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
WAVE, FEATURES = ["input_values", "attention_mask"], ["input_features", "attention_mask"]
ASKED = ["output_attentions", "output_hidden_states", "return_dict"]
FORWARD = {
    "SEWDModel": [*WAVE, "mask_time_indices", *ASKED],
    "SEWDForCTC": [*WAVE, *ASKED, "labels"],
    "SEWDForSequenceClassification": [*WAVE, *ASKED, "labels"],
    "Wav2Vec2BertModel": [*FEATURES, "mask_time_indices", *ASKED],
    "Wav2Vec2BertForCTC": [*FEATURES, *ASKED, "labels"],
    "Wav2Vec2BertForSequenceClassification": [*FEATURES, *ASKED, "labels"],
    "Wav2Vec2BertForAudioFrameClassification": [*FEATURES, "labels", *ASKED],
    "Wav2Vec2BertForXVector": [*FEATURES, *ASKED, "labels"],
    "UniSpeechModel": [*WAVE, "mask_time_indices", *ASKED],
    "UniSpeechForCTC": [*WAVE, *ASKED, "labels"],
    "UniSpeechForSequenceClassification": [*WAVE, *ASKED, "labels"],
    # The last two are described on the page and missing in its signature.
    "UniSpeechForPreTraining": [*WAVE, *ASKED, "mask_time_indices", "sampled_negative_indices"],
    "SpeechEncoderDecoderModel": [
        "inputs", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "encoder_outputs", "past_key_values",
        "decoder_inputs_embeds", "labels", "use_cache", "output_attentions", "output_hidden_states", "input_values",
        "input_features", "return_dict", "kwargs",
    ],
}  # fmt: skip
"""Arguments of `forward` on the pages of the documents, in their order."""


# Names


def test_names_resolve_when_first_used():
    for name in raysp.models.__all__:
        assert getattr(raysp.models, name).__name__ == name
        assert name in dir(raysp.models)
    assert {*FORWARD, "AutoProcessor", "Wav2Vec2BertProcessor", "UniSpeechForPreTrainingOutput"} < {
        *raysp.models.__all__
    }
    with pytest.raises(AttributeError, match="attribute Missing"):
        _ = raysp.models.Missing
    code = "import sys, raysp.models, raysp.text; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name",
    ["BatchEncoding", "BertForCausalLM", "PreTrainedTokenizer", "Speech2TextFeatureExtractor", "Speech2TextProcessor"],
)
def test_a_missing_class_is_an_error_with_its_replacement(name):
    with pytest.raises(ImportError, match=f"'{name}' is not in raysp: ") as caught:
        exec(f"from raysp.models import {name}")
    instead = [word.strip(",.") for word in str(caught.value).partition(": ")[2].split() if word[:1].isupper()]
    assert instead
    assert {*instead} <= {"BatchFeature", *raysp.models.__all__}


def arguments_of(function):
    """Return names and defaults, without `self`."""
    return {name: one.default for name, one in inspect.signature(function).parameters.items() if name != "self"}


@pytest.mark.parametrize("name", FORWARD)
def test_classes_take_the_arguments_of_the_page_in_their_order(name):
    cls = getattr(raysp.models, name)
    found = arguments_of(cls.forward)
    assert [*found] == FORWARD[name]
    first, *others = (value for argument, value in found.items() if argument != "kwargs")
    assert {*others} == {None}
    made = {"config": inspect.Parameter.empty, **({"target_lang": None} if name.endswith("ForCTC") else {})}
    if name == "SpeechEncoderDecoderModel":
        put = inspect.signature(cls.from_encoder_decoder_pretrained).parameters
        named = [f"{part}_pretrained_model_name_or_path" for part in ("encoder", "decoder")]
        assert [*put] == [*named, "model_args", "kwargs"]
        made = {"config": None, "encoder": None, "decoder": None}
    else:
        assert first is inspect.Parameter.empty
    assert arguments_of(cls) == made


@torch.no_grad()
@pytest.mark.parametrize("name", ["SEWDForSequenceClassification", "UniSpeechModel", "Wav2Vec2BertForXVector"])
def test_outputs_are_named_plain_or_with_states_on_request(name):
    """By argument or by the configuration, where the argument goes first; a row of attention sums to one."""
    model = random_model(name)
    inputs, _ = batch_of(name)
    for option, field in {"output_hidden_states": "hidden_states", "output_attentions": "attentions"}.items():
        assert getattr(model(inputs), field) is None
        found = getattr(model(inputs, **{option: True}), field)
        setattr(model.config, option, True)
        assert getattr(model(inputs), field) is not None
        assert getattr(model(inputs, **{option: False}), field) is None
        setattr(model.config, option, False)
    for weights in found:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    named = model(inputs, output_hidden_states=True)
    plain = model(inputs, output_hidden_states=True, return_dict=False)
    assert type(plain) is tuple
    assert len(plain) == len(named.keys())
    assert all(map(torch.equal, plain[:-1], named.to_tuple()[:-1]))
    assert all(map(torch.equal, plain[-1], named.hidden_states))
    model.config.return_dict = False
    assert type(model(inputs)) is tuple
    assert torch.equal(model(inputs, return_dict=True)[0], named[0])


def test_outputs_read_by_position_name_and_attribute():
    output = random_model()(waves_and_mask()[0])
    assert output[0] is output.logits is output["logits"]
    assert output.loss is None
    (logits,) = output.values()
    assert logits is output.logits
    with pytest.raises(KeyError):
        output["loss"]
    with pytest.raises(
        KeyError, match="CausalLMOutput has no field 'los', expected one of loss, logits, hidden_states"
    ):
        output["los"] = 1


@torch.no_grad()
@pytest.mark.parametrize("name", ["SEWDModel", "UniSpeechModel", "Wav2Vec2BertModel"])
def test_frames_to_mask_may_be_given(name):
    """Their features are replaced by the learned vector, as theirs are; other frames come in unchanged."""
    model = random_model(name)
    inputs, _ = batch_of(name)
    masked = torch.zeros(model(inputs).last_hidden_state.shape[:2], dtype=torch.bool)
    masked[0, 3:9] = True
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(inputs)
    model(inputs, mask_time_indices=masked)
    assert (seen[1][masked] == model.masked_spec_embed).all()
    assert torch.equal(seen[1][~masked], seen[0][~masked])
    with pytest.raises(ValueError, match="without masked_spec_embed"):
        random_model(name, mask_time_prob=0.0)(inputs, mask_time_indices=masked)


def test_configuration_is_read_when_called():
    model, (waves, _) = random_model(), waves_and_mask()
    labels = torch.tensor([[5, 6]] * 4)
    by_mean = model(waves, labels=labels).loss
    model.config.ctc_loss_reduction = "sum"
    assert model(waves, labels=labels).loss > by_mean


def test_heads_are_not_pruned_and_the_error_says_what_to_do():
    with pytest.raises(
        NotImplementedError, match=r"UniSpeechForCTC: pruning of attention heads is not supported .* to 0"
    ):
        random_model().prune_heads({0: [1]})


# Configurations


@pytest.mark.parametrize("family", ["SEWD", "Wav2Vec2Bert", "UniSpeech"])
def test_a_configuration_is_a_plain_dict_and_takes_more_than_its_fields(family, tmp_path):
    config = getattr(raysp.models, f"{family}Config")
    made = config(hidden_size=48, my_own=[1, {"a": None}], diversity_loss_weight=0.2)
    values = made.to_dict()
    assert type(values) is dict
    assert (values["hidden_size"], values["my_own"], values["diversity_loss_weight"]) == (48, [1, {"a": None}], 0.2)
    assert config.from_dict(values) == made
    made.save_pretrained(tmp_path)
    assert config.from_pretrained(tmp_path) == made
    assert config.from_pretrained(tmp_path, mask_time_prob=0.2).mask_time_prob == 0.2
    assert getattr(transformers, f"{family}Config").from_pretrained(tmp_path).hidden_size == 48


def test_classes_have_names_both_ways(tmp_path):
    assert UniSpeechConfig().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert UniSpeechConfig(num_labels=1).label2id == {"LABEL_0": 0}
    named = UniSpeechConfig(id2label={"0": "down", "1": "go", "2": "up"})
    assert (named.num_labels, named.label2id) == (3, {"down": 0, "go": 1, "up": 2})
    named.save_pretrained(tmp_path)
    assert UniSpeechConfig.from_pretrained(tmp_path) == named
    again = UniSpeechConfig.from_pretrained(tmp_path, id2label={0: "yes", 1: "no"})
    assert (again.num_labels, again.label2id) == (2, {"yes": 0, "no": 1})
    assert UniSpeechConfig.from_pretrained(tmp_path, num_labels=2).label2id == {"LABEL_0": 0, "LABEL_1": 1}


UNUSED = {"SEWD": {"hidden_dropout"}, "Wav2Vec2Bert": set(), "UniSpeech": {"feat_quantizer_dropout"}}
"""Probabilities that models of CTC do not use: the first is deprecated, the last is of pre-training."""


@torch.no_grad()
@pytest.mark.parametrize("family", UNUSED)
def test_each_probability_acts_in_training_alone(family):
    name = f"{family}ForCTC"
    inputs, _ = batch_of(name)
    names = [n for n in vars(getattr(raysp.models, f"{family}Config")()) if n.endswith("_dropout") or n == "layerdrop"]
    still = {**dict.fromkeys(names, 0.0), "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    for acting in [*names, "mask_time_prob", "mask_feature_prob"]:
        flags = {**still, acting: 0.6, "mask_time_length": 3, "mask_feature_length": 4}
        model = random_model(name, **flags)
        expected = model(inputs).logits
        torch.manual_seed(3)
        assert torch.allclose(model.train()(inputs).logits, expected, atol=1e-5) == (acting in UNUSED[family]), acting
        model.config.apply_spec_augment = False
        if acting.startswith("mask"):
            torch.testing.assert_close(model(inputs).logits, expected)


# Values, keywords and messages beside those of transformers


OF_MODELS = {
    "bfloat16": lambda it: it.to(torch.bfloat16)(WAVES.bfloat16()).logits.dtype,
    "num_parameters": lambda it: (it.num_parameters(), it.num_parameters(only_trainable=True)),
    "name_or_path": lambda it: (it.name_or_path, it.config.name_or_path, it.config._name_or_path),
    "modes": lambda it: (
        it.device,
        it.dtype,
        it.training,
        it.train().training,
        it.eval().training,
        it.to("cpu").device,
    ),
    "loss": lambda it: round(float(it(WAVES, labels=torch.tensor([[5, 6], [7, -100]])).loss), 3),
}
OF_LOADING = {
    "dtype": {"dtype": "bfloat16"},
    "auto": {"torch_dtype": "auto"},
    "device_map": {"device_map": {"": "cpu"}},
    "config": {"config": str(DIGITS)},
    "fields": {"ctc_loss_reduction": "sum", "attention_dropout": 0.25, "mask_time_prob": 0.125, "vocab_size": 20},
    "another head": {"vocab_size": 7, "ignore_mismatched_sizes": True},
    "access": {"token": None, "revision": "main", "cache_dir": None, "local_files_only": True, "force_download": False},
    "defaults": {"low_cpu_mem_usage": True, "use_safetensors": True, "trust_remote_code": False, "weights_only": True},
    "none": {"quantization_config": None, "key_mapping": None, "tp_plan": None, "adapter_kwargs": None},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OF_MODELS)
def test_models_have_the_values_of_transformers(name):
    found, expected = (OF_MODELS[name](models.AutoModelForCTC.from_pretrained(str(DIGITS))) for models in LIBRARIES)
    assert found == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OF_LOADING)
def test_keywords_of_loading_give_the_model_of_transformers(name):
    ours, theirs = (models.AutoModelForCTC.from_pretrained(DIGITS, **OF_LOADING[name]) for models in LIBRARIES)
    for one in ("dtype", "device", "lm_head.weight.shape"):
        mine, other = ours, theirs
        for part in one.split("."):
            mine, other = getattr(mine, part), getattr(other, part)
        assert mine == other
    assert ours.config.to_dict()["dtype"] == theirs.config.to_dict()["dtype"]
    for field in ("dtype", "ctc_loss_reduction", "attention_dropout", "mask_time_prob", "vocab_size"):
        assert getattr(ours.config, field) == getattr(theirs.config, field)


AUTO = ("AutoConfig", "AutoModelForCTC", "AutoTokenizer", "AutoFeatureExtractor", "AutoProcessor")


def test_a_folder_that_is_missing_is_an_oserror(tmp_path):
    for name in (*AUTO, "UniSpeechConfig", "UniSpeechForCTC", "Wav2Vec2CTCTokenizer"):
        for models in LIBRARIES:
            with pytest.raises(OSError, match="missing"):
                getattr(models, name).from_pretrained(tmp_path / "missing")
        with pytest.raises(OSError, match=re.escape(str(tmp_path))):  # and one without the files
            getattr(raysp.models, name).from_pretrained(tmp_path)


def taken(call: str) -> set[str]:
    """Return the keywords that the table of the documents names as taken by a call."""
    row = next(line for line in REFERENCE.read_text().splitlines() if line.startswith(f"| {call} |"))
    return {*re.findall(r"`(\w+)`", row.split("|")[2])}


def test_the_table_of_keywords_is_that_of_the_code():
    known = {*arguments_of(SpeechEncoderDecoderModel.generate)} - {"options"}
    assert taken("`generate`") == {*known, "GenerationConfig"}
    assert taken("options of `GenerationConfig`") == {one.name for one in fields(GenerationConfig)}


def test_keywords_of_loading_that_are_not_taken_are_refused_with_a_way_out():
    for name in (*AUTO, "UniSpeechForCTC"):
        for keyword in ("gguf_file", "key_mapping", "quantization_config", "tp_plan", "adapter_kwargs"):
            with pytest.raises(ValueError, match=f"^{keyword}='x' given, which raysp does not take: "):
                getattr(raysp.models, name).from_pretrained(DIGITS, **{keyword: "x"})


KEYWORDS = [
    (ValueError, {"trust_remote_code": True}, r"^trust_remote_code=True is refused: .* Omit it; `raysp models` lists"),
    (CheckpointError, {"dtype": "int8"}, "dtype is 'int8', expected 'auto', 'float32'"),
    (TypeError, {"mask_tme_prob": 0.2}, r"did you mean 'mask_time_prob'.*no field of UniSpeechConfig"),
    (ValueError, {"device_map": {"unispeech": "cpu", "lm_head": 0}}, "expected one device for the whole model"),
    (ValueError, {"device_map": "balanced"}, "device is 'balanced', expected 'auto', 'cpu' or"),
    (ValueError, {"device": "cpu", "device_map": "auto"}, "both device 'cpu' and device_map 'auto' given"),
    (ValueError, {"attn_implementation": "flex"}, "attn_implementation is 'flex', expected one of eager, sdpa, flash"),
]


@pytest.mark.parametrize(("error", "options", "message"), KEYWORDS)
def test_keywords_that_cannot_be_are_refused(error, options, message):
    with pytest.raises(error, match=message):
        UniSpeechForCTC.from_pretrained(DIGITS, **options)


REFUSED = {
    "saving": (
        ValueError, lambda it: it.save_pretrained("x", max_shard_size="KB"),
        "max_shard_size is 'KB', expected a number of bytes, or a size such as '5GB'",
    ),
    "config": (AttributeError, lambda it: it.config.hidden_siz, "did you mean 'hidden_size'"),
    "no axis of the batch": (
        ValueError, lambda it: it(torch.zeros(3000)), "shape (3000,), expected (B, S): add the batch axis, x[None]",
    ),
    "another mask": (
        ValueError, lambda it: it(torch.zeros(2, 3000), torch.ones(2, 7)), "attention_mask has shape (2, 7), expected",
    ),
    "an instance": (TypeError, lambda it: AutoModelForCTC(), "AutoModelForCTC has no instances: use AutoModelForCTC.f"),
    "neither": (ValueError, lambda it: UniSpeechForCTC.from_pretrained(None), "name is None, expected a folder or"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_models_have_not_is_refused_with_the_way_out(name):
    error, call, way_out = REFUSED[name]
    with pytest.raises(error) as raised:
        call(UniSpeechForCTC.from_pretrained(DIGITS))
    assert way_out in str(raised.value)
    assert "\n" not in str(raised.value)
