"""Weights that a Python package holds; importable without torch."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from raysp.errors import CheckpointError

SPEECH_RATE = 16_000
"""Samples per second of the recordings that the model of speech takes."""
SPEECH_FILE = "data/silero_vad_16k.safetensors"


def speech_weights() -> Path:
    """Return the file of weights in the package silero-vad, which is not imported.

    Raises:
        CheckpointError: the package is not installed, or does not have the file.
    """
    found = find_spec("silero_vad")
    for folder in (found.submodule_search_locations if found else None) or ():
        if (file := Path(folder) / SPEECH_FILE).is_file():
            return file
    lacks = f"does not have {SPEECH_FILE}" if found else "is not installed"
    raise CheckpointError(f"silero-vad, the package that finds speech, {lacks}: pip install 'raysp[speech]'")


def speech_digest() -> str:
    """Return the hash of the weights of Silero VAD, 16 hexadecimal digits.

    Raises:
        CheckpointError: as `speech_weights`.
    """
    return hashlib.sha256(speech_weights().read_bytes()).hexdigest()[:16]


def check_clustering() -> None:
    """Check that scipy is there, which clusters vectors of speakers; it is not imported.

    Raises:
        CheckpointError: it is not installed.
    """
    if find_spec("scipy") is None:
        raise CheckpointError("scipy, the package that clusters speakers, is not installed: pip install 'raysp[turns]'")
