import json

import pytest
import torch

import raysp.models
from raysp import CheckpointError
from raysp.models import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForRNNT,
    AutoModelForSpeechSeq2Seq,
    AutoModelForTDT,
    AutoProcessor,
)

CONFIGS = [getattr(raysp.models, name) for name in raysp.models.__all__ if name.endswith("Config")]
CONFIGS = {cls.model_type: cls for cls in CONFIGS if hasattr(cls, "model_type")}
DECODERS = {"bart", "bert", "gpt2", "mbart"}
PARAKEET = {
    "parakeet_encoder": {AutoModel: "ParakeetEncoder"},
    "parakeet_ctc": {AutoModel: "ParakeetForCTC", AutoModelForCTC: "ParakeetForCTC"},
    "parakeet_rnnt": {AutoModel: "ParakeetForRNNT", AutoModelForRNNT: "ParakeetForRNNT"},
    "parakeet_tdt": {AutoModel: "ParakeetForTDT", AutoModelForTDT: "ParakeetForTDT"},
}
"""Classes whose names do not begin with that of their configuration."""
ENDINGS = {
    AutoModel: "Model",
    AutoModelForCTC: "ForCTC",
    AutoModelForAudioClassification: "ForSequenceClassification",
    AutoModelForAudioFrameClassification: "ForAudioFrameClassification",
    AutoModelForAudioXVector: "ForXVector",
    AutoModelForRNNT: "ForRNNT",
    AutoModelForTDT: "ForTDT",
}


def expected_of(model_type, auto):
    """Return the name of the class that an auto class has for a model type; empty for none."""
    if model_type in DECODERS:
        return ""
    if model_type in PARAKEET:
        return PARAKEET[model_type].get(auto, "")
    name = CONFIGS[model_type].__name__.removesuffix("Config") + ENDINGS[auto]
    return name if name in raysp.models.__all__ else ""


@pytest.mark.parametrize("model_type", sorted(CONFIGS.keys() - {"speech-encoder-decoder"}))
def test_every_architecture_is_found_by_its_names(model_type):
    has_vocabulary = "parakeet" not in model_type and model_type not in DECODERS
    config = AutoConfig.for_model(model_type, **({"vocab_size": 20} if has_vocabulary else {}))
    assert type(config) is CONFIGS[model_type]
    for auto in ENDINGS:
        with torch.device("meta"):
            if name := expected_of(model_type, auto):
                assert type(auto.from_config(config)) is getattr(raysp.models, name)
            else:
                with pytest.raises(CheckpointError, match=r"has none of the classes|expects one of"):
                    auto.from_config(config)
    if model_type in DECODERS:
        with torch.device("meta"):
            assert AutoModelForCausalLM.from_config(config).config_class is CONFIGS[model_type]


def test_what_is_not_known_is_named_with_what_is(checkpoint):
    with pytest.raises(CheckpointError, match="model_type is 'unispeech', AutoModelForSpeechSeq2Seq expects"):
        AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    processor = json.loads((checkpoint / "processor_config.json").read_text())
    extractor = {**processor["feature_extractor"], "feature_extractor_type": "OtherFeatureExtractor"}
    for auto, file, changes, message in (
        (AutoModelForCTC, "config.json", {"model_type": "whisper"}, "is 'whisper'.* expect.* one of .*unispeech"),
        (AutoConfig, "config.json", {"model_type": "whisper"}, "is 'whisper'.* expect.* one of .*unispeech"),
        (AutoConfig, "config.json", {"model_type": 3}, "model_type is 3, expected a name"),
        (
            AutoProcessor,
            "processor_config.json",
            {"processor_class": "OtherProcessor"},
            "'OtherProcessor', expected",
        ),
        (
            AutoFeatureExtractor,
            "processor_config.json",
            {"feature_extractor": extractor},
            "'OtherFeatureExtractor', ",
        ),
    ):
        path = checkpoint / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        with pytest.raises(CheckpointError, match=message):
            auto.from_pretrained(checkpoint)
