"""Small files in the user's cache folder. The cache is optional: nothing fails if it cannot be read or written."""

import contextlib
import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return raysp's folder in the user's cache.

    Raises:
        RuntimeError: neither XDG_CACHE_HOME nor a home folder is known.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raysp"


def read_cached(name: str) -> bytes | None:
    """Return the content of a file of the cache; None if it cannot be read."""
    try:
        return (cache_folder() / name).read_bytes()
    except (OSError, RuntimeError):
        return None


def write_cached(name: str, content: bytes) -> None:
    """Write a file of the cache atomically, if the cache can be written."""
    with contextlib.suppress(OSError, RuntimeError):
        place = cache_folder() / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(place)
