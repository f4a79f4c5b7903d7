"""The code of the models' documents: with `transformers` replaced by `raysp.models` each block gives the same.

A block is a function of the library whose classes it names. It runs twice, with theirs and with ours, in a folder where
the hub ids of the pages are small random checkpoints, and what it shows is compared. What a page loads as a data set
is made here. Blocks that a page leaves empty are written like those of its sisters; where a page feeds a text to a
model of speech, speech takes its place.
"""

from pathlib import Path

import pytest
import torch

import raysp.models
from tests.models import oracles
from tests.models.decoder_oracles import BART, BERT, GPT2, perturbed, theirs_generated
from tests.models.oracles import transformers
from tests.models.promises.document_pages import (
    assert_same,
    assert_same_architecture,
    both,
    load_dataset,
    random_model,
    waves_extractor,
)
from tests.models.tokenizers.text_tokenizers import BERT_VOCAB, write_bert_tokenizer

TINY = {**oracles.TINY, "conv_stride": (10, 8, 4), "conv_kernel": (16, 8, 4)}
"""Frames of 20 ms, as many as the models of the pages have."""
SPEECH_TO_TEXT = "facebook/wav2vec2-xls-r-300m-en-to-15"


# Speech encoder decoder, both versions of the page


def page_random_model(library, encoder=None, decoder=None):
    config_encoder = library.Wav2Vec2Config(**(encoder or {}))
    config_decoder = library.BertConfig(**(decoder or {}))

    config = library.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(config_encoder, config_decoder)
    return library.SpeechEncoderDecoderModel(config=config)


def test_speech_encoder_decoder_random_of_default_configurations():
    """000-1, 001-1."""
    with torch.device("meta"):
        ours, theirs = both(page_random_model)
    assert_same_architecture(ours, theirs)
    assert sum(parameter.numel() for parameter in ours.parameters()) > 200e6


def publish_parts(encoder_id, encoder, decoder_id):
    encoder.save_pretrained(encoder_id)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(encoder_id)
    write_bert_tokenizer(Path(decoder_id))
    size = len(dict.fromkeys(BERT_VOCAB))
    random_model(transformers.BertForPreTraining, **{**BERT, "vocab_size": size}).save_pretrained(decoder_id)


def theirs_of(model, folder="as-ours"):
    """Return their model with the weights of ours, whose cross attention was drawn."""
    model.save_pretrained(folder)
    theirs, info = transformers.SpeechEncoderDecoderModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return theirs


@pytest.mark.parametrize("decoder", ["bert-base-uncased", "google-bert/bert-base-uncased"])
def test_speech_encoder_decoder_of_hubert_and_bert(hub, decoder):
    """000-2, 001-2."""
    publish_parts("facebook/hubert-large-ll60k", random_model(transformers.HubertModel, **TINY), decoder)

    def page(library):
        return library.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained("facebook/hubert-large-ll60k", decoder)

    ours, theirs = both(page)
    assert_same_architecture(ours, theirs)
    assert not ours.training
    drawn = [name for name in ours.state_dict() if "crossattention" in name]
    assert drawn
    for name, value in theirs.state_dict().items():
        assert name in drawn or torch.equal(ours.state_dict()[name], value), name


@pytest.fixture
def speech_to_text(hub):
    """A checkpoint that writes, with its processor, as theirs save both."""
    write_bert_tokenizer(hub / "text")
    tokenizer = transformers.BertTokenizer.from_pretrained("text")
    torch.manual_seed(0)
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.Wav2Vec2Config(**TINY, feat_extract_norm="layer"),
        transformers.BertConfig(**{**BERT, "vocab_size": len(tokenizer)}),
        decoder_start_token_id=tokenizer.cls_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    perturbed(transformers.SpeechEncoderDecoderModel(config)).save_pretrained(SPEECH_TO_TEXT)
    transformers.Wav2Vec2Processor(waves_extractor(), tokenizer).save_pretrained(SPEECH_TO_TEXT)


def page_translate(library):
    # load a fine-tuned speech translation model and corresponding processor
    model = library.SpeechEncoderDecoderModel.from_pretrained(SPEECH_TO_TEXT)
    processor = library.Wav2Vec2Processor.from_pretrained(SPEECH_TO_TEXT)

    # let's perform inference on a piece of English speech
    ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")
    input_values = processor(ds[0]["audio"]["array"], return_tensors="pt").input_values

    # autoregressively generate transcription (uses greedy decoding by default)
    generated_ids = model.generate(input_values)
    generated_text = processor.batch_decode(generated_ids, skip_special_tokens=True)[0]
    return {"input_values": input_values, "generated_ids": generated_ids, "generated_text": generated_text}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs, of defaults of generate and of a missing sampling rate
