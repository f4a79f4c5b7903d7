"""Adapters of languages: files beside the weights, each with a head of its own."""

import pytest
import safetensors.torch
import torch
import transformers

from raysp import CheckpointError
from raysp.models import Wav2Vec2ForCTC, Wav2Vec2ForSequenceClassification, Wav2Vec2Model
from tests.models import oracles
from tests.models.oracles import make_oracle
from tests.models.parity import assert_close

FLAGS = {"do_stable_layer_norm": True, "adapter_attn_dim": 8}
WAVES = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))


def random_model(name="Wav2Vec2ForCTC", seed=0, **flags):
    """Return a model whose adapters and head are those of a seed."""
    model = oracles.random_model(name, **{**FLAGS, **flags})
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in model._get_adapters().values():
            value.add_(0.1 * torch.randn_like(value))
    return model


@torch.inference_mode()
def logits_of(model):
    return model(WAVES).logits


@pytest.mark.parametrize("name", ["Wav2Vec2ForCTC", "HubertForCTC", "UniSpeechForCTC"])
def test_a_language_of_another_size_brings_its_own_head(name, tmp_path):
    model = random_model(name)
    cls = type(model)
    model.save_pretrained(tmp_path)
    random_model(name, 1).save_adapter(tmp_path, "spa")
    random_model(name, 1, vocab_size=27).save_adapter(tmp_path, "uzb-script_cyrillic")
    model = cls.from_pretrained(tmp_path, target_lang="uzb-script_cyrillic")
    assert model.lm_head.out_features == model.config.vocab_size == logits_of(model).shape[-1] == 27
    later = cls.from_pretrained(tmp_path)
    later.load_adapter("uzb-script_cyrillic")
    assert torch.equal(logits_of(later), logits_of(model))
    later.load_adapter("spa")
    assert torch.equal(logits_of(later), logits_of(cls.from_pretrained(tmp_path, target_lang="spa")))
    later(WAVES, labels=torch.tensor([[19, 1]] * 2)).loss.backward()
    assert later.lm_head.weight.grad is not None


def test_a_language_is_the_one_that_theirs_loads(tmp_path):
    make_oracle("Wav2Vec2ForCTC", **FLAGS).save_pretrained(tmp_path)
    random_model(seed=1, vocab_size=9).save_adapter(tmp_path, "deu")
    theirs = transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang="deu", ignore_mismatched_sizes=True)
    ours = Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang="deu")
    assert_close(logits_of(ours), logits_of(theirs))
    assert ours._get_adapters().keys() == theirs._get_adapters().keys()


def test_english_is_the_default_and_a_pickled_adapter_is_opened_only_on_request(tmp_path):
    random_model().save_pretrained(tmp_path)
    english, french = random_model(seed=1), random_model(seed=2)
    english.save_adapter(tmp_path, "eng")
    torch.save({name: value.detach() for name, value in french._get_adapters().items()}, tmp_path / "adapter.fra.bin")
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    model.load_adapter()
    assert model.target_lang == "eng"
    assert torch.equal(model.lm_head.weight, english.lm_head.weight)
    with pytest.raises(CheckpointError, match=r"fra.safetensors not found; its .bin is a pickle, .*raysp convert"):
        model.load_adapter("fra")
    model.load_adapter("fra", allow_pickle=True)
    assert torch.equal(model.lm_head.weight, french.lm_head.weight)
    for lang in ("../spa", "", "spa.safetensors"):
        with pytest.raises(ValueError, match="expected a language such as 'eng'"):
            model.load_adapter(lang)


def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path)
    loaded = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    for part, value, message in (
        ("lm_head.bias", None, "missing lm_head.bias; unexpected none"),
        ("lm_head.weight", torch.zeros(20, 5), r"lm_head.weight is \(20, 5\), expected \(20, 32\)"),
        ("adapter_layer.norm.weight", torch.zeros(3), r"adapter_layer.norm.weight is \(3,\), expected \(32,\)"),
    ):
        weights = {name: tensor.detach() for name, tensor in model._get_adapters().items()}
        name = next(name for name in weights if name.endswith(part))
        weights = {key: tensor for key, tensor in {**weights, name: value}.items() if tensor is not None}
        safetensors.torch.save_file(weights, tmp_path / "adapter.spa.safetensors")
        with pytest.raises(CheckpointError, match=message):
            loaded.load_adapter("spa")
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"was not loaded from a checkpoint, expected one with adapter.spa"):
        model.load_adapter("spa")


def test_models_without_adapters_take_no_language(tmp_path):
    model = oracles.random_model("Wav2Vec2ForCTC")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"target_lang 'spa' requested, but Wav2Vec2ForCTC has no adapter layers"):
        Wav2Vec2ForCTC(model.config, target_lang="spa")
    with pytest.raises(ValueError, match=r"has no adapter layers: set config.adapter_attn_dim"):
        model._get_adapters()
    for cls in (Wav2Vec2Model, Wav2Vec2ForSequenceClassification):
        with pytest.raises(ValueError, match=f"{cls.__name__} takes no target_lang"):
            cls.from_pretrained(tmp_path, target_lang="spa")
