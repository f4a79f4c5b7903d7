"""The installed CTranslate2."""

from importlib import metadata, util

from raysp.errors import CheckpointError

PACKAGE = "ctranslate2"
COMMAND = "pip install 'raysp[ctranslate2]'"


def versions() -> str:
    """Return name and version of CTranslate2; empty unless it is installed."""
    return f"{PACKAGE} {metadata.version(PACKAGE)}" if util.find_spec(PACKAGE) else ""


def require() -> None:
    """Raise unless CTranslate2 is installed.

    Raises:
        CheckpointError: with the command that installs it.
    """
    if not versions():
        raise CheckpointError(f"backend='ctranslate2': the package {PACKAGE} is not installed; {COMMAND}")
