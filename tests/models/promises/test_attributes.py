"""Attributes, methods and keywords of models and configurations that programs read, against those of transformers."""

import copy
import json
import pickle
import re
from pathlib import Path

import pytest
import torch

import raysp.models
from raysp.models import AutoConfig, AutoModelForCTC, AutoProcessor, UniSpeechForCTC
from tests.models.oracles import transformers
from tests.models.test_keywords import encoder_decoder

DEMO = Path(__file__).parents[3] / "pipelines" / "demo"
DIGITS = DEMO / "unispeech-digits-ctc"
LIBRARIES = (raysp.models, transformers)
WAVES = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))


def reads(output):
    """Return what a program finds in an output that it reads as a mapping, and assigns to."""
    found = [*output], [*output.keys()], [name for name, _ in output.items()], [type(x) for x in output.values()]
    asked = "logits" in output, "loss" in output, output.get("loss"), output.get("loss", 1), len(output)
    output["loss"] = torch.tensor(2.0)
    loss = float(output["loss"]), float(output.loss), sorted({**output}), len(output)
    again = copy.copy(output), pickle.loads(pickle.dumps(output))
    return found, asked, loss, [sorted(one) for one in again], type(output).__name__


OF_MODELS = {
    "half": lambda it: (it.half().dtype, it.dtype),
    "bfloat16": lambda it: it.to(torch.bfloat16)(WAVES.bfloat16()).logits.dtype,
    "float32 again": lambda it: it.half().float()(WAVES).logits.dtype,
    "double": lambda it: it.double()(WAVES.double()).logits.dtype,
    "num_parameters": lambda it: (it.num_parameters(), it.num_parameters(only_trainable=True)),
    "names": lambda it: (it.base_model_prefix, type(it.base_model).__name__),
    "places": lambda it: (it.device, it.dtype),
    "name_or_path": lambda it: (it.name_or_path, it.config.name_or_path, it.config._name_or_path),
    "gradient checkpointing": lambda it: (
        it.gradient_checkpointing_enable(),
        it.is_gradient_checkpointing,
    ),
    "nothing to do": lambda it: it.tie_weights(),
    "frozen": lambda it: (it.freeze_base_model(), sum(one.requires_grad for one in it.parameters())),
    "modes": lambda it: (it.training, it.train().training),
    "loss": lambda it: round(float(it(WAVES, labels=torch.tensor([[5, 6], [7, -100]])).loss), 3),
    "tuple": lambda it: [type(one) for one in it(WAVES, return_dict=False, output_hidden_states=True)],
    "outputs as mappings": lambda it: reads(it(WAVES, output_hidden_states=True)),
    "config": lambda it: (
        it.config.is_encoder_decoder,
        it.config.torch_dtype,
        it.config.dtype,
    ),
    "config, names": lambda it: it.config._attn_implementation,
    "config, copied": lambda it: copy.deepcopy(it.config) == it.config,
}
OF_LOADING = {
    "dtype": {"dtype": "bfloat16"},
    "torch_dtype": {"torch_dtype": torch.float16},
    "torch_dtype by name": {"torch_dtype": "float16"},
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
    options = OF_LOADING[name]
    ours, theirs = (models.AutoModelForCTC.from_pretrained(DIGITS, **options) for models in LIBRARIES)
    assert (ours.dtype, ours.device, ours.lm_head.weight.shape) == (
        theirs.dtype,
        theirs.device,
        theirs.lm_head.weight.shape,
    )
    assert (ours.config.dtype, ours.config.to_dict()["dtype"]) == (
        theirs.config.dtype,
        theirs.config.to_dict()["dtype"],
    )
    for field in ("ctc_loss_reduction", "attention_dropout", "mask_time_prob", "vocab_size"):
        assert getattr(ours.config, field) == getattr(theirs.config, field)


CLASSES = ("AutoConfig", "AutoModelForCTC", "AutoTokenizer", "AutoFeatureExtractor", "AutoProcessor", "UniSpeechConfig")
CLASSES += ("UniSpeechForCTC", "Wav2Vec2CTCTokenizer", "Wav2Vec2FeatureExtractor")


@pytest.mark.parametrize("name", CLASSES)
def test_a_folder_that_is_missing_is_an_oserror(name, tmp_path):
    for models in LIBRARIES:
        with pytest.raises(OSError, match="missing"):
            getattr(models, name).from_pretrained(tmp_path / "missing")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):  # and one without the files
        getattr(raysp.models, name).from_pretrained(tmp_path)


