"""The code of the models' documents: with `transformers` replaced by `raysp.models` each block gives the same.

A block is a function of the library whose classes it names. It runs twice, with theirs and with ours, in a folder where
the hub ids of the pages are small random checkpoints, and what it shows is compared. What a page loads as a data set
is made here. Blocks that a page leaves empty are written like those of its sisters; where a page feeds a text to a
model of speech, speech takes its place.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import raysp.models
from tests.models import test_sew_d, test_wav2vec2_bert
from tests.models.decoder_oracles import BART, BERT, GPT2, perturbed, theirs_generated
from tests.models.oracles import TINY, transformers
from tests.models.tokenizers.text_tokenizers import BERT_VOCAB, write_bert_tokenizer

SAMPLE_RATE = 16_000
FIRST_ROW_SAMPLES = 93_680  # 292 frames, as the page of SEW-D has it
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
SPEECH_TO_TEXT = "facebook/wav2vec2-xls-r-300m-en-to-15"
SEW_D, KEYWORDS = "asapp/sew-d-tiny-100k-ft-ls100h", "anton-l/sew-d-mid-400k-ft-keyword-spotting"
LOG_MELS, UNISPEECH = "facebook/wav2vec2-bert-rel-pos-large", "microsoft/unispeech-large-1500h-cv"


class Recordings:
    """Rows of a data set of recordings, as far as the pages use it."""

    features = {"audio": SimpleNamespace(sampling_rate=SAMPLE_RATE)}  # noqa: RUF012

    def __init__(self, rows):
        self.rows = rows

    def sort(self, column):
        return Recordings(sorted(self.rows, key=lambda row: row[column]))

    def __getitem__(self, key):
        if isinstance(key, int):
            return self.rows[key]
        return {name: [row[name] for row in self.rows[key]] for name in self.rows[0]}


def recording(samples, seed):
    noise = np.random.default_rng(seed).normal(0.0, 0.1, samples)
    return (noise + 0.3 * np.sin(np.arange(samples) * (0.05 + 0.02 * seed))).astype(np.float32)


def load_dataset(name, config, *, split):
    assert (config, split) == ("clean", "validation")
    waves = [recording(FIRST_ROW_SAMPLES, 0), recording(59_760, 1)]
    text = {"librispeech_asr_demo": "A BAD CAB", "librispeech_asr_dummy": "a cat sat"}[name.partition("/")[2]]
    rows = [
        {"id": f"row-{index}", "audio": {"array": wave, "sampling_rate": SAMPLE_RATE}, "text": text}
        for index, wave in enumerate(waves)
    ]
    return Recordings(
        rows[::-1] if name.endswith("demo") else rows
    )  # the pages of the one sort it, of the other do not


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder to run a page in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def publish(name, model, extractor=None):
    """Put a random model of theirs where a page names it, with its processor where one is given."""
    model.save_pretrained(name)
    if extractor is not None:
        with open("letters.json", "w") as file:
            json.dump({token: index for index, token in enumerate(LETTERS)}, file)
        tokenizer = transformers.Wav2Vec2CTCTokenizer("letters.json")
        is_waves = isinstance(extractor, transformers.Wav2Vec2FeatureExtractor)
        kind = transformers.Wav2Vec2Processor if is_waves else transformers.Wav2Vec2BertProcessor
        kind(extractor, tokenizer).save_pretrained(name)


def both(page):
    """Run a page with either library; returns what ours and theirs show."""
    return page(raysp.models), page(transformers)


def assert_same(ours, theirs, tolerance=1e-4):
    """Hold what a page shows to theirs: tensors to rounding, everything else as it is."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(
                ours[name], expected, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: n + m
            )
        elif isinstance(expected, float):
            assert ours[name] == pytest.approx(expected, abs=tolerance, rel=tolerance), name
        else:
            assert ours[name] == expected, name


def assert_same_architecture(ours, theirs):
    """Hold names and shapes of weights to theirs."""
    expected = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected


def random_model(cls, **flags):
    torch.manual_seed(0)
    return perturbed(cls(cls.config_class(**flags)))


def waves_extractor():
    return transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def log_mel_extractor():
    return transformers.SeamlessM4TFeatureExtractor(padding_value=1.0)


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


