"""The public names, as type checkers, editors and `raysp/__init__.py` read them."""

from .engine.running import retry as retry
from .engine.running import run as run
from .errors import AudioError as AudioError
from .errors import ChangedError as ChangedError
from .errors import CheckpointError as CheckpointError
from .errors import PlanError as PlanError
from .errors import RayspError as RayspError
from .errors import RunError as RunError
from .errors import ShardError as ShardError
from .errors import SpecError as SpecError
from .errors import StoreError as StoreError
from .errors import TrustError as TrustError
from .pipeline import Parquet as Parquet
from .pipeline import Pipeline as Pipeline
from .pipeline import Shards as Shards
from .reading.status import status as status
from .reading.verify import verify as verify
from .sink.opening import plan as plan
from .sink.orphans import gc as gc
from .specs import Env as Env
from .steps import Classes as Classes
from .steps import Decode as Decode
from .steps import Embedding as Embedding
from .steps import Keep as Keep
from .steps import Label as Label
from .steps import Pool as Pool
from .steps import Segments as Segments
from .steps import Transcript as Transcript

__all__: list[str]
__version__: str
