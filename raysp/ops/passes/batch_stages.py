"""A batch in its stages, and the runner of the batches of an actor."""

from collections.abc import Sequence
from typing import Protocol

from raysp.crossing import Room


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
