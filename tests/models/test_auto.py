"""Auto classes: each class of a model is found by its configuration, and what is not known is named with what is."""

import json

import pytest
import torch

from raysp import CheckpointError, models

AUTO = {
    "ForCTC": "AutoModelForCTC",
    "ForSequenceClassification": "AutoModelForAudioClassification",
    "ForAudioFrameClassification": "AutoModelForAudioFrameClassification",
    "ForXVector": "AutoModelForAudioXVector",
    "ForRNNT": "AutoModelForRNNT",
    "ForTDT": "AutoModelForTDT",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "Model": "AutoModel",
    "Encoder": "AutoModel",
}
"""Endings of the names of classes, each with what makes them."""
OTHERS = ("Flax", "Auto", "SpeechEncoderDecoder")
MADE = {
    name: next(auto for ending, auto in AUTO.items() if name.endswith(ending))
    for name in models.__all__
    if name.endswith(tuple(AUTO)) and not name.startswith(OTHERS)
}


def test_every_class_is_found_by_its_configuration_and_no_other_auto_class_makes_one_of_it():
    assert {*MADE.values()} == {*AUTO.values()}
    by_type = {}
    for name, auto in MADE.items():
        cls = getattr(models, name)
        config = models.AutoConfig.for_model(cls.config_class.model_type)
        assert type(config) is cls.config_class
        by_type.setdefault(type(config), {"AutoModel"} if "Parakeet" in name else set()).add(auto)
        if getattr(config, "vocab_size", 0) is None:
            config.vocab_size = 20
        with torch.device("meta"):
            assert type(getattr(models, auto).from_config(config)) is cls
    for kind, autos in by_type.items():
        for other in {*AUTO.values()} - autos:
            with pytest.raises(CheckpointError, match=r"has none of the classes|expects one of"):
                getattr(models, other).from_config(kind())


def test_what_is_not_known_is_named_with_what_is(checkpoint):
    with pytest.raises(CheckpointError, match="model_type is 'unispeech', AutoModelForSpeechSeq2Seq expects"):
        models.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    processor = json.loads((checkpoint / "processor_config.json").read_text())
    extractor = {**processor["feature_extractor"], "feature_extractor_type": "OtherFeatureExtractor"}
    unknown = "is 'whisper'.* expect.* one of .*unispeech"
    for auto, file, changes, message in (
        ("AutoModelForCTC", "config.json", {"model_type": "whisper"}, unknown),
        ("AutoConfig", "config.json", {"model_type": "whisper"}, unknown),
        ("AutoConfig", "config.json", {"model_type": 3}, "model_type is 3, expected a name"),
        ("AutoProcessor", "processor_config.json", {"processor_class": "OtherProcessor"}, "'OtherProcessor', expected"),
        ("AutoFeatureExtractor", "processor_config.json", {"feature_extractor": extractor}, "'OtherFeatureExtractor',"),
    ):
        path = checkpoint / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        with pytest.raises(CheckpointError, match=message):
            getattr(models, auto).from_pretrained(checkpoint)
