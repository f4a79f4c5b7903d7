"""A block between the steps of labelling it, its batches in their stages, and the results of one, which ops read."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raysp.capabilities import Capability
from raysp.crossing import Room, fetch
from raysp.devices import highest_allocated, highest_resident_bytes, is_accelerator
from raysp.models.base.outputs import ModelOutput
from raysp.models.labelled_passes import Lengths
from raysp.ops.late_steps import JoinOp
from raysp.ops.rows import Place, RowStatus

MADE_OF = ("logits", "embeddings", "pooler_output")
"""Names of values of a head that labels are made of."""


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

    @cached_property
    def lengths(self) -> Lengths:
        """Numbers of samples and frames of each window."""
        return self.known_lengths or Lengths(
            *(one.tolist() for one in fetch(self.num_samples_B, self.num_frames_B, self.hidden_frames_B))
        )

    def of(self, capability: Capability) -> ModelOutput:
        """Return the output of the head that gives a capability."""
        return self.of_heads.get(capability, self.output)

    def finite(self, *, with_hidden: bool) -> Tensor:
        """Return a boolean mask (B,) of the windows with finite values only in their frames."""
        values = [self.encoded["last_hidden_state"]] if with_hidden else []
        for head in (self.output, *self.of_heads.values()):
            values += [head[name] for name in MADE_OF if name in head.keys()]  # noqa: SIM118
        finite_B = torch.ones_like(self.num_frames_B, dtype=torch.bool)
        for value in values:
            is_finite = torch.isfinite(value).all(-1)
            if is_finite.ndim == 2:
                frames_T = torch.arange(is_finite.shape[1], device=is_finite.device)
                is_finite = (is_finite | (frames_T[None] >= self.num_frames_B[:, None])).all(-1)
            finite_B &= is_finite
        return finite_B

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


@dataclass(frozen=True)
class Figures:
    """Amounts of audio in a block, and its compute time."""

    windows: int = 0
    audio_seconds: float = 0.0
    padded_seconds: float = 0.0
    busy_seconds: float = 0.0
    memory_bytes: int = 0
    """Highest memory of this process so far in bytes: allocated by torch on the GPU, or on a CPU the resident set."""


def highest_memory(device: str) -> int:
    """Return the highest number of bytes that this process used on a device; its resident set on a CPU."""
    if is_accelerator(device):
        return highest_allocated(device)
    return highest_resident_bytes()


@dataclass(frozen=True)
class BlockInHand:
    """A block between the steps of labelling it."""

    block: pa.Table
    shard: str
    names: Sequence[object] | None
    statuses: list[RowStatus]
    waves: Sequence[np.ndarray]
    """Samples of each window; none where it has no audio."""
    columns: Mapping[str, Sequence[object]]
    """Source columns that outputs read."""
    windows_at: Sequence[Place | None]
    """Places of windows that are cut at pauses."""
    pending: Sequence[int]
    """Windows that go through the model."""
    labels: list[tuple[object, ...] | None]
    """Values of each window, as far as there are any."""
    outputs: "Sequence[OutputOp]"
    """Ops of the outputs."""

    def place(self, index: int) -> str:
        """Return the name of a window: shard, row and number of the window."""
        row_status = self.statuses[index]
        name = f"{self.shard}|{row_status.row}" if self.names is None else self.names[row_status.row]
        return f"{name}|{row_status.window}"


class OutputOp(JoinOp, Protocol):
    """Op that converts a forward pass to columns."""

    schema: pa.Schema
    """Columns of the label shard; null in windows of longer rows."""
    staged: pa.Schema
    """Columns staged by windows of longer rows for `joining`; null in rows that are one window."""
    layers: tuple[int, ...]
    """Hidden layers that it reads: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`."""

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the columns of `schema`, then those of `staged`, one value per window.

        An op of raysp may have a method `steps`, which does the same and yields the tensors whose values it needs, so
        that those of all outputs of a batch cross to the host together. One whose columns are made by other processes
        has a number `batches_beside`, of batches that may wait for them at once.
        """
        ...

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame."""
        ...


class HostPasses:
    """Runs batches on the CPUs of an actor: one after another with all threads, or several at once that share them.

    Args:
        at_once: passes that run at once.
        in_threads: whether passes run in threads of their own even if there is one at a time.
        threads: torch threads of a pass that runs alone; None: those of the calling thread.
        threads_each: torch threads of each of the passes at once; None: those of a new thread.
    """

    blocks_in_hand = 1

    def __init__(self, at_once: int, *, in_threads: bool, threads: int | None, threads_each: int | None) -> None:
        self.threads, self.threads_each = threads, threads_each
        self.pool = ThreadPoolExecutor(at_once, "raysp-pass") if at_once > 1 or in_threads else None

    def __call__(self, batches: "Sequence[Batch]", *, one_by_one: bool = False) -> None:
        """Run batches to their ends."""
        if self.pool is None or one_by_one:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            for batch in batches:
                batch.run()
            return
        for done in [self.pool.submit(self._run, batch) for batch in batches]:
            done.result()

    def _run(self, batch: "Batch") -> None:
        if self.threads_each is not None:
            torch.set_num_threads(self.threads_each)  # of this thread
        batch.run()


class Batch(Protocol):
    """One forward pass, in stages that different threads may run, one after another."""

    def fill(self, room: Room) -> None:
        """Pad the samples into memory of the host, and start their copy to the device."""
        ...

    def launch(self) -> None:
        """Start the pass on the device, and the copy of its results to the host."""
        ...

    def finish(self) -> None:
        """Wait for the results, and store the labels."""
        ...

    def run(self, error: BaseException | None = None) -> None:
        """Label the batch in the calling thread, in as many passes as it needs.

        Args:
            error: error of an earlier stage; None: no stage has begun.

        Raises:
            DeviceLostError: the device can no longer be used.
        """
        ...


class Passes(Protocol):
    """Runs the batches of an actor: the one owner of the work of its device."""

    blocks_in_hand: int
    """Blocks whose batches it takes at once, from as many threads."""

    def __call__(self, batches: Sequence[Batch], *, one_by_one: bool = False) -> None:
        """Run batches to their ends.

        Args:
            batches: batches of a block.
            one_by_one: whether passes on a CPU have all threads, one after another.

        Raises:
            DeviceLostError: the device can no longer be used.
        """
        ...
