"""The protocol of a backend, which reads checkpoints of some kind and loads their models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from raysp.models.labelled_passes import CheckpointSummary, LabellingModel


class Backend(Protocol):
    """Reader of the checkpoints of a library, or of one model type."""

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint without reading its weights, and return its description.

        Raises:
            CheckpointError: files are missing, damaged, unsafe or inconsistent.
        """
        ...

    def load(self, folder: Path, *, dtype: str, device: str) -> LabellingModel:
        """Load a checkpoint.

        Args:
            folder: the model folder.
            dtype: dtype of weights and arithmetic, such as "float32".
            device: name of a torch device.

        Raises:
            CheckpointError: its weights do not fit.
        """
        ...


class WritingBackend(Backend, Protocol):
    """Backend of checkpoints with a text decoder."""

    def check_writing(
        self, checkpoint: CheckpointSummary, options: Mapping[str, object], *, language: str | None, task: str | None
    ) -> None:
        """Check the options of a transcript, without the weights; arguments as for `WritingModel.writer`.

        Raises:
            CheckpointError: the checkpoint does not support one of them.
        """
        ...
