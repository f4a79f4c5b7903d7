import subprocess
import sys

import pytest
import torch

import raysp.models
from tests.models.oracles import make_oracle, random_model
from tests.models.promises.promised import FORWARD


def test_names_resolve_when_first_used():
    for name in raysp.models.__all__:
        assert getattr(raysp.models, name).__name__ == name
        assert name in dir(raysp.models)
    with pytest.raises(AttributeError, match="attribute Missing"):
        _ = raysp.models.Missing


def test_no_model_has_more_than_ten_classes_in_its_resolution_order():
    public = [getattr(raysp.models, name) for name in raysp.models.__all__]
    models = [cls for cls in public if isinstance(cls, type) and issubclass(cls, torch.nn.Module)]
    assert len(models) > 20
    assert {cls.__name__: len(cls.__mro__) for cls in models if len(cls.__mro__) > 10} == {}


def test_importing_the_package_imports_no_torch():
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
    for word in instead:
        assert word == "BatchFeature" or word in raysp.models.__all__, word


def test_names_of_the_pages_are_public():
    auto = "AutoProcessor AutoFeatureExtractor AutoTokenizer AutoModel AutoModelForCausalLM"
    models = "Wav2Vec2Config Wav2Vec2Model BertConfig HubertModel GPT2LMHeadModel BartForCausalLM"
    heads = "Wav2Vec2ForSequenceClassification SpeechEncoderDecoderConfig SpeechEncoderDecoderModel"
    others = "Wav2Vec2Processor Wav2Vec2FeatureExtractor Wav2Vec2CTCTokenizer SeamlessM4TFeatureExtractor"
    mine = "Wav2Vec2BertProcessor SEWDConfig Wav2Vec2BertConfig UniSpeechConfig UniSpeechForPreTrainingOutput"
    wanted = {*FORWARD, *" ".join([auto, models, heads, others, mine]).split()}
    assert wanted <= {*raysp.models.__all__}


@pytest.mark.parametrize(
    "name",
    [
        "SEWDModel",
        "UniSpeechModel",
        "UniSpeechForCTC",
        "UniSpeechForSequenceClassification",
        "Wav2Vec2ForAudioFrameClassification",
        "Wav2Vec2ForXVector",
    ],
)
def test_outputs_have_the_class_names_of_transformers(name):
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    ours, theirs = random_model(name)(wave), make_oracle(name)(wave)
    assert type(ours).__name__ == type(theirs).__name__
