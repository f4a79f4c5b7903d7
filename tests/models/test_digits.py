"""The shared checkpoints write, in padded batches, the texts that transformers wrote for each clip alone."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

from raysp.models import load_checkpoint


def decode(encoded: bytes) -> torch.Tensor:
    samples, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    return torch.from_numpy(soxr.resample(samples.mean(axis=1), rate, 16_000, quality="HQ").astype(np.float32))


def digits(shared, rows: slice) -> dict[str, torch.Tensor]:
    files = sorted((shared / "data" / "digits").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path, columns=["id", "audio"]) for path in files])
    found = table.slice(rows.start, rows.stop - rows.start).to_pylist()
    return {row["id"]: decode(row["audio"]["bytes"]) for row in found}


def sentences(shared, expected) -> dict[str, torch.Tensor]:
    """Return recordings of very different lengths."""
    paths = sorted(path for path in (shared / "data" / "sentences").iterdir() if path.name in expected)
    return {path.name: decode(path.read_bytes()) for path in paths[::16]}


@torch.inference_mode()
def transcribed(loaded, clips, rows):
    """Return the texts of clips by name, in batches of so many rows."""
    texts, names = {}, [*clips]
    for batch in (names[first : first + rows] for first in range(0, len(names), rows)):
        padded = torch.nn.utils.rnn.pad_sequence([clips[name] for name in batch], batch_first=True)
        features = loaded.feature_extractor.extract(padded, torch.tensor([len(clips[name]) for name in batch]))
        written = loaded.tokenizer.batch_decode(loaded.model(**features).logits.argmax(-1))
        texts |= zip(batch, written, strict=True)
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unispeech-digits-ctc", "w2vbert-digits-ctc"])
def test_rows_of_mixed_lengths_have_their_texts_and_most_of_them_in_half_precision(shared, name):
    torch.set_num_threads(1)
    folder = shared / "checkpoints" / name
    expected, loaded = json.loads((folder / "texts.json").read_text()), load_checkpoint(folder)
    few, long = digits(shared, slice(0, 48)), sentences(shared, expected)
    assert len(long) > 4
    for clips, rows in ((few, 24), ({**long, **dict([*few.items()][:5])}, 100)):
        assert transcribed(loaded, clips, rows) == {name: expected[name] for name in clips}
    half, clips = load_checkpoint(folder, dtype="bfloat16"), digits(shared, slice(300, 360))
    assert half.model.dtype == torch.bfloat16
    texts = transcribed(half, clips, 24)
    assert sum(texts[clip] == expected[clip] for clip in clips) >= 0.96 * len(clips)
