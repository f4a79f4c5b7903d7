"""Silero VAD: probabilities of the original, in any batch."""

import io
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch
from safetensors.torch import load_file

from raysp.checkpoints import packaged
from raysp.models.silero_vad import CHUNK_SAMPLES, SileroVAD
from tests.corpora import DEMO

NAMES = {
    "stft": "stft_conv",
    **{f"encoder.{number}.reparam_conv": f"conv{number + 1}" for number in range(4)},
    "decoder.rnn": "lstm_cell",
    "decoder.decoder.2": "final_conv",
}
"""Modules of the program, and those of the safetensors file."""


def _stored(name: str) -> str:
    module, _, part = name.rpartition(".")
    return f"{NAMES[module]}.{part.replace('forward_basis_buffer', 'weight')}"


@pytest.fixture(scope="module")
def model():
    return SileroVAD.from_package()


@pytest.fixture(scope="module")
def original():
    """The original's program with the weights of the safetensors file, which are not those of the program's own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load`", DeprecationWarning)
        program = torch.jit.load(packaged.SPEECH.path().with_name("silero_vad.jit"))
    given = load_file(packaged.SPEECH.path())
    with torch.no_grad():
        for name, value in program._model.state_dict().items():
            value.copy_(given[_stored(name)])
    return program


@pytest.fixture(scope="module")
def digits() -> list[torch.Tensor]:
    """Five spoken digits at 16 kHz."""
    file = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet")))
    found = []
    for row in file.read_row_group(0, columns=["audio"]).slice(0, 5).to_pylist():
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        found.append(torch.from_numpy(soxr.resample(samples, rate, 16_000)))
    return found


def waves(*lengths: int) -> list[torch.Tensor]:
    draw = np.random.default_rng(0)
    return [torch.from_numpy(0.3 * draw.standard_normal(n).astype(np.float32)).cumsum(0).mul(0.02) for n in lengths]


def together(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=9.0), torch.tensor([*map(len, rows)])


def theirs(original, wave: torch.Tensor) -> torch.Tensor:
    original.reset_states()
    padded = torch.nn.functional.pad(wave, (0, -len(wave) % CHUNK_SAMPLES))
    return torch.stack([original(chunk, 16_000)[0, 0] for chunk in padded.split(CHUNK_SAMPLES)])


@pytest.mark.slow
@torch.inference_mode()
def test_probabilities_are_those_of_the_original(model, original, digits):
    joined = torch.cat([torch.nn.functional.pad(one, (8_000, 8_000)) for one in digits])
    for wave in (joined, *digits, *waves(512, 513, 16_000, 100)):
        [found] = model(*together([wave]))
        torch.testing.assert_close(found, theirs(original, wave), rtol=1e-4, atol=1e-5)
    [found] = model(*together([joined]))
    assert found.max() > 0.9
    assert found.min() < 0.1


@torch.inference_mode()
def test_a_row_does_not_depend_on_what_shares_its_batch(model, digits):
    rows = [*digits, *waves(1, 512, 40_000)]
    for row, found in zip(rows, model(*together(rows)), strict=True):
        assert len(found) == -(-len(row) // CHUNK_SAMPLES)
        torch.testing.assert_close(found, model(*together([row]))[0], rtol=0, atol=1e-6)
