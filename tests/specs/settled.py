"""Settings of a `Label` step, as far as they are in its fingerprint."""

from types import SimpleNamespace
from typing import Any


def settled(**fields: object) -> list[Any]:
    """Return the settings of one step; `fields` replace those of a checkpoint "d" in float32."""
    defaults = {"checkpoint_digest": "d", "dtype": "float32", "fingerprint_seconds": None, "file_digests": {}}
    of_own = {"library": "", "windows_alone": False, "checkpoint": SimpleNamespace(backend="torch")}
    return [SimpleNamespace(**{**defaults, **of_own, **fields})]