def test_a_field_that_an_output_lacks_is_refused():
    output = AutoModelForCTC.from_pretrained(DIGITS)(WAVES)
    with pytest.raises(
        KeyError, match="CausalLMOutput has no field 'los', expected one of loss, logits, hidden_states"
    ):
        output["los"] = 1


def test_first_arguments_have_the_names_of_transformers(tmp_path):
    for models in LIBRARIES:
        for name in ("AutoConfig", "AutoModelForCTC", "AutoTokenizer", "AutoFeatureExtractor", "AutoProcessor"):
            made = getattr(models, name).from_pretrained(pretrained_model_name_or_path=DIGITS)
            if models is raysp.models:
                made.save_pretrained(save_directory=tmp_path / name)
    opened = AutoModelForCTC.from_pretrained(pretrained_model_name_or_path=tmp_path / "AutoModelForCTC")
    assert opened.name_or_path == str(tmp_path / "AutoModelForCTC")
    written = json.loads((tmp_path / "AutoConfig" / "config.json").read_text())
    assert not {"name_or_path", "_read_from", "tokenizer_class", "is_encoder_decoder"} & written.keys()
    assert pickle.loads(pickle.dumps(opened.config)) == AutoConfig.from_pretrained(DIGITS)


def test_a_processor_passes_settings_to_its_parts():
    for models in LIBRARIES:
        made = models.AutoProcessor.from_pretrained(DIGITS, unk_token="E", do_normalize=False)
        assert (made.tokenizer.unk_token, made.feature_extractor.do_normalize) == ("E", False)
    parent = AutoProcessor.from_pretrained(DEMO, subfolder=DIGITS.name)
    assert parent.tokenizer.get_vocab() == made.tokenizer.get_vocab()
    with pytest.raises(
        TypeError, match=r"'unk_tokn' \(did you mean 'unk_token'\?\): no setting of Wav2Vec2CTCTokenizer"
    ):
        AutoProcessor.from_pretrained(DIGITS, unk_tokn="<unk>")


def test_models_are_made_of_a_configuration_as_in_transformers():
    for models in LIBRARIES:
        config = models.AutoConfig.from_pretrained(DIGITS)
        options = {"attn_implementation": "eager", "trust_remote_code": False}
        assert models.AutoModelForCTC.from_config(config).dtype == torch.float32
        assert models.AutoModelForCTC.from_config(config, dtype=torch.bfloat16, **options).dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"device given, from_config takes"):
        AutoModelForCTC.from_config(AutoConfig.from_pretrained(DIGITS), device="cpu")


def test_an_encoder_with_decoder_names_its_parts():
    model = encoder_decoder()
    assert (model.get_encoder(), model.get_decoder()) == (model.encoder, model.decoder)
    assert model.config.is_encoder_decoder
    assert model.resize_token_embeddings(30).num_embeddings == 30


REFUSED = {
    "config": (AttributeError, lambda it: it.config.hidden_siz, "did you mean 'hidden_size'"),
    "unused": (ValueError, lambda it: AutoConfig.from_pretrained(DIGITS, return_unused_kwargs=True), "keeps keywords"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_models_have_not_is_refused_with_the_way_out(name):
    error, call, way_out = REFUSED[name]
    with pytest.raises(error) as raised:
        call(UniSpeechForCTC.from_pretrained(DIGITS))
    assert way_out in str(raised.value)
    assert "\n" not in str(raised.value)
