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

FLAGS = {**TINY, "do_stable_layer_norm": True, "adapter_attn_dim": 8}
CONFIGS = {Wav2Vec2ForCTC: Wav2Vec2Config, HubertForCTC: HubertConfig, UniSpeechForCTC: UniSpeechConfig}
WAVES = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))


def random_model(cls=Wav2Vec2ForCTC, seed=0, **flags):
    torch.manual_seed(seed)
    return cls(CONFIGS[cls](**{**FLAGS, **flags})).init_weights().eval()


def write_language(folder, cls, lang, *, vocab_size=20, seed=1):
    """Put a language's adapter beside a checkpoint; gives the model that it is a part of."""
    model = random_model(cls, seed, vocab_size=vocab_size)
    model.save_adapter(folder, lang)
    return model


@pytest.fixture(params=CONFIGS, ids=lambda cls: cls.__name__)
def multilingual(request, tmp_path):
    """A checkpoint with languages of two sizes, and its class."""
    random_model(request.param).save_pretrained(tmp_path)
    write_language(tmp_path, request.param, "spa")
    write_language(tmp_path, request.param, "uzb-script_cyrillic", vocab_size=27)
    return request.param, tmp_path


def logits_of(model):
    with torch.inference_mode():
        return model(WAVES).logits


def test_a_language_of_another_size_brings_its_own_head(multilingual):
    cls, folder = multilingual
    model = cls.from_pretrained(folder, target_lang="uzb-script_cyrillic")
    assert model.lm_head.out_features == model.config.vocab_size == logits_of(model).shape[-1] == 27
    later = cls.from_pretrained(folder)
    later.load_adapter("uzb-script_cyrillic")
    assert torch.equal(logits_of(later), logits_of(model))
    later.load_adapter("spa")
    assert torch.equal(logits_of(later), logits_of(cls.from_pretrained(folder, target_lang="spa")))
    labels = torch.tensor([[19, 1]] * 2)
    later(WAVES, labels=labels).loss.backward()
    assert later.lm_head.weight.grad is not None


def test_a_language_is_the_one_that_theirs_loads(tmp_path):
    oracle = make_oracle("Wav2Vec2ForCTC", **FLAGS)
    oracle.save_pretrained(tmp_path)
    write_language(tmp_path, Wav2Vec2ForCTC, "deu", vocab_size=9)
    theirs = transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang="deu", ignore_mismatched_sizes=True)
    ours = Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang="deu")
    with torch.inference_mode():
        torch.testing.assert_close(ours(WAVES).logits, theirs(WAVES).logits, atol=1e-4, rtol=1e-4)
    assert ours._get_adapters().keys() == theirs._get_adapters().keys()


def test_english_is_the_default(tmp_path):
    random_model().save_pretrained(tmp_path)
    english = write_language(tmp_path, Wav2Vec2ForCTC, "eng")
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    model.load_adapter()
    assert model.target_lang == "eng"
    assert torch.equal(model.lm_head.weight, english.lm_head.weight)


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
    assert Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang="fra", allow_pickle=True).target_lang == "fra"


@pytest.mark.parametrize("lang", ["../spa", "", "spa.safetensors"])
def test_a_language_is_not_a_path(tmp_path, lang):
    random_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a language such as 'eng'"):
        Wav2Vec2ForCTC.from_pretrained(tmp_path).load_adapter(lang)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("lm_head.bias"), "missing lm_head.bias; unexpected none"),
        (
            lambda found: found.update({"lm_head.weight": torch.zeros(20, 5)}),
            r"lm_head.weight is \(20, 5\), expected \(20, 32\)",
        ),
        (
            lambda found: found.update({next(iter(found)): torch.zeros(3)}),
            r"adapter_layer.norm.weight is \(3,\), expected \(32,\)",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, change, message):
    model = random_model()
    model.save_pretrained(tmp_path)
    weights = {name: value.detach() for name, value in model._get_adapters().items()}
    change(weights)
    safetensors.torch.save_file(weights, tmp_path / "adapter.spa.safetensors")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        loaded.load_adapter("spa")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_models_without_adapters_take_no_language(tmp_path):
    config = Wav2Vec2Config(**TINY)
    with pytest.raises(ValueError, match=r"target_lang 'spa' requested, but Wav2Vec2ForCTC has no adapter layers"):
        Wav2Vec2ForCTC(config, target_lang="spa")
    model = Wav2Vec2ForCTC(config)
    model.init_weights().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no adapter layers: set config.adapter_attn_dim"):
        model._get_adapters()
    with pytest.raises(ValueError, match="has no adapter layers"):
        Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang="spa")
    for cls in (Wav2Vec2Model, Wav2Vec2ForSequenceClassification):
        with pytest.raises(ValueError, match=f"{cls.__name__} takes no target_lang"):
            cls.from_pretrained(tmp_path, target_lang="spa")
