"""Results of a forward pass, which the ops of outputs read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from raysp.crossing import fetch
from raysp.models.base.capabilities import Capability
from raysp.models.base.outputs import ModelOutput
from raysp.models.labelled_passes import Lengths
from raysp.ops.speech.places import Place


@dataclass(frozen=True)
class LayerFrames:
    """The frames of one layer."""

    hidden_BTH: Tensor
    owned: Sequence[tuple[int, int]]
    """First and end of the frames that each window owns: all frames, without padding, if a row is one window."""


@dataclass(frozen=True)
class Forward:
    """Results of one forward pass for a batch; values of padded frames are undefined."""

    output: ModelOutput
    """Output of the head, or of the base model if there is no head."""
    encoded: ModelOutput
    """Output of the base model: `last_hidden_state`, and `hidden_states` if an op reads one."""
    num_frames_B: Tensor
    """Number of frames of logits and of `last_hidden_state`."""
    parts: Sequence[tuple[int, int] | None]
    """First and end of the frames that each window of a longer row owns; None for a row that is one window."""
    features: Mapping[str, Tensor]
    """Input of the model."""
    places: Sequence[str]
    """Names of the windows: shard, row and number of the window. They seed random sampling."""
    hidden_frames_B: Tensor
    """Number of frames of `hidden_states`, which some encoders compute at another rate."""
    frames_a_hidden_frame: Fraction
    of_heads: Mapping[Capability, ModelOutput] = field(default_factory=dict)
    """Outputs of further heads, by their capability."""
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """Source columns that outputs read, one value per window, which is that of its row."""
    waves_BS: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    """Samples at the checkpoint's rate, float32, before they are normalised."""
    num_samples_B: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Number of samples of each window."""
    speech: Sequence[Place | None] = ()
    """Places of windows that are cut at pauses, with their probabilities of speech."""
    results: dict[str, Sequence[object]] = field(default_factory=dict)
    """Columns of earlier outputs, by name."""
    known_lengths: Lengths | None = None
    """Lengths, if the host knows them without the device."""
    decoded: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """Texts of the windows of a pack, which were decoded together, by the first column of their output."""

    @cached_property
    def lengths(self) -> Lengths:
        """Numbers of samples and frames of each window."""
        return self.known_lengths or Lengths(
            *(one.tolist() for one in fetch(self.num_samples_B, self.num_frames_B, self.hidden_frames_B))
        )

    def of_row(self, row: int) -> "Forward":
        """Return the results of one window without padding, as if it had been alone in the pass."""
        only = slice(row, row + 1)
        samples, frames, hidden_frames = (values[only] for values in self.lengths)
        [count], [hidden_count] = frames, hidden_frames
        return replace(
            self,
            output=self.output.of_row(row, count),
            encoded=self.encoded.of_row(row, count, hidden_count),
            num_frames_B=self.num_frames_B[only],
            parts=self.parts[only],
            features={name: values[only] for name, values in self.features.items()},
            places=self.places[only],
            hidden_frames_B=self.hidden_frames_B[only],
            of_heads={one: head.of_row(row, count) for one, head in self.of_heads.items()},
            columns={name: values[only] for name, values in self.columns.items()},
            waves_BS=self.waves_BS[only, : samples[0]],
            num_samples_B=self.num_samples_B[only],
            speech=self.speech[only],
            results={},
            known_lengths=Lengths(samples, frames, hidden_frames),
            decoded={name: values[only] for name, values in self.decoded.items()},
        )

    def of(self, capability: Capability) -> ModelOutput:
        """Return the output of the head that gives a capability."""
        return self.of_heads.get(capability, self.output)

    def layer(self, index: int) -> LayerFrames:
        """Return the frames of `last_hidden_state` (-1), or of the hidden state before (0) or after the k-th layer."""
        if index == -1:
            return LayerFrames(self.encoded["last_hidden_state"], self._owned(self.lengths.frames, Fraction(1)))
        hidden_BTH = self.encoded["hidden_states"][index]
        return LayerFrames(hidden_BTH, self._owned(self.lengths.hidden_frames, self.frames_a_hidden_frame))

    def _owned(self, num_frames: Sequence[int], rate: Fraction) -> list[tuple[int, int]]:
        owned = []
        for part, all_frames, frames in zip(self.parts, self.lengths.frames, num_frames, strict=True):
            if part is None:
                owned.append((0, frames))
                continue
            first, end = part  # the last window owns all frames to its end
            owned.append((int(first / rate), frames if end >= all_frames else min(frames, int(end / rate))))
        return owned
