"""The backend `transformers`."""

from collections.abc import Mapping
from pathlib import Path

from raysp.backends.hugging_face import decoded_texts, describing
from raysp.backends.hugging_face.models import HuggingFaceModel
from raysp.models.labelled_passes import CheckpointSummary


class HuggingFaceModels:
    """Backend of the speech models of transformers."""

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint and return its description.

        Raises:
            CheckpointError: transformers does not read it, or raysp cannot label with it.
        """
        return describing.describe(folder)

    def load(self, folder: Path, *, dtype: str, device: str) -> HuggingFaceModel:
        """Load a checkpoint.

        Raises:
            CheckpointError: its weights do not fit.
        """
        return HuggingFaceModel(folder, dtype=dtype, device=device)

    def check_writing(
        self, checkpoint: CheckpointSummary, options: Mapping[str, object], *, language: str | None, task: str | None
    ) -> None:
        """Check the options of a transcript.

        Raises:
            CheckpointError: the checkpoint does not support one of them.
        """
        decoded_texts.check_writing(checkpoint, options, language=language, task=task)
