"""Names, arguments, outputs and messages of the public classes of models, as programs for transformers use them."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import raysp.models
from raysp import CheckpointError
from raysp.models import AutoModelForCTC, UniSpeechConfig, UniSpeechForCTC
from tests.models.cases import batch_of
from tests.models.oracles import random_model, transformers
from tests.models.parity import waves_and_mask

DIGITS = Path(__file__).parents[2] / "pipelines" / "demo" / "unispeech-digits-ctc"
WAVES = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
WAVE, FEATURES = ["input_values", "attention_mask"], ["input_features", "attention_mask"]
ASKED = ["output_attentions", "output_hidden_states", "return_dict"]
HEADS = ("ForCTC", "ForSequenceClassification")
FORWARD = {
    **{f"{name}Model": [*WAVE, "mask_time_indices", *ASKED] for name in ("SEWD", "UniSpeech")},
    **{f"{name}{head}": [*WAVE, *ASKED, "labels"] for name in ("SEWD", "UniSpeech") for head in HEADS},
    "Wav2Vec2BertModel": [*FEATURES, "mask_time_indices", *ASKED],
    **{f"Wav2Vec2Bert{head}": [*FEATURES, *ASKED, "labels"] for head in (*HEADS, "ForXVector")},
    "Wav2Vec2BertForAudioFrameClassification": [*FEATURES, "labels", *ASKED],
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
    assert {"AutoProcessor", "Wav2Vec2BertProcessor", "UniSpeechForPreTrainingOutput"} < {*raysp.models.__all__}
    with pytest.raises(AttributeError, match="attribute Missing"):
        _ = raysp.models.Missing
    code = "import sys, raysp.models, raysp.text; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MISSING = ("BatchEncoding", "BertForCausalLM", "PreTrainedTokenizer", "Speech2TextProcessor")


def test_a_missing_class_is_an_error_with_its_replacement():
    for name in MISSING:
        with pytest.raises(ImportError, match=f"'{name}' is not in raysp: ") as caught:
            exec(f"from raysp.models import {name}")
        instead = [word.strip(",.") for word in str(caught.value).partition(": ")[2].split() if word[:1].isupper()]
        assert {*instead} <= {"BatchFeature", *raysp.models.__all__}
        assert instead


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


def test_outputs_read_by_position_name_and_attribute():
    output = random_model()(waves_and_mask()[0])
    assert output[0] is output.logits is output["logits"]
    assert output.loss is None
    (logits,) = output.values()
    assert logits is output.logits
    with pytest.raises(KeyError):
        output["loss"]
    with pytest.raises(KeyError, match="CausalLMOutput has no field 'los', expected one of loss, logits, hidden_st"):
        output["los"] = 1


def test_configuration_is_read_when_called_and_heads_are_not_pruned():
    model, (waves, _) = random_model(), waves_and_mask()
    labels = torch.tensor([[5, 6]] * 4)
    by_mean = model(waves, labels=labels).loss
    model.config.ctc_loss_reduction = "sum"
    assert model(waves, labels=labels).loss > by_mean
    message = r"UniSpeechForCTC: pruning of attention heads is not supported .* to 0"
    with pytest.raises(NotImplementedError, match=message):
        model.prune_heads({0: [1]})


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


@torch.no_grad()
@pytest.mark.parametrize("family", ["SEWD", "Wav2Vec2Bert", "UniSpeech"])
def test_each_probability_acts_in_training_alone(family):
    """But those that a model of CTC does not use: one is deprecated, one is of pre-training."""
    inputs, _ = batch_of(f"{family}ForCTC")
    names = [n for n in vars(getattr(raysp.models, f"{family}Config")()) if n.endswith("_dropout") or n == "layerdrop"]
    masks = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    for acting in [*names, *masks]:
        flags = {**dict.fromkeys(names, 0.0), **masks, acting: 0.6, "mask_time_length": 3, "mask_feature_length": 4}
        model = random_model(f"{family}ForCTC", **flags)
        expected = model(inputs).logits
        torch.manual_seed(3)
        is_unused = (family, acting) in {("SEWD", "hidden_dropout"), ("UniSpeech", "feat_quantizer_dropout")}
        assert torch.allclose(model.train()(inputs).logits, expected, atol=1e-5) == is_unused, acting
        model.config.apply_spec_augment = False
        if acting.startswith("mask"):
            torch.testing.assert_close(model(inputs).logits, expected)


# Values, keywords and messages beside those of transformers


def values_of(model):
    """Return what programs ask a model for: sizes, names, dtype, device, mode, a loss."""
    loss = model(WAVES, labels=torch.tensor([[5, 6], [7, -100]])).loss
    return (
        *(model.num_parameters(), model.num_parameters(only_trainable=True), round(float(loss), 3)),
        *(model.name_or_path, model.config.name_or_path, model.device, model.dtype, model.training),
        *(model.train().training, model.eval().training, model.to("cpu").device),
        model.to(torch.bfloat16)(WAVES.bfloat16()).logits.dtype,
    )


LOADING = [
    {},
    {"dtype": "bfloat16", "device_map": {"": "cpu"}, "config": str(DIGITS), "low_cpu_mem_usage": True},
    {"torch_dtype": "auto", "ctc_loss_reduction": "sum", "attention_dropout": 0.25, "mask_time_prob": 0.125},
    {"vocab_size": 7, "ignore_mismatched_sizes": True, "token": None, "revision": "main", "local_files_only": True},
]


@pytest.mark.filterwarnings("ignore")
def test_models_have_the_values_of_transformers():
    ours, theirs = (models.AutoModelForCTC.from_pretrained(str(DIGITS)) for models in (raysp.models, transformers))
    assert values_of(ours) == values_of(theirs)
    for options in LOADING:
        mine, other = (
            models.AutoModelForCTC.from_pretrained(DIGITS, **options) for models in (raysp.models, transformers)
        )
        assert (mine.dtype, mine.lm_head.weight.shape) == (other.dtype, other.lm_head.weight.shape), options
        for field in ("dtype", "ctc_loss_reduction", "attention_dropout", "mask_time_prob", "vocab_size"):
            assert getattr(mine.config, field) == getattr(other.config, field), field


KEYWORDS = [
    (ValueError, {"gguf_file": "x"}, "^gguf_file='x' given, which raysp does not take: "),
    (ValueError, {"trust_remote_code": True}, r"^trust_remote_code=True is refused: .* Omit it; `raysp models` lists"),
    (CheckpointError, {"dtype": "int8"}, "dtype is 'int8', expected 'auto', 'float32'"),
    (TypeError, {"mask_tme_prob": 0.2}, r"did you mean 'mask_time_prob'.*nor a field of UniSpeechConfig"),
    (ValueError, {"device_map": {"unispeech": "cpu", "lm_head": 0}}, "expected one device for the whole model"),
    (ValueError, {"device_map": "balanced"}, "device is 'balanced', expected 'auto', 'cpu' or"),
    (ValueError, {"device": "cpu", "device_map": "auto"}, "both device 'cpu' and device_map 'auto' given"),
    (ValueError, {"attn_implementation": "flex"}, "attn_implementation is 'flex', expected one of eager, sdpa, flash"),
]


def test_keywords_that_cannot_be_are_refused():
    for error, options, message in KEYWORDS:
        for cls in (UniSpeechForCTC, AutoModelForCTC):
            with pytest.raises(error, match=message):
                cls.from_pretrained(DIGITS, **options)


def test_what_models_have_not_is_refused_with_the_way_out():
    model = UniSpeechForCTC.from_pretrained(DIGITS)
    for error, call, message in (
        (ValueError, lambda: model.save_pretrained("x", max_shard_size="KB"), "max_shard_size is 'KB', expected a num"),
        (AttributeError, lambda: model.config.hidden_siz, "did you mean 'hidden_size'"),
        (ValueError, lambda: model(torch.zeros(3000)), r"\(3000,\), expected \(B, S\): add the batch axis, x\[None\]"),
        (ValueError, lambda: model(WAVES, torch.ones(2, 7)), r"attention_mask has shape \(2, 7\), expected"),
        (TypeError, AutoModelForCTC, "AutoModelForCTC has no instances: use AutoModelForCTC.f"),
        (ValueError, lambda: model.from_pretrained(None), "name is None, expected a folder or"),
    ):
        with pytest.raises(error, match=message):
            call()
