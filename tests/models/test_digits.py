"""The shared UniSpeech checkpoint writes, in padded batches, the texts that transformers wrote for each clip alone."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

from raysp.models import check_checkpoint, load_checkpoint
from raysp.text.greedy_ctc import greedy
from tests.soaked import soaked


def decode(encoded: bytes, sample_rate: int) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, sample_rate, quality="HQ")


@pytest.fixture(scope="module")
def digits(shared):
    """(id, waveform) of all clips."""
    clips = []
    for path in sorted((shared / "data" / "digits").glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "audio"])
        clips += [(row["id"], decode(row["audio"]["bytes"], 16000)) for row in table.to_pylist()]
    return clips


@pytest.fixture(scope="module")
def loaded(shared):
    torch.set_num_threads(1)
    return load_checkpoint(shared / "checkpoints" / "unispeech-digits-ctc")


@torch.inference_mode()
def transcribe(loaded, waves):
    num_samples = torch.tensor([len(wave) for wave in waves])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
    features = loaded.feature_extractor.extract(padded, num_samples)
    logits = loaded.model(**features).logits
    tokens = greedy(logits, loaded.model.num_frames(num_samples), blank=loaded.tokenizer.pad_token_id)
    return [loaded.tokenizer.decode_collapsed(ids) for ids in tokens.ids()]


def batches(clips, max_samples):
    batch, longest = [], 0
    for clip in clips:
        longest = max(longest, len(clip[1]))
        if batch and longest * (len(batch) + 1) > max_samples:
            yield batch
            batch, longest = [], len(clip[1])
        batch.append(clip)
    yield batch


def texts_in_batches(loaded, clips, max_samples):
    return {
        name: text
        for batch in batches(clips, max_samples)
        for (name, _), text in zip(batch, transcribe(loaded, [wave for _, wave in batch]), strict=True)
    }


def test_the_checkpoint_is_complete(shared):
    summary = check_checkpoint(shared / "checkpoints" / "unispeech-digits-ctc")
    assert (summary.vocab_size, summary.min_samples, summary.frame_stride) == (20, 400, 320)


@pytest.mark.slow
def test_a_shard_of_digits_in_mixed_batches_gives_the_reference_texts(shared, digits, loaded):
    expected = json.loads((shared / "checkpoints" / "unispeech-digits-ctc" / "texts.json").read_text())
    clips = digits[:250]
    texts = texts_in_batches(loaded, clips, 16000 * 30)
    assert texts == {name: expected[name] for name, _ in clips}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("unispeech-digits-ctc", 0.985), ("w2vbert-digits-ctc", 0.97)])
def test_half_precision_gives_most_reference_texts_but_not_all(shared, digits, name, share):
    expected = json.loads((shared / "checkpoints" / name / "texts.json").read_text())
    clips = digits[300:600]
    texts = texts_in_batches(load_checkpoint(shared / "checkpoints" / name, dtype="bfloat16"), clips, 16000 * 30)
    equal = sum(texts[clip] == expected[clip] for clip, _ in clips)
    assert share * len(clips) <= equal < len(clips)  # all of them: it was float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "is_sorted", "every"),
    [
        (240, True, 5),
        *(
            pytest.param(*one, 1, marks=pytest.mark.soak)
            for one in [(5, True), (5, False), (30, True), (30, False), (240, True), (240, False)]
        ),
    ],
)
def test_all_digits_give_the_reference_texts_for_any_batch_size(shared, digits, loaded, seconds, is_sorted, every):
    expected = json.loads((shared / "checkpoints" / "unispeech-digits-ctc" / "texts.json").read_text())
    assert len(digits) == 2500
    clips = digits[::every]
    clips = sorted(clips, key=lambda clip: -len(clip[1])) if is_sorted else clips
    texts = texts_in_batches(loaded, clips, 16000 * seconds)
    assert texts == {name: expected[name] for name, _ in clips}


@pytest.mark.slow
@pytest.mark.parametrize("every", [4, *soaked([1])])
def test_sentences_of_any_length_give_the_reference_texts(shared, loaded, every):
    expected = json.loads((shared / "checkpoints" / "unispeech-digits-ctc" / "texts.json").read_text())
    paths = sorted(path for path in (shared / "data" / "sentences").iterdir() if path.name in expected)
    assert len(paths) > 50
    clips = [(path.name, decode(path.read_bytes(), 16000)) for path in paths[::every]]
    texts = texts_in_batches(loaded, clips, 16000 * 120)
    differing = {name: (text, expected[name]) for name, text in texts.items() if text != expected[name]}
    assert not differing
