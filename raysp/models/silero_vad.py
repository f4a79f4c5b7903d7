"""Silero VAD (Silero Team 2024, github.com/snakers4/silero-vad, version 6, MIT): probability of speech in 32 ms chunks.

Shapes: B batch, S samples, C chunks of a row, N chunks of all rows, H hidden size.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from raysp.checkpoints.packaged import SPEECH
from raysp.errors import CheckpointError
from raysp.models.base.weights import read_safetensors

CHUNK_SAMPLES = 512
CONTEXT_SAMPLES = 64
"""Samples before a chunk that are part of its input."""
WINDOW, HOP, BINS = 256, 128, 129
"""Samples of a frame of the spectrum, samples between frames, and frequencies."""
HIDDEN = 128
CHUNKS_AT_ONCE = 4096
"""Chunks of which the spectrum is computed at once: 10 MB of it."""


class SpeechState(NamedTuple):
    """State of the model between two parts of a row."""

    context_BS: Tensor
    """Last samples of the part before, of shape (1, 64)."""
    lstm: tuple[Tensor, Tensor]


class SileroVAD(nn.Module):
    """Convolutions over the magnitudes of a short-time spectrum of each chunk, and an LSTM over the chunks of a row.

    A row does not depend on other rows of its batch, nor on values after its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, WINDOW, stride=HOP, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, HIDDEN, 3, padding=1)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.final_conv = nn.Conv1d(HIDDEN, 1, 1)

    @classmethod
    def from_package(cls) -> Self:
        """Load the weights that the package silero-vad holds, in evaluation mode; the package is not imported.

        The file is `silero_vad_16k.safetensors`. `silero_vad.load_silero_vad()` runs `silero_vad.jit`, whose
        weights differ: probabilities of single chunks differ by up to 0.5, and this one misses less speech.

        Raises:
            CheckpointError: the package is not installed, or holds other weights.
        """
        file, model = SPEECH.path(), cls()
        renamed = {_name(name): weight for name, weight in read_safetensors(file).items()}
        try:
            model.load_state_dict(renamed)
        except RuntimeError as error:
            raise CheckpointError(
                f"{file}: {str(error).splitlines()[-1].strip()}; install version 6 of silero-vad"
            ) from error
        return model.eval()

    def forward(self, waves_BS: Tensor, num_samples_B: Tensor) -> list[Tensor]:
        """Return the probability of speech in each chunk of each row.

        Args:
            waves_BS: float32 samples from -1 to 1 at 16 kHz, with any values after a row's end.
            num_samples_B: samples of each row.

        Returns:
            For each row float32 of shape (C,), C = ceil(samples / 512): the last chunk is filled with zeros.
        """
        probabilities_BC = self.probabilities(waves_BS, num_samples_B)
        return [
            row_C[: num_chunks(count)] for row_C, count in zip(probabilities_BC, num_samples_B.tolist(), strict=True)
        ]

    def probabilities(self, waves_BS: Tensor, num_samples_B: Tensor) -> Tensor:
        """Return the probabilities as `forward`, in one tensor (B, C), with any values after a row's last chunk."""
        is_row_BS = torch.arange(waves_BS.shape[1], device=waves_BS.device) < num_samples_B[:, None]
        return self._probabilities(waves_BS.masked_fill(~is_row_BS, 0), None)[0]

    def continued(self, wave_S: Tensor, state: SpeechState | None) -> tuple[Tensor, SpeechState]:
        """Return the probabilities of the chunks of one part of a row, and the state for the next part.

        Args:
            wave_S: samples of the part, whole chunks unless it is the last one.
            state: state after the part before; None: the row begins.
        """
        probabilities_1C, after = self._probabilities(wave_S[None], state)
        return probabilities_1C[0], after

    def _probabilities(self, waves_BS: Tensor, state: SpeechState | None) -> tuple[Tensor, SpeechState]:
        context_BS = waves_BS.new_zeros(len(waves_BS), CONTEXT_SAMPLES) if state is None else state.context_BS
        waves_BS = torch.cat([context_BS, waves_BS], 1)
        chunks_BCW = _chunks(waves_BS)
        features_BCH = torch.cat(
            [self._features(part_NW) for part_NW in torch.split(chunks_BCW.flatten(0, 1), CHUNKS_AT_ONCE)]
        ).view(*chunks_BCW.shape[:2], HIDDEN)
        states_BCH, lstm = self.lstm(features_BCH, None if state is None else state.lstm)
        probabilities_BC = self.final_conv(states_BCH.relu().mT).sigmoid()[:, 0]
        return probabilities_BC, SpeechState(waves_BS[:, -CONTEXT_SAMPLES:].clone(), lstm)

    def _features(self, chunks_NW: Tensor) -> Tensor:
        """Return the input of the LSTM for chunks with their context, of shape (N, H)."""
        padded_NW = nn.functional.pad(chunks_NW, (0, CONTEXT_SAMPLES), "reflect")
        real_NFT, imaginary_NFT = self.stft_conv(padded_NW[:, None]).split(BINS, dim=1)
        x_NHT = (real_NFT.square() + imaginary_NFT.square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x_NHT = conv(x_NHT).relu()
        features_NH: Tensor = x_NHT[:, :, 0]
        return features_NH


def num_chunks(num_samples: int) -> int:
    """Return the number of chunks of a row."""
    return -(-num_samples // CHUNK_SAMPLES)


def _name(name: str) -> str:
    """Return the name of a weight in this module."""
    return f"lstm.{name.removeprefix('lstm_cell.')}_l0" if name.startswith("lstm_cell.") else name


def _chunks(waves_BS: Tensor) -> Tensor:
    """Return chunks with the samples before them, of shape (B, C, 64 + 512); zeros follow a row.

    Args:
        waves_BS: rows that begin with the 64 samples before their first chunk.
    """
    samples = waves_BS.shape[1] - CONTEXT_SAMPLES
    padding = max(1, -(-samples // CHUNK_SAMPLES)) * CHUNK_SAMPLES - samples
    return nn.functional.pad(waves_BS, (0, padding)).unfold(1, CONTEXT_SAMPLES + CHUNK_SAMPLES, CHUNK_SAMPLES)
