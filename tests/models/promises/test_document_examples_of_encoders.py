"""The code of the documents of SEW-D, Wav2Vec2-BERT and UniSpeech; `test_document_examples` says how it runs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import raysp.models
from tests.models.oracles import TINY, TINY_SEW_D, TINY_WAV2VEC2_BERT, transformers
from tests.models.promises.document_pages import (
    SAMPLE_RATE,
    assert_same,
    assert_same_architecture,
    both,
    load_dataset,
    log_mel_extractor,
    publish,
    random_model,
    waves_extractor,
)

SEW_D, KEYWORDS = "asapp/sew-d-tiny-100k-ft-ls100h", "anton-l/sew-d-mid-400k-ft-keyword-spotting"
LOG_MELS, UNISPEECH = "facebook/wav2vec2-bert-rel-pos-large", "microsoft/unispeech-large-1500h-cv"


@pytest.mark.slow
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


# SEW-D


def sew_d_flags(**flags):
    convolutions = {"conv_dim": (8,) * 13}
    for name in ("conv_stride", "conv_kernel"):
        convolutions[name] = getattr(transformers.SEWDConfig(), name)
    return {**TINY_SEW_D, "vocab_size": 20, "num_hidden_layers": 2, **convolutions, **flags}


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


@pytest.mark.slow
def test_sew_d_hidden_states_have_the_shape_on_the_page(hub):
    """002-2."""
    flags = sew_d_flags(hidden_size=384, num_attention_heads=6)
    publish(SEW_D, random_model(transformers.SEWDForCTC, **flags), waves_extractor())
    ours, theirs = both(page_hidden_states("SEWDModel", SEW_D))
    assert_same(ours, theirs)
    assert ours["shape"] == [1, 292, 384]


@pytest.mark.slow
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
    flags = {**TINY_WAV2VEC2_BERT, "feature_projection_input_dim": 160, **flags}
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
def test_text_is_not_an_input_of_a_speech_model(hub, name):
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_wav2vec2_bert_compares_speakers(hub, capsys):
    """003-6; the shorter recording is held to what theirs gives of it alone, as padding has a part in theirs."""
    publish_log_mels("Wav2Vec2BertForXVector")

    def page(library, rows=slice(2)):
        dataset = load_dataset("hf-internal-testing/librispeech_asr_demo", "clean", split="validation")
        dataset = dataset.sort("id")
        sampling_rate = dataset.features["audio"].sampling_rate

        feature_extractor = library.AutoFeatureExtractor.from_pretrained(LOG_MELS)
        model = library.Wav2Vec2BertForXVector.from_pretrained(LOG_MELS)

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
    assert capsys.readouterr().out.count("Speakers are not the same!") in (0, 2)


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
    model = cls.from_pretrained(LOG_MELS)
    assert {name.partition(".")[0] for name in model.new_weights} == drawn
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
