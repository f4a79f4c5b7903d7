"""Channels that cancel each other, so that their mean is silent: compared block by block while a stream is decoded."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from raysp.audio.waveforms import Samples

CANCELLED_SHARE, SILENT_POWER = 1e-4, 1e-9
"""Channels whose mean has less than this share of their power (-40 dB) cancel each other, unless they are silent (-90
dBFS). Of n independent channels it has 1/n."""
BLOCKS_PER_SECOND = 4
AUDIBLE_POWER, LOST_SHARE = 1e-6, 0.05
"""A second of blocks above -60 dBFS that cancel, with so much of the power of a stream, is sound that is lost. Noise of
lossy coding may cancel in pauses, at lower levels."""
ROUNDING = 1e-5
"""Share of the power of a block below which the power without its offset is not certain in float32."""


@dataclass
class _Block:
    """Sums over the frames of a block; offsets from zero, which every recorder has, are not audio."""

    num_frames: int = 0
    mixed: float = 0.0
    unmixed: float = 0.0
    sum_mixed: float = 0.0
    sums: "npt.NDArray[np.float64] | float" = 0.0  # (channels,)

    def add(self, samples: Samples, frames: Samples) -> None:
        """Add some frames, (num_frames, channels), and the mean of their channels."""
        flat = frames.reshape(-1)
        self.num_frames += len(samples)
        self.mixed += float(np.dot(samples, samples))
        self.unmixed += float(np.dot(flat, flat)) / frames.shape[1]
        self.sum_mixed += float(samples.sum(dtype=np.float64))
        self.sums = self.sums + frames.sum(0, dtype=np.float64)

    def powers(self) -> tuple[float, float]:
        """Return the sums of the squares of the mean of the channels, and of the channels, without their offsets."""
        offsets = float(np.mean(np.square(self.sums))) / self.num_frames
        mixed, unmixed = self.mixed - self.sum_mixed**2 / self.num_frames, self.unmixed - offsets
        # The remainder of a large offset may be a rounding error.
        return mixed, unmixed if unmixed > ROUNDING * self.unmixed else mixed


@dataclass
class ChannelBalance:
    """Powers of the channels of a stream and of their mean, and where they cancel each other."""

    block_frames: int = 1
    num_frames: int = 0
    mixed: float = 0.0
    """Sum of the squares of the mean of the channels, in each block without its offset from zero."""
    unmixed: float = 0.0
    """Mean over the channels of the sums of their squares, likewise."""
    lost: float = 0.0
    """Part of `unmixed` in blocks whose channels cancel each other."""
    num_lost: int = 0
    """Number of these blocks."""
    _block: _Block = field(default_factory=_Block)
    """The block that is not complete."""

    def compare(self, samples: Samples, frames: Samples) -> None:
        """Add some frames, and the mean of their channels."""
        place = 0
        with np.errstate(over="ignore", invalid="ignore"):  # huge values cancel nothing, and are checked afterwards
            while place < len(samples):
                end = min(place + self.block_frames - self._block.num_frames, len(samples))
                self._block.add(samples[place:end], frames[place:end])
                place = end
                if self._block.num_frames == self.block_frames:
                    self._end_block()

    def _end_block(self) -> None:
        mixed, unmixed = self._add_block()
        if unmixed > AUDIBLE_POWER * self.block_frames and mixed < CANCELLED_SHARE * unmixed:
            self.lost, self.num_lost = self.lost + unmixed, self.num_lost + 1

    def _add_block(self) -> tuple[float, float]:
        """Add the powers of the block to the powers of the stream, begin another one, and return them."""
        mixed, unmixed = self._block.powers()
        self.mixed, self.unmixed, self._block = self.mixed + mixed, self.unmixed + unmixed, _Block()
        return mixed, unmixed

    def cancelled(self) -> str:
        """Return a message if channels cancel each other; empty if not, or if they are silent. No frame may follow."""
        if self._block.num_frames:
            self._add_block()
        if self.unmixed > SILENT_POWER * self.num_frames and self.mixed < CANCELLED_SHARE * self.unmixed:
            return f"their mean is {self._decibels:.0f} dB below them"
        if self.num_lost >= BLOCKS_PER_SECOND and self.lost >= LOST_SHARE * self.unmixed:
            return f"their mean is silent in {self.num_lost / BLOCKS_PER_SECOND:.1f} seconds of sound"
        return ""

    @property
    def _decibels(self) -> float:
        """Level of the channels relative to their mean, at most the range of float32."""
        return 10 * math.log10(self.unmixed / max(self.mixed, 1e-15 * self.unmixed))
