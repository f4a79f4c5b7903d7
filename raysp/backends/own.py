"""The backend of the models of raysp."""

from pathlib import Path

from raysp.backends import hf_installed
from raysp.backends.finding import GROUP
from raysp.errors import CheckpointError
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import LoadedCheckpoint, check_checkpoint, load_checkpoint
from raysp.models.registry import MODULES, read_config


class OwnModels:
    """Backend of the models of raysp."""

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint and return its description; the error for another architecture has advice.

        If its tokenizer has another language than its weights, it has to be used in a language that outputs name.

        Raises:
            CheckpointError: as `check_checkpoint`.
        """
        if model_type := unread(folder):
            raise CheckpointError(f"{unread_error(folder, model_type)}: {_advice(model_type)}")
        return check_checkpoint(folder, is_announced=False)

    def load(self, folder: Path, *, dtype: str, device: str) -> LoadedCheckpoint:
        """Load a checkpoint, whose description has been checked against the languages of outputs.

        Raises:
            CheckpointError: as `load_checkpoint`.
        """
        return load_checkpoint(folder, dtype=dtype, device=device, is_announced=False)


def unread(folder: Path) -> str:
    """Return the model type of a folder if raysp does not read it; otherwise an empty text.

    Raises:
        CheckpointError: config.json cannot be read.
    """
    model_type = read_config(folder).get("model_type")
    return model_type if isinstance(model_type, str) and model_type not in MODULES else ""


def unread_error(folder: Path, model_type: str) -> str:
    """Return the error for a model type that raysp does not read."""
    return f"{folder / 'config.json'}: model_type is {model_type!r}, expected one of {', '.join(sorted(MODULES))}"


def _advice(model_type: str) -> str:
    """Return advice on a model type that raysp does not read."""
    if not hf_installed.version():
        return f'pass backend="transformers" to Label if transformers reads it ({hf_installed.COMMAND})'
    if hf_installed.reads(model_type):
        return 'pass backend="transformers" to Label'
    return (
        f"transformers {hf_installed.version()} does not read it either; use a checkpoint of a supported model, or "
        f"install a package that offers this model type (entry points {GROUP})"
    )