@pytest.mark.filterwarnings("ignore")  # theirs, of defaults of generate and of a missing sampling rate
def test_speech_encoder_decoder_translates(speech_to_text):
    """000-3."""
    ours, theirs = both(page_translate)
    assert_same(ours, theirs)
    assert len(ours["generated_text"]) > 10


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


def test_speech_encoder_decoder_configuration_saved_and_loaded(hub):
    """000-5."""
    (model, again, parts), (_, theirs, their_parts) = both(page_configuration)
    assert parts == their_parts == ("Wav2Vec2Config", "BertConfig")
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert_same_architecture(again, theirs)


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


@pytest.mark.parametrize(
    "name", ["FlaxSpeechEncoderDecoderModel", "FlaxAutoModel", "FlaxAutoModelForCausalLM", "FlaxSeq2SeqLMOutput"]
)
def test_jax_classes_are_answered_by_what_to_use(name):
    """000-8, 000-9."""
    expected = f"'{name}' is a JAX class, which raysp does not have: use '{name.removeprefix('Flax')}'"
    for line in (f"from raysp.models import {name}, AutoTokenizer", f"raysp.models.{name}"):
        with pytest.raises(ImportError, match=expected):
            exec(line)


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


# SEW-D


@pytest.mark.parametrize("name", ["SEWD", "Wav2Vec2Bert", "UniSpeech"])
def test_default_configurations_make_models(name):
    """002-1, 003-1, 004-1."""

    def page(library):
        # Initializing a style configuration
        configuration = getattr(library, f"{name}Config")()

        # Initializing a model (with random weights) from the style configuration
        model = getattr(library, f"{name}Model")(configuration)

        # Accessing the model configuration
        assert model.config is configuration
        return model

    with torch.device("meta"):
        ours, theirs = both(page)
    assert_same_architecture(ours, theirs)
    expected = theirs.config.to_dict()
    for field, value in ours.config.to_dict().items():
        if field in expected:
            assert value == (list(expected[field]) if isinstance(expected[field], tuple) else expected[field]), field


def sew_d_flags(**flags):
    convolutions = {"conv_dim": (8,) * 13}
    for name in ("conv_stride", "conv_kernel"):
        convolutions[name] = getattr(transformers.SEWDConfig(), name)
    return {**test_sew_d.TINY, "vocab_size": 20, "num_hidden_layers": 2, **convolutions, **flags}


def page_hidden_states(name, checkpoint):
    def page(library):
        dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")
        dataset = dataset.sort("id")
        sampling_rate = dataset.features["audio"].sampling_rate

        processor = library.AutoProcessor.from_pretrained(checkpoint)
        model = getattr(library, name).from_pretrained(checkpoint)

        # audio file is decoded on the fly
        inputs = processor(dataset[0]["audio"]["array"], sampling_rate=sampling_rate, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)

        last_hidden_states = outputs.last_hidden_state
        return {"shape": list(last_hidden_states.shape), "last_hidden_states": last_hidden_states}

    return page


