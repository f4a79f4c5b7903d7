"""Label very large speech corpora offline on Ray.

Point it at a bucket of audio shards and it returns label shards, row for row.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysp.engine.running import retry as retry
    from raysp.engine.running import run as run
    from raysp.errors import AudioError as AudioError
    from raysp.errors import ChangedError as ChangedError
    from raysp.errors import CheckpointError as CheckpointError
    from raysp.errors import PlanError as PlanError
    from raysp.errors import RayspError as RayspError
    from raysp.errors import RunError as RunError
    from raysp.errors import ShardError as ShardError
    from raysp.errors import SpecError as SpecError
    from raysp.errors import StoreError as StoreError
    from raysp.errors import TrustError as TrustError
    from raysp.pipeline import Parquet as Parquet
    from raysp.pipeline import Pipeline as Pipeline
    from raysp.pipeline import Shards as Shards
    from raysp.reading.status import status as status
    from raysp.reading.verify import verify as verify
    from raysp.sink.opening import plan as plan
    from raysp.sink.orphans import gc as gc
    from raysp.specs import Env as Env
    from raysp.steps import Classes as Classes
    from raysp.steps import Decode as Decode
    from raysp.steps import Embedding as Embedding
    from raysp.steps import Keep as Keep
    from raysp.steps import Label as Label
    from raysp.steps import Pool as Pool
    from raysp.steps import Segments as Segments
    from raysp.steps import Transcript as Transcript

__version__ = "0.1.0"

_HOMES = {
    "Env": "specs",
    **dict.fromkeys(("Classes", "Decode", "Embedding", "Keep", "Label", "Pool", "Segments", "Transcript"), "steps"),
    **dict.fromkeys(("Parquet", "Pipeline", "Shards"), "pipeline"),
    **dict.fromkeys(
        (
            "AudioError",
            "ChangedError",
            "CheckpointError",
            "PlanError",
            "RayspError",
            "RunError",
            "ShardError",
            "SpecError",
            "StoreError",
            "TrustError",
        ),
        "errors",
    ),
    "gc": "sink.orphans",
    "plan": "sink.opening",
    "retry": "engine.running",
    "run": "engine.running",
    "status": "reading.status",
    "verify": "reading.verify",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import raysp` itself loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'raysp' has no attribute {name!r}")
    found: object = getattr(import_module(f"raysp.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
