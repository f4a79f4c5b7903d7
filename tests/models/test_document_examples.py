"""The code of the models' documents: with `transformers` replaced by `raysp.models` each block gives the same.

A block is a function of the library whose classes it names. It runs twice, with theirs and with ours, in a folder where
the hub ids of the pages are small random checkpoints, and what it shows is compared. Blocks that a page leaves empty
are written like those of its sisters; where a page feeds a text to a model of speech, speech takes its place.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import raysp.models
from tests.models.decoder_oracles import BERT, perturbed
from tests.models.oracles import TINY, make_oracle, transformers
from tests.models.tokenizers.text_tokenizers import BERT_VOCAB, write_bert_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, of defaults of generate and of a missing sampling rate
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
WAVES = {**TINY, "conv_stride": (10, 8, 4), "conv_kernel": (16, 8, 4)}
"""Frames of 20 ms, as many as the models of the pages have."""
FLAGS = {
    "SEWD": {
        **{field: getattr(transformers.SEWDConfig(), field) for field in ("conv_stride", "conv_kernel")},
        "conv_dim": (8,) * 13,
    },
    "Wav2Vec2Bert": {"feature_projection_input_dim": 160},
    "UniSpeech": WAVES,
}
SPEECH_TO_TEXT = "facebook/wav2vec2-xls-r-300m-en-to-15"
ENCODER, DECODER = "facebook/wav2vec2-base-960h", "google-bert/bert-base-uncased"
WORDS = {0: "down", 1: "go", 2: "_silence_", 3: "_unknown_"}
AUDIO = (0.3 * np.sin(np.arange(93_680) * 0.05) + np.random.default_rng(1).normal(0.0, 0.1, 93_680)).astype(np.float32)
"""A row of a data set of 292 frames, as the page of SEW-D has it."""
CHECKPOINT = "the checkpoint of the page"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """A folder to run a page in."""
    monkeypatch.chdir(tmp_path)


def compare(page, tolerance=1e-4):
    """Run a page with either library and compare what it shows: tensors up to rounding, everything else exactly."""
    ours, theirs = page(raysp.models), page(transformers)
    for mine, expected in zip(ours, theirs, strict=True):
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(mine, expected, atol=tolerance, rtol=tolerance)
        else:
            assert mine == expected
    return ours


# Encoders


def publish(name, **flags):
    """Put a random model of theirs where a page names it, with its processor."""
    family = next(family for family in FLAGS if name.startswith(family))
    make_oracle(name, **{**FLAGS[family], **flags}).save_pretrained(CHECKPOINT)
    Path("letters.json").write_text(json.dumps({token: index for index, token in enumerate(LETTERS)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer("letters.json")
    if family == "Wav2Vec2Bert":
        kind, extractor = transformers.Wav2Vec2BertProcessor, transformers.SeamlessM4TFeatureExtractor(padding_value=1)
    else:
        kind = transformers.Wav2Vec2Processor
        extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    kind(extractor, tokenizer).save_pretrained(CHECKPOINT)


def opened(library, name):
    """Return a model, the processor, and inputs, as the pages have them."""
    processor = library.AutoProcessor.from_pretrained(CHECKPOINT)
    extractor = library.AutoFeatureExtractor.from_pretrained(CHECKPOINT)
    model = getattr(library, name).from_pretrained(CHECKPOINT)
    return model, processor, extractor(AUDIO, sampling_rate=16_000, return_tensors="pt")


@pytest.mark.parametrize("family", FLAGS)
def test_speech_is_transcribed_and_has_a_loss(family):
    """002-2, 002-3, 003-2, 004-2, 004-3."""
    publish(f"{family}ForCTC")

    def page(library):
        model, processor, inputs = opened(library, f"{family}ForCTC")
        base, _, _ = opened(library, f"{family}Model")
        with torch.no_grad():
            logits, last_hidden_states = model(**inputs).logits, base(**inputs).last_hidden_state
        transcription = processor.batch_decode(torch.argmax(logits, dim=-1))
        inputs["labels"] = processor(text="A BAD CAB", return_tensors="pt").input_ids
        return list(last_hidden_states.shape), transcription[0], logits, inputs["labels"], model(**inputs).loss

    shape, text, *_ = compare(page, 1e-3)
    assert shape == [1, 292, 32]
    assert len(text) > 10


@pytest.mark.parametrize("family", FLAGS)
def test_keywords_are_spotted(family):
    """002-4, 003-3, 004-4."""
    name = f"{family}ForSequenceClassification"
    publish(name, id2label=WORDS, label2id={word: index for index, word in WORDS.items()})

    def page(library):
        model, processor, inputs = opened(library, name)
        with torch.no_grad():
            logits = model(**inputs).logits
        predicted_label = model.config.id2label[torch.argmax(logits, dim=-1).item()]
        # To train a model on `num_labels` classes, you can pass `num_labels=num_labels` to `.from_pretrained(...)`
        model = getattr(library, name).from_pretrained(CHECKPOINT, num_labels=len(model.config.id2label))
        with pytest.raises(TypeError, match=r"input_ids|input_features|input_values"):  # 003-3 as it is on the page
            model(**processor.tokenizer("Hello, my dog is cute", return_tensors="pt"))
        inputs["labels"] = torch.tensor([1])
        return predicted_label, logits, model(**inputs).loss

    assert compare(page)[0] in WORDS.values()


# Speech encoder decoder, both versions of the page


def page_random_model(library, encoder=None, decoder=None, **fields):
    configs = library.Wav2Vec2Config(**(encoder or {})), library.BertConfig(**(decoder or {}))
    config = library.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(*configs, **fields)
    return library.SpeechEncoderDecoderModel(config=config)


def test_a_model_of_default_configurations_has_their_weights():
    """000-1, 001-1."""
    with torch.device("meta"):
        ours, theirs = page_random_model(raysp.models), page_random_model(transformers)
    expected = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected


@pytest.mark.slow
def test_speech_is_translated_and_trained_on_by_one_processor():
    """000-3, 000-6, 001-3; there is one device on either side, which theirs put a model on by another package."""
    write_bert_tokenizer(Path("text"))
    tokenizer = transformers.BertTokenizer.from_pretrained("text")
    torch.manual_seed(0)
    tokens = {"decoder_start_token_id": tokenizer.cls_token_id, "pad_token_id": tokenizer.pad_token_id}
    parts = {**WAVES, "feat_extract_norm": "layer"}, {**BERT, "vocab_size": len(tokenizer)}
    model = page_random_model(transformers, *parts, **tokens, eos_token_id=tokenizer.sep_token_id)
    perturbed(model).save_pretrained(SPEECH_TO_TEXT)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(SPEECH_TO_TEXT)

    def page(library):
        own = {"device_map": "auto"} if library is raysp.models else {}
        model = library.SpeechEncoderDecoderModel.from_pretrained(SPEECH_TO_TEXT, **own)
        processor = library.AutoProcessor.from_pretrained(SPEECH_TO_TEXT)
        input_values = processor(AUDIO, return_tensors="pt").to(model.device).input_values
        generated = model.generate(input_values)
        labels = processor(text="a cat sat", return_tensors="pt").input_ids
        loss = model(input_values, labels=labels).loss
        loss.backward()
        gradient = model.decoder.bert.encoder.layer[0].crossattention.self.query.weight.grad
        return processor.batch_decode(generated, skip_special_tokens=True)[0], generated, labels, loss, gradient

    assert len(compare(page)[0]) > 10


@pytest.mark.slow
def test_parts_are_put_together_trained_saved_and_loaded():
    """000-2, 000-4, 000-5, 000-7, 001-2, 001-4, whose inputs go to the model's device."""
    make_oracle("Wav2Vec2ForCTC", **WAVES).save_pretrained(ENCODER)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(ENCODER)
    write_bert_tokenizer(Path(DECODER))
    config = transformers.BertConfig(**{**BERT, "vocab_size": len(dict.fromkeys(BERT_VOCAB))})
    transformers.BertForPreTraining(config).save_pretrained(DECODER)
    extractor = raysp.models.AutoFeatureExtractor.from_pretrained(ENCODER)
    tokenizer = raysp.models.AutoTokenizer.from_pretrained(DECODER)
    # Combine pre-trained encoder and pre-trained decoder to form a Seq2Seq model
    make = raysp.models.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained
    model = make(ENCODER, DECODER, encoder_layerdrop=0.5, decoder_hidden_dropout_prob=0.3, output_attentions=True)
    assert not model.training
    assert (model.config.encoder.layerdrop, model.config.decoder.hidden_dropout_prob) == (0.5, 0.3)
    assert model.config.output_attentions
    assert (model.config.decoder.is_decoder, model.config.decoder.add_cross_attention) == (True, True)
    saved = transformers.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(ENCODER, DECODER).state_dict()
    assert model.state_dict().keys() == saved.keys()
    for name, value in saved.items():
        assert "crossattention" in name or torch.equal(model.state_dict()[name], value), name
    other = transformers.BertConfig.from_pretrained(DECODER, is_decoder=True, add_cross_attention=True).to_dict()
    given = raysp.models.BertConfig.from_dict({**other, "layer_norm_eps": 0.5})
    assert make(ENCODER, DECODER, decoder_config=given).config.decoder.layer_norm_eps == 0.5
    model.config.decoder_start_token_id = tokenizer.cls_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    # Accessing the model configuration, set decoder config to causal lm
    model.config.decoder.is_decoder = True
    model.config.decoder.add_cross_attention = True
    # load an audio input and pre-process (normalise mean/std to 0/1)
    input_values = extractor(AUDIO, return_tensors="pt").to(model.device).input_values
    assert abs(input_values.mean()) < 1e-4
    labels = tokenizer("a cat sat", return_tensors="pt").to(model.device).input_ids
    # the forward function automatically creates the correct decoder_input_ids
    loss = model(input_values=input_values, labels=labels).loss
    loss.backward()
    assert all(value.grad is not None for name, value in model.named_parameters() if "crossattention" in name)
    # Saving the model, including its configuration; loading model and config from pretrained folder
    model.save_pretrained("my-model")
    theirs, info = transformers.SpeechEncoderDecoderModel.from_pretrained("my-model", output_loading_info=True)
    assert not any(info.values()), info
    expected = theirs.eval()(input_values=input_values, labels=labels).loss
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    config = raysp.models.SpeechEncoderDecoderConfig.from_pretrained("my-model")
    again = raysp.models.SpeechEncoderDecoderModel.from_pretrained("my-model", config=config)
    assert again.config == model.config
    assert torch.equal(again(input_values, labels=labels).loss, loss)
