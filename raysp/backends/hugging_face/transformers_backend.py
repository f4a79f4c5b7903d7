"""The backend `transformers`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

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
        *,
        language: str | None,
        task: str | None,
        prompt: str | None = None,
        keywords: Sequence[str] = (),
    ) -> None:
        """Check the options of a transcript.

        Raises:
            CheckpointError: the checkpoint does not support one of them.
        """
        if checkpoint.model_type in FAMILIES:
            recogniser_options.check_writing(
                checkpoint, options, language=language, task=task, prompt=prompt, keywords=keywords
            )
        else:
            decoded_texts.check_writing(checkpoint, options, language=language, task=task)
