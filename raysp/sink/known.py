"""Hashes of pipelines that this user ran on this machine, kept outside all sinks, where other users do not write.

If the record of a sink holds one of these pipelines, it names only values that this user chose.
"""

import hashlib
import json
import logging
import os
from pathlib import Path

from raysp.specs.values import JsonValue

logger = logging.getLogger(__name__)


def remember(value: JsonValue) -> None:
    """Store the hash of a pipeline, or of the root of its corpus; if it cannot be written, the value stays unknown."""
    if (place := _place(value)) is None:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.touch(mode=0o600)
    except OSError as error:
        logger.info("%s: cannot be written (%s); commands on its sink will require the pipeline file", place, error)


def is_known(value: JsonValue) -> bool:
    """Return whether `remember` was called with this value by this user here; on Windows, by any user."""
    place = _place(value)
    try:
        if place is None:
            return False
        owner = place.stat().st_uid
        return not hasattr(os, "getuid") or owner == os.getuid()
    except OSError:
        return False


def _place(value: JsonValue) -> Path | None:
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:  # a user without a home folder
        return None
    return Path(state) / "raysp" / "known" / digest
