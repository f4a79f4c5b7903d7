"""Checkpoints on storage: the hash of what they hold."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

_READ_BYTES = 8 * 1024 * 1024


def digest_files(folder: Path, files: Sequence[Path]) -> str:
    """Hash names and contents of a checkpoint's files to 16 hexadecimal digits.

    The hash of each file is remembered in the user's cache by path, size and modification time.
    """
    known = _read_cache()
    whole = hashlib.sha256()
    fresh: dict[str, str] = {}
    for file in sorted(files):
        facts = file.stat()
        key = f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ino}"
        content = known.get(key) or _digest_file(file)
        fresh[key] = content
        whole.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    if not fresh.items() <= known.items():
        _write_cache(known | fresh)
    return whole.hexdigest()[:16]


def _digest_file(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raysp" / "digests.json"


def _read_cache() -> dict[str, str]:
    try:
        found = json.loads(_cache_file().read_text())
    except (OSError, ValueError, RuntimeError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_cache(known: dict[str, str]) -> None:
    # A convenience only: a home that cannot be written costs time, never a run.
    with contextlib.suppress(OSError, RuntimeError):
        place = _cache_file()
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
            json.dump(known, file)
        Path(file.name).replace(place)
