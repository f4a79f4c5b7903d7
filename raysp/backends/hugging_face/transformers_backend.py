"""The backend `transformers`."""

from pathlib import Path

from raysp.backends.hugging_face import text_options
from raysp.backends.hugging_face.describing import describe, kind_of
from raysp.backends.hugging_face.models import HuggingFaceModel
from raysp.backends.hugging_face.recogniser import Recogniser, TransformersSearch
from raysp.backends.hugging_face.recogniser_files import RecogniserFiles, is_recogniser
from raysp.backends.hugging_face.transducers import Transducer, TransducerSearch
from raysp.capabilities import Capability
from raysp.models.labelled_passes import CheckpointSummary, LabellingModel


class HuggingFaceModels:
    """Backend of the speech models of transformers."""

    check_writing = staticmethod(text_options.check_writing)

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint and return its description.

        Raises:
            CheckpointError: transformers does not read it, or raysp cannot label with it.
        """
        kind = kind_of(folder)
        return RecogniserFiles(folder, kind).describe() if is_recogniser(kind) else describe(folder)

    def load(self, folder: Path, *, dtype: str, device: str) -> LabellingModel:
        """Load a checkpoint.

        Raises:
            CheckpointError: its weights do not fit.
        """
        kind = kind_of(folder)
        if not is_recogniser(kind):
            return HuggingFaceModel(folder, dtype=dtype, device=device)
        files = RecogniserFiles(folder, kind)
        is_transducer = kind.head is Capability.TRANSDUCER
        model, search = (Transducer, TransducerSearch) if is_transducer else (Recogniser, TransformersSearch)
        return model(files, files.describe(), search(files, dtype=dtype, device=device), device=device)
