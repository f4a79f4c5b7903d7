"""A padded batch, decoded as the documents say, writes the texts of its rows alone, with every CTC head."""

import io
import json
import logging
import re

import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

import raysp.models
from raysp.models import (
    AutoProcessor,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetProcessor,
    SeamlessM4TFeatureExtractor,
    SEWDForCTC,
    UniSpeechForCTC,
    Wav2Vec2BertForCTC,
)
from raysp.models.base.batches import warn_of_missing_mask
from tests.models.parity import inputs_and_mask

CTC_CLASSES = [getattr(raysp.models, name) for name in raysp.models.__all__ if re.fullmatch("(?!Auto).*ForCTC", name)]
CHECKPOINTS = dict.fromkeys(CTC_CLASSES, "unispeech-digits-ctc") | {Wav2Vec2BertForCTC: "w2vbert-digits-ctc"}
LOG_MELS = {Wav2Vec2BertForCTC: 160, ParakeetForCTC: 80}
"""Classes that read log-mel frames, and the width of these."""
SMALL = {"vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SMALL |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
NARROW = {"conv_dim": (16,) * 5, "conv_stride": (5, 4, 4, 2, 2), "conv_kernel": (10, 4, 4, 2, 3)}


@pytest.fixture(scope="module")
def digits(shared):
    """Waveforms of 100 real recordings, by their names."""
    path = min((shared / "data" / "digits").glob("*.parquet"))
    waves = {}
    for row in pq.read_table(path, columns=["id", "audio"])[:100].to_pylist():
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32", always_2d=True)
        waves[row["id"]] = soxr.resample(samples.mean(axis=1), rate, 16000, quality="HQ")
    assert len({len(wave) for wave in waves.values()}) > 50
    return waves


def trained_under_another_name(cls, folder):
    """The UniSpeech checkpoint as a model of an architecture with the same weights."""
    theirs = UniSpeechForCTC.from_pretrained(folder)
    values = {**theirs.config.to_dict(), "model_type": cls.config_class.model_type}
    model = cls(cls.config_class.from_dict(values))
    weights = theirs.state_dict()
    model.load_state_dict(
        {name.replace("unispeech.", cls.base_model_prefix + ".", 1): weight for name, weight in weights.items()}
    )
    return model.eval()


def random_model(cls, **changes):
    """A small model whose texts are long, since its weights are large."""
    torch.manual_seed(0)
    narrow = {} if cls in LOG_MELS else NARROW
    values = {**SMALL, **narrow, **changes}
    if cls is ParakeetForCTC:
        encoder = {**values, "subsampling_conv_channels": 8}
        values = {"pad_token_id": 0, **values, "encoder_config": encoder}
    model = cls(cls.config_class(**values)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model


def texts(model, processor, waves):
    """Decode as the documents say."""
    inputs = processor(waves, sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="pt")
    with torch.inference_mode():
        return processor.batch_decode(model(**inputs.to(model.device)).logits.argmax(-1))


@pytest.mark.slow
@pytest.mark.parametrize("cls", CTC_CLASSES)
def test_a_hundred_digits_in_one_batch_decode_to_the_texts_of_each_alone(shared, digits, cls):
    torch.set_num_threads(1)
    folder = shared / "checkpoints" / CHECKPOINTS[cls]
    processor = AutoProcessor.from_pretrained(folder)
    if cls is ParakeetForCTC:
        processor = ParakeetProcessor(ParakeetFeatureExtractor(), processor.tokenizer)
    if cls in (SEWDForCTC, ParakeetForCTC):  # there is no small checkpoint of real speech
        model = random_model(cls, **({"subsampling_factor": 2} if cls is ParakeetForCTC else {}))
        expected = [texts(model, processor, wave)[0] for wave in digits.values()]
    else:  # what transformers wrote for each recording alone
        is_its_own = cls in (UniSpeechForCTC, Wav2Vec2BertForCTC)
        model = cls.from_pretrained(folder) if is_its_own else trained_under_another_name(cls, folder)
        expected = [json.loads((folder / "texts.json").read_text())[name] for name in digits]
    assert texts(model, processor, [*digits.values()]) == expected
    assert len(set(expected)) > 9


@torch.inference_mode()
def test_an_odd_log_mel_frame_at_the_end_of_a_row_keeps_its_label():
    model, extractor = random_model(Wav2Vec2BertForCTC), SeamlessM4TFeatureExtractor()
    generator = torch.Generator().manual_seed(0)
    lengths = [400 + 160 * mels for mels in (59, 40, 39, 22)]  # an even, an odd, an even and an odd number of frames
    waves = [0.1 * torch.randn(length, generator=generator).numpy() for length in lengths]
    together = model(**extractor(waves, sampling_rate=16_000, return_tensors="pt")).logits
    for row, wave in enumerate(waves):
        alone = model(**extractor(wave, sampling_rate=16_000, return_tensors="pt")).logits[0]
        assert len(alone) == model.num_frames(lengths[row])
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)
        assert together[row, len(alone) :].argmax(-1).eq(0).all()


@pytest.fixture
def warned(caplog):
    warn_of_missing_mask.cache_clear()
    caplog.set_level(logging.WARNING, logger="raysp.models")
    yield lambda: [record.getMessage() for record in caplog.records if "attention_mask" in record.getMessage()]
    warn_of_missing_mask.cache_clear()


@pytest.mark.parametrize("cls", CTC_CLASSES)
@torch.inference_mode()
def test_padded_rows_without_a_mask_are_warned_of_once(cls, warned):
    model = random_model(cls)
    lengths, width = ([90, 41], LOG_MELS[cls]) if cls in LOG_MELS else ([3001, 1700], None)
    inputs, mask = inputs_and_mask(lengths, width)
    model(inputs, mask)
    model(inputs[:1])
    model(torch.cat([inputs[:1], inputs[:1]]))
    assert not warned()
    model(inputs)
    model(inputs)
    (message,) = warned()
    assert "return_attention_mask=True" in message


@pytest.mark.parametrize("cls", CTC_CLASSES)
def test_an_input_without_the_axis_of_the_batch_is_named_with_what_is_expected(cls):
    model = random_model(cls)
    shape = (90, LOG_MELS[cls]) if cls in LOG_MELS else (3000,)
    expected = rf"shape {re.escape(repr(shape))}, expected {re.escape(model.input_axes)}: add the batch axis, x\[None\]"
    with pytest.raises(ValueError, match=expected):
        model(torch.zeros(shape))
    batch = torch.zeros(2, *shape)
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 7\), expected \(2, \d+\)"):
        model(batch, torch.ones(2, 7))
