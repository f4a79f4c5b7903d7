"""The shared checkpoints write, in padded batches, the texts that transformers wrote for each clip alone."""

import io
import json
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

from raysp.models import LoadedCheckpoint, load_checkpoint

NAMES = ("unispeech-digits-ctc", "w2vbert-digits-ctc")


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


class Trained(NamedTuple):
    """A shared checkpoint, and the texts that transformers wrote of each clip alone."""

    name: str
    loaded: LoadedCheckpoint
    expected: dict[str, str]


def load(shared, name, **options):
    torch.set_num_threads(1)
    folder = shared / "checkpoints" / name
    return Trained(name, load_checkpoint(folder, **options), json.loads((folder / "texts.json").read_text()))


@pytest.fixture(scope="module", params=NAMES)
def trained(shared, request):
    return load(shared, request.param)


@pytest.fixture(scope="module")
def sentences(shared, trained):
    """(name, waveform) of recordings of very different lengths."""
    paths = sorted(path for path in (shared / "data" / "sentences").iterdir() if path.name in trained.expected)
    assert len(paths) > 50
    return [(path.name, decode(path.read_bytes(), 16000)) for path in paths]


@torch.inference_mode()
def transcribe(loaded, waves):
    num_samples = torch.tensor([len(wave) for wave in waves])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
    features = loaded.feature_extractor.extract(padded, num_samples)
    return loaded.tokenizer.batch_decode(loaded.model(**features).logits.argmax(-1))


def texts_in_batches(loaded, clips, rows):
    """Return the texts of clips by name, in batches of so many rows."""
    texts = {}
    for first in range(0, len(clips), rows):
        names, waves = zip(*clips[first : first + rows], strict=True)
        texts |= zip(names, transcribe(loaded, waves), strict=True)
    return texts


@pytest.mark.slow
def test_rows_of_mixed_and_of_very_different_lengths_have_their_texts(digits, trained, sentences):
    for clips, rows in ((digits[:48], 24), (sentences[::12] + digits[:5], 100)):
        texts = texts_in_batches(trained.loaded, clips, rows)
        assert texts == {name: trained.expected[name] for name, _ in clips}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_most_reference_texts(shared, digits, name):
    clips, half = digits[300:400], load(shared, name, dtype="bfloat16")
    assert half.loaded.model.dtype == torch.bfloat16
    texts = texts_in_batches(half.loaded, clips, 24)
    assert sum(texts[clip] == half.expected[clip] for clip, _ in clips) >= 0.96 * len(clips)
