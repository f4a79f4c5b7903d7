import pytest
import safetensors.torch
import torch
import transformers

from raysp import CheckpointError
from raysp.models import (
    HubertConfig,
    HubertForCTC,
    UniSpeechConfig,
    UniSpeechForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
)
from tests.models.oracles import TINY, make_oracle
from tests.models.parity import assert_close

FLAGS = {**TINY, "do_stable_layer_norm": True, "adapter_attn_dim": 8}
CONFIGS = {Wav2Vec2ForCTC: Wav2Vec2Config, HubertForCTC: HubertConfig, UniSpeechForCTC: UniSpeechConfig}
WAVES = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))


def random_model(cls=Wav2Vec2ForCTC, seed=0, **flags):
    torch.manual_seed(seed)
    return cls(CONFIGS[cls](**{**FLAGS, **flags})).init_weights().eval()


@torch.inference_mode()
def logits_of(model):
    return model(WAVES).logits


@pytest.mark.parametrize("cls", CONFIGS)
def test_a_language_of_another_size_brings_its_own_head(cls, tmp_path):
    random_model(cls).save_pretrained(tmp_path)
    random_model(cls, 1).save_adapter(tmp_path, "spa")
    random_model(cls, 1, vocab_size=27).save_adapter(tmp_path, "uzb-script_cyrillic")
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


def test_english_is_the_default(tmp_path):
    random_model().save_pretrained(tmp_path)
    english = random_model(seed=1)
    english.save_adapter(tmp_path, "eng")
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    model.load_adapter()
    assert model.target_lang == "eng"
    assert torch.equal(model.lm_head.weight, english.lm_head.weight)
    for lang in ("../spa", "", "spa.safetensors"):
        with pytest.raises(ValueError, match="expected a language such as 'eng'"):
            model.load_adapter(lang)


def test_a_pickled_adapter_is_opened_only_on_request(tmp_path):
    random_model().save_pretrained(tmp_path)
    other = random_model(seed=1)
    torch.save({name: value.detach() for name, value in other._get_adapters().items()}, tmp_path / "adapter.fra.bin")
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"adapter.fra.safetensors not found; its .bin is a pickle, read only.*raysp convert"
    ):
        model.load_adapter("fra")
    model.load_adapter("fra", allow_pickle=True)
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lm_head.bias": None}, "missing lm_head.bias; unexpected none"),
        ({"lm_head.weight": torch.zeros(20, 5)}, r"lm_head.weight is \(20, 5\), expected \(20, 32\)"),
        ({"adapter_layer.norm.weight": torch.zeros(3)}, r"adapter_layer.norm.weight is \(3,\), expected \(32,\)"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(tmp_path, changes, message):
    model = random_model()
    model.save_pretrained(tmp_path)
    weights = {name: value.detach() for name, value in model._get_adapters().items()}
    for part, value in changes.items():
        name = next(name for name in weights if name.endswith(part))
        del weights[name]
        weights |= {} if value is None else {name: value}
    safetensors.torch.save_file(weights, tmp_path / "adapter.spa.safetensors")
    loaded = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        loaded.load_adapter("spa")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_models_without_adapters_take_no_language(tmp_path):
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**TINY))
    model.init_weights().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"target_lang 'spa' requested, but Wav2Vec2ForCTC has no adapter layers"):
        Wav2Vec2ForCTC(model.config, target_lang="spa")
    with pytest.raises(ValueError, match=r"has no adapter layers: set config.adapter_attn_dim"):
        model._get_adapters()
    for cls in (Wav2Vec2Model, Wav2Vec2ForSequenceClassification):
        with pytest.raises(ValueError, match=f"{cls.__name__} takes no target_lang"):
            cls.from_pretrained(tmp_path, target_lang="spa")