def test_speech_encoder_decoder_translates(speech_to_text):
    """000-3."""
    ours, theirs = both(page_translate)
    assert_same(ours, theirs)
    assert len(ours["generated_text"]) > 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs, of defaults of generate and of a missing sampling rate
def test_speech_encoder_decoder_translates_where_the_model_is(speech_to_text):
    """001-3; there is one device on either side, which theirs put a model on by another package."""

    def page(library, **options):
        model = library.SpeechEncoderDecoderModel.from_pretrained(SPEECH_TO_TEXT, **options)
        processor = library.Wav2Vec2Processor.from_pretrained(SPEECH_TO_TEXT)

        ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")
        input_values = processor(ds[0]["audio"]["array"], return_tensors="pt").to(model.device).input_values

        generated_ids = model.generate(input_values)
        return {"text": processor.batch_decode(generated_ids, skip_special_tokens=True)[0], "ids": generated_ids.cpu()}

    assert_same(page(raysp.models, device_map="auto"), page(transformers))


def page_training_step(library, encoder_id, decoder_id, to_device):
    feature_extractor = library.AutoFeatureExtractor.from_pretrained(encoder_id)
    tokenizer = library.AutoTokenizer.from_pretrained(decoder_id)
    # Combine pre-trained encoder and pre-trained decoder to form a Seq2Seq model
    model = library.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(encoder_id, decoder_id)

    model.config.decoder_start_token_id = tokenizer.cls_token_id
    model.config.pad_token_id = tokenizer.pad_token_id

    # load an audio input and pre-process (normalise mean/std to 0/1)
    ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")
    inputs = feature_extractor(ds[0]["audio"]["array"], return_tensors="pt")
    input_values = (inputs.to(model.device) if to_device else inputs).input_values

    # load its corresponding transcription and tokenize to generate labels
    encoded = tokenizer(ds[0]["text"], return_tensors="pt")
    labels = (encoded.to(model.device) if to_device else encoded).input_ids

    # the forward function automatically creates the correct decoder_input_ids
    loss = model(input_values=input_values, labels=labels).loss
    loss.backward()
    return model, {"input_values": input_values, "labels": labels, "loss": loss.item()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs, of a missing sampling rate
@pytest.mark.parametrize("decoder_id", ["bert-base-uncased", "google-bert/bert-base-uncased"])
def test_speech_encoder_decoder_training_step(hub, decoder_id):
    """000-4, 001-4, whose inputs go to the model's device."""
    encoder_id, to_device = "facebook/wav2vec2-base-960h", decoder_id.startswith("google")
    publish_parts(encoder_id, random_model(transformers.Wav2Vec2ForCTC, **TINY), decoder_id)
    model, ours = page_training_step(raysp.models, encoder_id, decoder_id, to_device)
    _, theirs = page_training_step(transformers, encoder_id, decoder_id, to_device)
    del theirs["loss"]  # of another draw of the cross attention
    same = theirs_of(model)(input_values=theirs["input_values"], labels=theirs["labels"]).loss.item()
    assert_same(ours, {**theirs, "loss": same})
    assert abs(ours["input_values"].mean()) < 1e-4
    assert ours["input_values"].std() == pytest.approx(1.0, abs=1e-3)
    assert all(value.grad is not None for name, value in model.named_parameters() if "crossattention" in name)


def page_configuration(library):
    # Initializing a Wav2Vec2 & BERT style configuration, and a model of them
    model = page_random_model(library, TINY, BERT)

    # Accessing the model configuration
    config_encoder = model.config.encoder
    config_decoder = model.config.decoder
    # set decoder config to causal lm
    config_decoder.is_decoder = True
    config_decoder.add_cross_attention = True

    # Saving the model, including its configuration
    model.save_pretrained("my-model")

    # loading model and config from pretrained folder
    encoder_decoder_config = library.SpeechEncoderDecoderConfig.from_pretrained("my-model")
    again = library.SpeechEncoderDecoderModel.from_pretrained("my-model", config=encoder_decoder_config)
    return model, again, (type(config_encoder).__name__, type(config_decoder).__name__)


@pytest.mark.slow
def test_speech_encoder_decoder_configuration_saved_and_loaded(hub):
    """000-5."""
    (model, again, parts), (_, theirs, their_parts) = both(page_configuration)
    assert parts == their_parts == ("Wav2Vec2Config", "BertConfig")
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert_same_architecture(again, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs, of defaults of generate and of a missing sampling rate
def test_speech_encoder_decoder_translates_and_trains_by_one_processor(speech_to_text):
    """000-6."""

    def page(library):
        processor = library.AutoProcessor.from_pretrained(SPEECH_TO_TEXT)
        model = library.SpeechEncoderDecoderModel.from_pretrained(SPEECH_TO_TEXT)

        ds = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", split="validation")

        input_values = processor(ds[0]["audio"]["array"], return_tensors="pt").input_values
        # Inference: Translate English speech to German
        generated = model.generate(input_values)
        decoded = processor.batch_decode(generated, skip_special_tokens=True)[0]

        # Training: Train model on English transcription
        labels = processor(text=ds[0]["text"], return_tensors="pt").input_ids

        loss = model(input_values, labels=labels).loss
        loss.backward()
        gradient = model.decoder.bert.encoder.layer[0].crossattention.self.query.weight.grad
        return {"decoded": decoded, "labels": labels, "loss": loss.item(), "gradient": gradient}

    assert_same(*both(page))


@torch.no_grad()
def test_speech_encoder_decoder_of_wav2vec2_and_bert_saved_and_loaded(hub):
    """000-7."""
    publish_parts("facebook/wav2vec2-base-960h", random_model(transformers.Wav2Vec2ForCTC, **TINY), "bert-base-uncased")
    # initialize a wav2vec2bert from a pretrained Wav2Vec2 and a pretrained BERT model
    model = raysp.models.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
        "facebook/wav2vec2-base-960h", "bert-base-uncased"
    )
    # saving model after fine-tuning
    model.save_pretrained("./wav2vec2bert")
    # load fine-tuned model
    again = raysp.models.SpeechEncoderDecoderModel.from_pretrained("./wav2vec2bert")
    theirs = transformers.SpeechEncoderDecoderModel.from_pretrained("./wav2vec2bert").eval()
    waves, ids = torch.randn(1, 3000), torch.tensor([[2, 7, 9]])
    assert torch.equal(again(waves, decoder_input_ids=ids).logits, model(waves, decoder_input_ids=ids).logits)
    torch.testing.assert_close(
        again(waves, decoder_input_ids=ids).logits, theirs(waves, decoder_input_ids=ids).logits, atol=1e-4, rtol=1e-4
    )


@pytest.mark.slow
@torch.no_grad()
def test_the_jax_pages_have_their_way_in_pytorch(hub):
    """What 000-8 and 000-9 do, by the class that their error names."""
    random_model(transformers.Wav2Vec2Model, **TINY).save_pretrained("facebook/wav2vec2-large-lv60")
    random_model(transformers.BartForCausalLM, **BART).save_pretrained("facebook/bart-large")
    model = raysp.models.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
        "facebook/wav2vec2-large-lv60", "facebook/bart-large"
    )
    model.save_pretrained("./wav2vec2-2-bart-large")
    model = raysp.models.SpeechEncoderDecoderModel.from_pretrained("./wav2vec2-2-bart-large")

    inputs = torch.ones((2, 5000), dtype=torch.float32)

    # use bart's special bos, pad and eos tokens
    model.config.decoder_start_token_id = model.decoder.config.bos_token_id
    model.config.pad_token_id = model.decoder.config.pad_token_id
    model.config.eos_token_id = model.decoder.config.eos_token_id

    outputs = model.generate(inputs)
    theirs = transformers.SpeechEncoderDecoderModel.from_pretrained("./wav2vec2-2-bart-large").eval()
    theirs.generation_config.decoder_start_token_id = theirs.decoder.config.bos_token_id
    assert torch.equal(outputs, theirs_generated(theirs, inputs))


# The prose of the first page


@torch.no_grad()
@pytest.mark.parametrize(("decoder", "flags"), [("GPT2LMHeadModel", GPT2), ("BartForConditionalGeneration", BART)])
def test_causal_and_sequence_to_sequence_models_give_a_decoder(hub, decoder, flags):
    """Beside BERT, which is above."""
    random_model(transformers.HubertModel, **TINY).save_pretrained("encoder")
    random_model(getattr(transformers, decoder), **flags).save_pretrained("decoder")
    model = raysp.models.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained("encoder", "decoder")
    waves, ids = torch.randn(1, 3000), torch.tensor([[2, 7, 9]])
    expected = theirs_of(model).eval()(waves, decoder_input_ids=ids).logits
    torch.testing.assert_close(model(waves, decoder_input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