def page_transcribe(name, checkpoint):
    def page(library):
        dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")
        dataset = dataset.sort("id")
        sampling_rate = dataset.features["audio"].sampling_rate

        processor = library.AutoProcessor.from_pretrained(checkpoint)
        model = getattr(library, name).from_pretrained(checkpoint)

        # audio file is decoded on the fly
        inputs = processor(dataset[0]["audio"]["array"], sampling_rate=sampling_rate, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
        predicted_ids = torch.argmax(logits, dim=-1)

        # transcribe speech
        transcription = processor.batch_decode(predicted_ids)

        inputs["labels"] = processor(text=dataset[0]["text"], return_tensors="pt").input_ids

        # compute loss
        loss = model(**inputs).loss
        shown = {"transcription": transcription[0], "rounded": round(loss.item(), 2)}
        return {**shown, "logits": logits, "labels": inputs["labels"], "loss": loss.item()}

    return page


def page_classify(name, checkpoint):
    def page(library):
        dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")
        dataset = dataset.sort("id")
        sampling_rate = dataset.features["audio"].sampling_rate

        feature_extractor = library.AutoFeatureExtractor.from_pretrained(checkpoint)
        model = getattr(library, name).from_pretrained(checkpoint)

        # audio file is decoded on the fly
        inputs = feature_extractor(dataset[0]["audio"]["array"], sampling_rate=sampling_rate, return_tensors="pt")

        with torch.no_grad():
            logits = model(**inputs).logits

        predicted_class_ids = torch.argmax(logits, dim=-1).item()
        predicted_label = model.config.id2label[predicted_class_ids]

        # compute loss - target_label is e.g. "down"
        target_label = model.config.id2label[0]
        inputs["labels"] = torch.tensor([model.config.label2id[target_label]])
        loss = model(**inputs).loss
        shown = {"predicted_label": predicted_label, "rounded": round(loss.item(), 2)}
        return {**shown, "logits": logits, "target_label": target_label, "loss": loss.item()}

    return page


def test_sew_d_hidden_states_have_the_shape_on_the_page(hub):
    """002-2."""
    flags = sew_d_flags(hidden_size=384, num_attention_heads=6)
    publish(SEW_D, random_model(transformers.SEWDForCTC, **flags), waves_extractor())
    ours, theirs = both(page_hidden_states("SEWDModel", SEW_D))
    assert_same(ours, theirs)
    assert ours["shape"] == [1, 292, 384]


def test_sew_d_transcribes(hub):
    """002-3."""
    publish(SEW_D, random_model(transformers.SEWDForCTC, **sew_d_flags()), waves_extractor())
    ours, theirs = both(page_transcribe("SEWDForCTC", SEW_D))
    assert_same(ours, theirs)
    assert len(ours["transcription"]) > 10


WORDS = {0: "down", 1: "go", 2: "_silence_", 3: "_unknown_"}
WORDS_BY_NAME = {word: index for index, word in WORDS.items()}


def test_sew_d_spots_keywords(hub):
    """002-4."""
    model = random_model(
        transformers.SEWDForSequenceClassification, **sew_d_flags(), id2label=WORDS, label2id=WORDS_BY_NAME
    )
    publish(KEYWORDS, model, waves_extractor())
    ours, theirs = both(page_classify("SEWDForSequenceClassification", KEYWORDS))
    assert_same(ours, theirs)
    assert ours["target_label"] == "down"
    assert ours["predicted_label"] in WORDS_BY_NAME


# Wav2Vec2-BERT


def publish_log_mels(name, **flags):
    flags = {**test_wav2vec2_bert.TINY, "feature_projection_input_dim": 160, **flags}
    publish(LOG_MELS, random_model(getattr(transformers, name), **flags), log_mel_extractor())


def test_wav2vec2_bert_transcribes(hub):
    """003-2."""
    publish_log_mels("Wav2Vec2BertForCTC")
    ours, theirs = both(page_transcribe("Wav2Vec2BertForCTC", LOG_MELS))
    assert_same(ours, theirs, tolerance=1e-3)
    assert len(ours["transcription"]) > 10


def speech_inputs(library):
    """Stand for `tokenizer("Hello, my dog is cute", return_tensors="pt")`, which no model of speech takes."""
    dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation").sort("id")
    feature_extractor = library.AutoFeatureExtractor.from_pretrained(LOG_MELS)
    return feature_extractor(dataset[0]["audio"]["array"], return_tensors="pt", sampling_rate=SAMPLE_RATE)


@pytest.mark.parametrize("name", ["Wav2Vec2BertForSequenceClassification"])
def test_text_is_no_input_of_a_model_of_speech(hub, name):
    """003-3 and 003-4 as they stand on the page, which theirs fail at, too."""
    publish_log_mels(name)

    def page(library):
        tokenizer = library.AutoTokenizer.from_pretrained(LOG_MELS)
        model = getattr(library, name).from_pretrained(LOG_MELS)
        inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
        with torch.no_grad():
            return model(**inputs).logits

    for library in (raysp.models, transformers):
        with pytest.raises(TypeError, match=r"input_ids|input_features"):
            page(library)


def test_wav2vec2_bert_gives_one_class(hub):
    """003-3."""
    publish_log_mels("Wav2Vec2BertForSequenceClassification")

    def page(library):
        model = library.Wav2Vec2BertForSequenceClassification.from_pretrained(LOG_MELS)

        inputs = speech_inputs(library)
        with torch.no_grad():
            logits = model(**inputs).logits

        predicted_class_id = logits.argmax().item()
        label = model.config.id2label[predicted_class_id]

        # To train a model on `num_labels` classes, you can pass `num_labels=num_labels` to `.from_pretrained(...)`
        num_labels = len(model.config.id2label)
        model = library.Wav2Vec2BertForSequenceClassification.from_pretrained(LOG_MELS, num_labels=num_labels)

        labels = torch.tensor([1])
        loss = model(**inputs, labels=labels).loss
        return {"label": label, "num_labels": num_labels, "logits": logits, "loss": loss.item()}

    ours, theirs = both(page)
    assert_same(ours, theirs)
    assert ours["label"] in ("LABEL_0", "LABEL_1")


def test_wav2vec2_bert_gives_several_classes(hub):
    """003-4; theirs takes labels for numbers of one class whatever the problem, and fails at the page's last line."""
    publish_log_mels("Wav2Vec2BertForSequenceClassification", num_labels=5)

    def page(library):
        model = library.Wav2Vec2BertForSequenceClassification.from_pretrained(
            LOG_MELS, problem_type="multi_label_classification"
        )

        inputs = speech_inputs(library)
        with torch.no_grad():
            logits = model(**inputs).logits

        predicted_class_ids = torch.arange(0, logits.shape[-1])[torch.sigmoid(logits).squeeze(dim=0) > 0.5]

        # To train a model on `num_labels` classes, you can pass `num_labels=num_labels` to `.from_pretrained(...)`
        num_labels = len(model.config.id2label)
        model = library.Wav2Vec2BertForSequenceClassification.from_pretrained(
            LOG_MELS, num_labels=num_labels, problem_type="multi_label_classification"
        )

        labels = torch.sum(F.one_hot(predicted_class_ids[None, :].clone(), num_classes=num_labels), dim=1).to(
            torch.float
        )

        def loss():
            return model(**inputs, labels=labels).loss

        return loss, {"classes": predicted_class_ids, "labels": labels, "logits": logits}

    (our_loss, ours), (their_loss, theirs) = both(page)
    assert_same(ours, theirs)
    torch.testing.assert_close(our_loss(), F.binary_cross_entropy_with_logits(ours["logits"], ours["labels"]))
    with pytest.raises(ValueError, match="Expected input batch_size"):
        their_loss()
    assert ours["labels"].shape == (1, 5)
    assert 0 < ours["labels"].sum() < 5


def test_wav2vec2_bert_gives_speakers_of_frames(hub):
    """003-5."""
    publish_log_mels("Wav2Vec2BertForAudioFrameClassification", num_labels=3)

    def page(library):
        dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")
        dataset = dataset.sort("id")
        sampling_rate = dataset.features["audio"].sampling_rate

        feature_extractor = library.AutoFeatureExtractor.from_pretrained(LOG_MELS)
        model = library.Wav2Vec2BertForAudioFrameClassification.from_pretrained(LOG_MELS)

        # audio file is decoded on the fly
        inputs = feature_extractor(dataset[0]["audio"]["array"], return_tensors="pt", sampling_rate=sampling_rate)
        with torch.no_grad():
            logits = model(**inputs).logits

        probabilities = torch.sigmoid(logits[0])
        # labels is a one-hot array of shape (num_frames, num_speakers)
        labels = (probabilities > 0.5).long()
        return {"first": labels[0].tolist(), "shape": labels.shape, "probabilities": probabilities}

    ours, theirs = both(page)
    assert_same(ours, theirs)
    assert ours["shape"] == (292, 3)


def test_wav2vec2_bert_compares_speakers(hub, capsys):
    """003-6; the shorter recording is held to what theirs gives of it alone, as padding has a part in theirs."""
    publish_log_mels("Wav2Vec2BertForXVector")

    def page(library, rows=slice(2), **options):
        dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")
        dataset = dataset.sort("id")
        sampling_rate = dataset.features["audio"].sampling_rate

        feature_extractor = library.AutoFeatureExtractor.from_pretrained(LOG_MELS)
        model = library.Wav2Vec2BertForXVector.from_pretrained(LOG_MELS, **options)

        # audio file is decoded on the fly
        inputs = feature_extractor(
            [d["array"] for d in dataset[rows]["audio"]], sampling_rate=sampling_rate, return_tensors="pt", padding=True
        )
        with torch.no_grad():
            embeddings = model(**inputs).embeddings

        return torch.nn.functional.normalize(embeddings, dim=-1).cpu()

    def compare(embeddings):
        # the resulting embeddings can be used for cosine similarity-based retrieval
        cosine_sim = torch.nn.CosineSimilarity(dim=-1)
        similarity = cosine_sim(embeddings[0], embeddings[1])
        threshold = 0.7  # the optimal threshold is dataset-dependent
        if similarity < threshold:
            print("Speakers are not the same!")  # noqa: T201 - as on the page
        return {"embeddings": embeddings, "similarity": round(similarity.item(), 2)}

    alone = torch.cat([page(transformers, slice(row, row + 1)) for row in range(2)])
    assert_same(compare(page(raysp.models)), compare(alone))
    assert_same(compare(page(raysp.models, padding="reference")), compare(page(transformers)))
    assert capsys.readouterr().out.count("Speakers are not the same!") in (0, 4)


@pytest.mark.parametrize(
    ("head", "drawn"),
    [
        ("CTC", {"lm_head"}),
        ("SequenceClassification", {"projector", "classifier"}),
        ("AudioFrameClassification", {"classifier"}),
        ("XVector", {"projector", "tdnn", "feature_extractor", "classifier", "objective"}),
    ],
)
def test_a_checkpoint_without_the_head_of_the_page_gets_a_new_one(hub, caplog, head, drawn):
    """What 003-2 to 003-6 do with a checkpoint that is only pretrained."""
    publish_log_mels("Wav2Vec2BertModel")
    cls = getattr(raysp.models, f"Wav2Vec2BertFor{head}")
    model, info = cls.from_pretrained(LOG_MELS, output_loading_info=True)
    assert {name.partition(".")[0] for name in info["missing_keys"]} == drawn
    assert "randomly initialised, train them before use" in caplog.text
    with torch.no_grad():
        assert model(**speech_inputs(raysp.models)).logits.isfinite().all()


# UniSpeech, whose blocks are empty on the page


def unispeech_flags(**flags):
    defaults = transformers.UniSpeechConfig()
    convolutions = {"conv_dim": (8,) * 7, "conv_stride": defaults.conv_stride, "conv_kernel": defaults.conv_kernel}
    return {**TINY, **convolutions, **flags}


def test_unispeech_hidden_states(hub):
    """004-2."""
    publish(UNISPEECH, random_model(transformers.UniSpeechForCTC, **unispeech_flags()), waves_extractor())
    ours, theirs = both(page_hidden_states("UniSpeechModel", UNISPEECH))
    assert_same(ours, theirs)
    assert ours["shape"] == [1, 292, 32]


def test_unispeech_transcribes(hub):
    """004-3."""
    publish(UNISPEECH, random_model(transformers.UniSpeechForCTC, **unispeech_flags()), waves_extractor())
    ours, theirs = both(page_transcribe("UniSpeechForCTC", UNISPEECH))
    assert_same(ours, theirs)
    assert len(ours["transcription"]) > 10


def test_unispeech_spots_keywords(hub):
    """004-4."""
    flags = unispeech_flags(id2label=WORDS, label2id=WORDS_BY_NAME)
    publish(UNISPEECH, random_model(transformers.UniSpeechForSequenceClassification, **flags), waves_extractor())
    assert_same(*both(page_classify("UniSpeechForSequenceClassification", UNISPEECH)))


def test_unispeech_pretrains(hub):
    """004-5: every field in eval mode; a loss in train mode, where theirs has none."""
    codes = {"num_codevectors_per_group": 6, "codevector_dim": 8, "proj_codevector_dim": 10, "num_negatives": 5}
    publish(
        UNISPEECH, random_model(transformers.UniSpeechForPreTraining, **unispeech_flags(**codes)), waves_extractor()
    )

    def page(library):
        dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")
        feature_extractor = library.AutoFeatureExtractor.from_pretrained(UNISPEECH)
        model = library.UniSpeechForPreTraining.from_pretrained(UNISPEECH)
        inputs = feature_extractor(dataset[0]["audio"]["array"], sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        fields = ("projected_states", "projected_quantized_states", "codevector_perplexity")
        assert outputs.loss is None
        return model, inputs, {name: getattr(outputs, name) for name in fields}

    (model, inputs, ours), (_, _, theirs) = both(page)
    assert_same(ours, theirs)
    torch.manual_seed(0)
    np.random.seed(0)
    loss = model.train()(**inputs).loss
    loss.backward()
    assert loss.isfinite()
    assert model.quantizer.codevectors.grad.abs().max() > 0


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
