"""The backend `transformers`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysp.backends.hugging_face import (
    decoded_texts,
    describing,
    recogniser,
    recogniser_files,
    recogniser_options,
    transducers,
)
from raysp.backends.hugging_face.models import HuggingFaceModel
from raysp.backends.hugging_face.recogniser_families import FAMILIES
from raysp.capabilities import Capability
from raysp.models.labelled_passes import CheckpointSummary, LabellingModel


class HuggingFaceModels:
    """Backend of the speech models of transformers."""

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint and return its description.

        Raises:
            CheckpointError: transformers does not read it, or raysp cannot label with it.
        """
        if recogniser_files.is_recogniser(describing.kind_of(folder)):
            return recogniser_files.RecogniserFiles.read(folder).describe()
        return describing.describe(folder)

    def load(self, folder: Path, *, dtype: str, device: str) -> LabellingModel:
        """Load a checkpoint.

        Raises:
            CheckpointError: its weights do not fit.
        """
        if recogniser_files.is_recogniser(describing.kind_of(folder)):
            files = recogniser_files.RecogniserFiles.read(folder)
            if files.kind.head is Capability.TRANSDUCER:
                networks = transducers.TransducerSearch(files, dtype=dtype, device=device)
                return transducers.Transducer(files, files.describe(), networks, device=device)
            search = recogniser.TransformersSearch(files, dtype=dtype, device=device)
            return recogniser.Recogniser(files, files.describe(), search, device=device)
        return HuggingFaceModel(folder, dtype=dtype, device=device)

    def check_writing(
        self,
        checkpoint: CheckpointSummary,
        options: Mapping[str, object],
        **request: Any,  # noqa: ANN401 - language, task, prompt and keywords
    ) -> None:
        """Check the options of a transcript.

        Raises:
            CheckpointError: the checkpoint does not support one of them.
        """
        check = recogniser_options if checkpoint.model_type in FAMILIES else decoded_texts
        check.check_writing(checkpoint, options, **request)
