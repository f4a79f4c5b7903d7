"""Silero VAD: probabilities of the original, in any batch."""

import io
import warnings

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file

from raysp.checkpoints import packaged
from raysp.models.silero_vad import CHUNK_SAMPLES, SileroVAD
from tests.kit import digits

NAMES = {
    "stft": "stft_conv",
    **{f"encoder.{number}.reparam_conv": f"conv{number + 1}" for number in range(4)},
    "decoder.rnn": "lstm_cell",
    "decoder.decoder.2": "final_conv",
}
"""Modules of the program, and those of the safetensors file."""


def original():
    """Return the original's program with the weights of the safetensors file, which are not those of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load`", DeprecationWarning)
        program = torch.jit.load(packaged.SPEECH.path().with_name("silero_vad.jit"))
    given = load_file(packaged.SPEECH.path())
    for name, value in program._model.state_dict().items():
        module, _, part = name.rpartition(".")
        value.copy_(given[f"{NAMES[module]}.{part.replace('forward_basis_buffer', 'weight')}"])
    return program


def spoken() -> list[torch.Tensor]:
    """Return spoken digits, as if they were of 16 kHz, and noise."""
    rows = [soundfile.read(io.BytesIO(row["audio"]), dtype="float32")[0] for row in digits(3)]
    draw = np.random.default_rng(0)
    rows += [draw.standard_normal(n).astype(np.float32).cumsum() * 0.006 for n in (1, 100, 512, 513, 40_000)]
    return [torch.from_numpy(row) for row in rows]


def together(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=9.0), torch.tensor([*map(len, rows)])


@torch.inference_mode()
def test_probabilities_are_those_of_the_original_whatever_shares_the_batch():
    model, program = SileroVAD.from_package(), original()
    rows = spoken()
    rows.append(torch.cat([torch.nn.functional.pad(one, (8_000, 8_000)) for one in rows[:3]]))
    for row, found in zip(rows, model(*together(rows)), strict=True):
        torch.testing.assert_close(found, model(*together([row]))[0], rtol=0, atol=1e-6)
        program.reset_states()
        chunks = torch.nn.functional.pad(row, (0, -len(row) % CHUNK_SAMPLES)).split(CHUNK_SAMPLES)
        expected = torch.stack([program(chunk, 16_000)[0, 0] for chunk in chunks])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.max() > 0.9
    assert found.min() < 0.1
