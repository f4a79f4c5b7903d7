"""Batches of the bare model (S0), which go through a device as those of an actor do, and are neither rows nor texts."""

from collections.abc import Sequence

import numpy as np
import torch

from raysp.crossing import Fetching, Room, Sending
from raysp.devices import is_accelerator
from raysp.models.base.placing import arithmetic
from raysp.models.features.processors import as_float, fill
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.device_passes import DevicePasses
from raysp.ops.host_passes import HostPasses
from raysp.text.greedy_ctc import best_frames, collapsed

Waves = Sequence[np.ndarray]


class BareBatch:
    """Waveforms of one pass, and their tokens by the best one of each frame."""

    def __init__(self, loaded: LoadedCheckpoint, waves: Waves, blank: int) -> None:
        self.loaded, self.waves, self.blank = loaded, waves, blank
        self.tokens: Sequence[list[int]] = ()
        """Tokens of each row, once the batch has ended."""
        self._padded: Sending | None = None
        self._fetching: Fetching | None = None

    def fill(self, room: Room | None = None) -> None:
        """Pad the samples, and start their copy to the device."""
        self._padded = fill(self.waves, self.loaded.device, room)
        self._padded.start()

    @torch.inference_mode()
    def launch(self) -> None:
        """Start the pass, and the copy of the best tokens."""
        assert self._padded is not None
        waves, counts = self._padded.tensors()
        found = self.loaded.run(as_float(waves), counts, hidden_states=False)
        frames = best_frames(next(iter(found.heads.values()))["logits"])
        self._fetching = Fetching(frames.ids.int(), frames.log_probs, found.num_frames_B)

    def finish(self) -> None:
        """Wait for the best tokens, and merge repeats."""
        assert self._fetching is not None
        self.tokens = [*collapsed(*self._fetching.arrays(), blank=self.blank).ids()]
        self._padded = self._fetching = None

    def run(self, error: Exception | None = None) -> None:
        """Run all stages in the calling thread.

        Raises:
            Exception: what a stage raised before: the bare model has no other way to label a batch.
        """
        if error is not None:
            raise error
        self.fill()
        self.launch()
        self.finish()


def passes_of(device: torch.device) -> HostPasses | DevicePasses:
    """Return what runs batches on a device, one after another on a CPU."""
    if is_accelerator(device):
        return DevicePasses(device)
    return HostPasses(1, in_threads=False, threads=None, threads_each=None)


def run(
    loaded: LoadedCheckpoint, batches: Sequence[Waves], passes: HostPasses | DevicePasses, blank: int = 0
) -> list[list[int]]:
    """Return the tokens of the rows of all batches, in their order."""
    given = [BareBatch(loaded, waves, blank) for waves in batches]
    with arithmetic(dtype=str(loaded.dtype).removeprefix("torch."), device=str(loaded.device)):
        passes(given)
    return [tokens for one in given for tokens in one.tokens]
