"""The backend `ctranslate2`."""

from dataclasses import replace
from pathlib import Path

from raysp.backends.on_ctranslate2.converted import ready
from raysp.backends.on_ctranslate2.whisper_files import WhisperFiles
from raysp.backends.on_ctranslate2.whisper_model import WhisperModel
from raysp.backends.on_ctranslate2.whisper_options import check_writing
from raysp.models.labelled_passes import CheckpointSummary


class CTranslate2Models:
    """Backend of Whisper in CTranslate2's format, or in Hugging Face's, which is converted once a machine."""

    check_writing = staticmethod(check_writing)

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint and return its description.

        Raises:
            CheckpointError: files are missing or damaged, or the model is no Whisper.
        """
        return replace(WhisperFiles(ready(folder)).describe(), path=folder)

    def load(self, folder: Path, *, dtype: str, device: str) -> WhisperModel:
        """Load a checkpoint.

        Raises:
            CheckpointError: as `describe`, or the processor has no arithmetic of the dtype.
        """
        return WhisperModel(ready(folder), dtype=dtype, device=device)
