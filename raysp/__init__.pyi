"""The public names, as type checkers, editors and `raysp/__init__.py` read them."""

from .engine.datasets.applying import apply as apply
from .engine.datasets.labelled import datasource as datasource
from .engine.datasets.labeller import Labeller as Labeller
from .engine.evaluating.evaluation import evaluate as evaluate
from .engine.running import retry as retry
from .engine.running import run as run
from .engine.training.finetuning import finetune as finetune
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
from .planning.opening import plan as plan
from .reading.cleaning import gc as gc
from .reading.differences.diffing import diff as diff
from .reading.status import status as status
from .reading.training.reporting import report as report
from .reading.verify import verify as verify
from .specs.adaptation import LoRA as LoRA
from .specs.augmentation import Gain as Gain
from .specs.augmentation import Noise as Noise
from .specs.augmentation import Room as Room
from .specs.augmentation import Speed as Speed
from .specs.objectives import CTC as CTC
from .specs.objectives import Classify as Classify
from .specs.objectives import ClassifyFrames as ClassifyFrames
from .specs.objectives import Pretrain as Pretrain
from .specs.objectives import Seq2Seq as Seq2Seq
from .specs.objectives import Speakers as Speakers
from .specs.objectives import Text as Text
from .specs.outputs import Classes as Classes
from .specs.outputs import Embedding as Embedding
from .specs.outputs import Segments as Segments
from .specs.outputs import Transcript as Transcript
from .specs.pipeline import Parquet as Parquet
from .specs.pipeline import Pipeline as Pipeline
from .specs.pipeline import Shards as Shards
from .specs.recipe import Batching as Batching
from .specs.recipe import Checkpoint as Checkpoint
from .specs.recipe import Evaluation as Evaluation
from .specs.recipe import Finetune as Finetune
from .specs.recipe import Schedule as Schedule
from .specs.steps import Decode as Decode
from .specs.steps import Keep as Keep
from .specs.steps import Label as Label
from .specs.steps import Map as Map
from .specs.steps import Pool as Pool
from .specs.values import Env as Env

__all__: list[str]
__version__: str
