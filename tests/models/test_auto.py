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
    AutoTokenizer,
    BertConfig,
    SpeechEncoderDecoderModel,
    TextTokenizer,
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechModel,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)
from tests.models.decoder_oracles import BERT, make_speech_model
from tests.models.oracles import TINY
from tests.models.tokenizers.text_tokenizers import write_bert_tokenizer

AUTO = [name for name in raysp.models.__all__ if name.startswith("Auto")]
CONFIGS = {
    cls.model_type: cls
    for cls in (getattr(raysp.models, name) for name in raysp.models.__all__ if name.endswith("Config"))
    if hasattr(cls, "model_type")
}
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


def test_classes_are_found_by_what_a_checkpoint_says(checkpoint):
    assert type(AutoConfig.from_pretrained(checkpoint)) is UniSpeechConfig
    assert AutoConfig.from_pretrained(checkpoint, layerdrop=0.5).layerdrop == 0.5
    model = AutoModelForCTC.from_pretrained(checkpoint, dtype="bfloat16")
    assert type(model) is UniSpeechForCTC
    assert model.dtype == torch.bfloat16
    assert type(AutoModel.from_pretrained(checkpoint)) is UniSpeechModel
    assert type(AutoTokenizer.from_pretrained(checkpoint)) is Wav2Vec2CTCTokenizer
    assert type(AutoFeatureExtractor.from_pretrained(checkpoint)) is Wav2Vec2FeatureExtractor
    assert AutoFeatureExtractor.from_pretrained(checkpoint, do_normalize=False).do_normalize is False
    assert type(AutoProcessor.from_pretrained(checkpoint)) is Wav2Vec2Processor


def test_speech_models_that_write_are_found(tmp_path):
    make_speech_model("bert").save_pretrained(tmp_path)
    for auto in (AutoModel, AutoModelForSpeechSeq2Seq):
        assert type(auto.from_pretrained(tmp_path)) is SpeechEncoderDecoderModel
    write_bert_tokenizer(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor.tokenizer) is TextTokenizer


def test_a_folder_with_half_of_a_processor_gives_that_half(tmp_path):
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "audio")
    assert type(AutoProcessor.from_pretrained(tmp_path / "audio")) is Wav2Vec2FeatureExtractor
    write_bert_tokenizer(tmp_path / "text")
    assert type(AutoProcessor.from_pretrained(tmp_path / "text")) is TextTokenizer


def expected_of(model_type, auto):
    """Return the name of the class that an auto class has for a model type; empty for none."""
    if model_type in PARAKEET:
        return PARAKEET[model_type].get(auto, "")
    name = CONFIGS[model_type].__name__.removesuffix("Config") + ENDINGS[auto]
    return name if name in raysp.models.__all__ else ""


@pytest.mark.parametrize("model_type", sorted(CONFIGS.keys() - DECODERS - {"speech-encoder-decoder"}))
def test_every_architecture_is_found_by_its_names(model_type):
    assert type(AutoConfig.for_model(model_type)) is CONFIGS[model_type]
    config = AutoConfig.for_model(model_type, **({"vocab_size": 20} if "parakeet" not in model_type else {}))
    for auto in ENDINGS:
        with torch.device("meta"):
            if name := expected_of(model_type, auto):
                assert type(auto.from_config(config)) is getattr(raysp.models, name)
            else:
                with pytest.raises(CheckpointError, match=r"has none of the classes|expects one of"):
                    auto.from_config(config)


@pytest.mark.parametrize("model_type", sorted(DECODERS))
def test_every_text_decoder_is_found_by_its_name(model_type):
    config = AutoConfig.for_model(model_type)
    assert type(config) is CONFIGS[model_type]
    with torch.device("meta"):
        assert AutoModelForCausalLM.from_config(config).config_class is CONFIGS[model_type]
    for auto in ENDINGS:
        with pytest.raises(CheckpointError, match=r"expects one of"):
            auto.from_config(config)


def test_the_configuration_of_a_speech_model_that_writes_is_found_by_its_name():
    config = AutoConfig.for_model("speech-encoder-decoder", encoder={"model_type": "unispeech"})
    assert type(config) is CONFIGS["speech-encoder-decoder"]


def test_a_configuration_gives_a_random_model():
    torch.manual_seed(0)
    first, second = (AutoModelForCTC.from_config(UniSpeechConfig(**TINY)) for _ in range(2))
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert torch.equal(first.lm_head.bias, torch.zeros(20))
    decoder = AutoModelForCausalLM.from_config(BertConfig(**BERT))
    assert torch.equal(decoder.get_input_embeddings().weight[0], torch.zeros(32))


@pytest.mark.parametrize("name", AUTO)
def test_the_classes_have_no_objects_of_their_own(name):
    with pytest.raises(TypeError, match=rf"{name} has no instances: use {name}\.from_pretrained"):
        getattr(raysp.models, name)()


def test_what_is_not_known_is_named_with_what_is(checkpoint):
    path = checkpoint / "config.json"
    values = json.loads(path.read_text())
    with pytest.raises(CheckpointError, match="model_type is 'unispeech', AutoModelForSpeechSeq2Seq expects"):
        AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    path.write_text(json.dumps({**values, "model_type": "whisper"}))
    for auto in (AutoConfig, AutoModel, AutoModelForCTC):
        with pytest.raises(CheckpointError, match=r"model_type is 'whisper'.* expect.* one of .*unispeech"):
            auto.from_pretrained(checkpoint)
    path.write_text(json.dumps({**values, "model_type": 3}))
    with pytest.raises(CheckpointError, match="model_type is 3, expected a name"):
        AutoConfig.from_pretrained(checkpoint)
    processor = json.loads((checkpoint / "processor_config.json").read_text())
    processor["processor_class"] = "OtherProcessor"
    (checkpoint / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(CheckpointError, match=r"names 'OtherProcessor', expected one of .*Wav2Vec2Processor"):
        AutoProcessor.from_pretrained(checkpoint)
    processor["feature_extractor"]["feature_extractor_type"] = "OtherFeatureExtractor"
    (checkpoint / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(CheckpointError, match=r"names 'OtherFeatureExtractor', expected one of .*Wav2Vec2F"):
        AutoFeatureExtractor.from_pretrained(checkpoint)
