"""Small models and micro-batches of real digits."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
from raysp.training.data.micro_batches import MicroBatch
from tests.corpora import DEMO
from tests.recipes import SMALL

LETTERS = "|EFGHINORSTUVWXZ"
IDS = {letter: number for number, letter in enumerate(LETTERS, 4)}


def small_model(cls: type = Wav2Vec2ForCTC, config: type = Wav2Vec2Config, **fields: object):
    torch.manual_seed(0)
    return cls(config(**{**SMALL, **fields})).train()


@pytest.fixture(scope="session")
def digits() -> list[tuple[np.ndarray, list[int]]]:
    """Samples at 16 kHz with the ids of the letters of their words."""
    file = min((Path(DEMO) / "audio").glob("*.parquet"))
    rows = pq.ParquetFile(file).read_row_group(0, ["audio", "text"]).to_pylist()[:32]
    found = []
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        wave = np.repeat(samples, 16_000 // rate).astype(np.float32)
        found.append((wave, [IDS[letter] for letter in row["text"].upper().replace(" ", "|")]))
    return found


@pytest.fixture(scope="session")
def steps(digits) -> list[list[MicroBatch]]:
    """Eight steps of four micro-batches, the last of them empty in one step."""
    found = []
    for step in range(8):
        batches = []
        for number in range(4):
            rows = [] if (step, number) == (3, 3) else [(4 * step + number + 7 * place) % 32 for place in range(3)]
            batches.append(micro_batch(digits, number, rows))
        found.append(batches)
    return found


def micro_batch(digits, number: int, rows: Sequence[int]) -> MicroBatch:
    return MicroBatch(number, rows, [digits[row][0] for row in rows], [digits[row][1] for row in rows])


@pytest.fixture(scope="session")
def extractor() -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=True)


@contextlib.contextmanager
def interrupted_amid_an_update(number: int = 4) -> Iterator[None]:
    """Interrupt the training in this block amid an update, as Ctrl-C does, after some of its weights changed."""
    original, calls = torch.optim.AdamW.step, []

    def interrupted(self, *args, **kwargs):
        calls.append(0)
        if len(calls) == number:
            self.param_groups[0]["params"][0].data.add_(1.0)
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield
