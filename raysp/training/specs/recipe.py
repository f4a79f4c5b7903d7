"""Recipes as values: corpus, objective, schedule and destination of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, field, replace
from functools import cached_property, partial
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field

from raysp.specs.order import Flow, flow_of
from raysp.specs.pipeline import TEXTS_OF_ROWS, ReadPlace, Shards, StorageOptions
from raysp.specs.steps import EACH, Decode, FunctionName, Keep, Pool, Step, refuse_clash
from raysp.specs.text_rules import Text as Text
from raysp.specs.values import Count, Device, Listed, NotNegative, Positive, Share, Url, spec
from raysp.specs.work_files import load_value
from raysp.training.specs.augmentations import Augmentation, OfSounds, Speed
from raysp.training.specs.mix import Mix
from raysp.training.specs.objectives import CTC as CTC
from raysp.training.specs.objectives import Objective, TextObjective

LONGEST_ROW = 120.0
"""Seconds of the longest row of a training whose recipe has no limit; as in `Evaluation`.

The memory of attention grows with the square of the duration, so that one row of ten minutes takes gigabytes."""
FINAL = 0.05
"""Factor of the learning rate at the end, if it falls."""
MICRO_BATCHES = 8
"""Micro-batches of a step, where a recipe leaves them open."""
MOST_BETWEEN = 1000
"""Steps between evaluations of a long training, if the recipe leaves them open."""
NORMALISE = "letters"
"""Rules for the texts that an evaluation compares."""
CorpusName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Name of a further corpus of an evaluation, part of the names of its metrics."""
TRAINING_VERSION = 2
"""Version of training, increased with every change of raysp that changes the weights a recipe gives."""


@spec
class Batching:
    """Sizes of steps.

    Attributes:
        seconds: padded seconds of audio per step; None: 15 per micro-batch on CPUs and 80 on GPUs, or fewer, so that
            the epochs of a small corpus have 50 steps.
        micro_batches: micro-batches per step, which the workers share: at most as many workers are of use; None: 8, or
            fewer where a small corpus has shorter steps, so that each holds its longest row.
        window_seconds: audio whose rows are shuffled and sorted together, and are in memory at once; None: the audio of
            100 steps.
        quadratic_seconds: duration at which a row costs twice its seconds.
        curriculum: whether the steps of a window are ordered from short to long rows in the first epoch.
    """

    seconds: Positive | None = None
    _: KW_ONLY
    micro_batches: Annotated[int, Field(ge=1, le=65_536)] | None = None
    window_seconds: Positive | None = None
    quadratic_seconds: Positive = 60
    curriculum: bool = False


@spec
class Schedule:
    """Length and learning rates of a training.

    Attributes:
        epochs: passes over the corpus; or give `steps`.
        steps: updates.
        learning_rate: highest rate of the layers.
        head_rate: factor of the learning rate for the head; for an encoder-decoder, for weights that no checkpoint has,
            such as new cross attention.
        layer_decay: factor of a layer's rate to the next layer's; an encoder and a decoder are counted apart.
        warmup: share of the course over which the rate grows from 0.
        shape: how the rate falls after the warm-up: "tri_stage", "linear", "cosine" or "constant".
        final: factor of the rate at the end, but for "constant".
        weight_decay: of matrices.
        clip: largest norm of the gradients; None: no limit.
        checkpointing: whether activations are computed again in the backward pass, which saves memory.
        optimizer: a function at the top level of a module, or its name, "module:function", that returns an optimiser
            of torch over the groups of parameters that it is called with; None: AdamW with `betas=(0.9, 0.98)`. Groups
            have `params`, `lr`, `weight_decay` and `rate`, the factor of the learning rate. The state that the
            optimiser keeps for each parameter is committed.
    """

    epochs: Count | None = None
    _: KW_ONLY
    steps: Count | None = None
    learning_rate: Positive = 3e-4
    head_rate: Positive = 10.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup: Share = 0.1
    shape: Literal["tri_stage", "linear", "cosine", "constant"] = "tri_stage"
    final: Annotated[float, Field(gt=0, le=1)] = FINAL
    weight_decay: NotNegative = 0.01
    clip: Positive | None = 1.0
    checkpointing: bool = False
    optimizer: FunctionName | None = None

    def __post_init__(self) -> None:
        """Check that the length is set once, and no final rate with a constant rate."""
        if self.shape == "constant" and self.final not in (FINAL, 1.0):
            raise ValueError(f"found final={self.final:g} with shape='constant', which keeps the rate; leave one out")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"found epochs={self.epochs} and steps={self.steps}; give one of them")

    @property
    def functions(self) -> tuple[str, ...]:
        """Functions of the user that are called, as "module:function"."""
        return () if self.optimizer is None else (cast("str", self.optimizer),)


@spec
class Checkpoint:
    """A sink: the folder of the trained checkpoint.

    Attributes:
        url: folder for the checkpoint, and for the committed steps below `.raysp/`.
        every: steps between commits.
        minutes: longest time between commits; None: the steps alone count.
        storage_options: options of the storage; secrets by `Env`.
        shared: whether all machines of a cluster see the same files at a local `url`. If not declared, a training on a
            cluster checks it on nodes that are up.
    """

    url: Annotated[Url, Field(min_length=1)]
    _: KW_ONLY
    every: Count = 500
    minutes: Positive | None = 10.0
    storage_options: StorageOptions = field(default_factory=dict)
    shared: bool = False


@spec
class Evaluation:
    """Evaluation during a training; the weights of the best one become the checkpoint.

    Attributes:
        source: the rows to evaluate on; its `text` is the column of reference texts.
        others: further corpora by name, whose metrics are shown under their names and decide nothing.
        column: column of other references; None: the objective's.
        every: steps between evaluations; None: 1,000, or fewer, so that there are 20. The weights before the first
            step and after the last one are evaluated too; the former are not a candidate for the result.
        best: metric by which weights are the best: "wer", "cer", or "loss"; for classes "accuracy", "f1", or
            "loss"; for speakers also "eer", the equal error rate. A metric without a value ends the training with an
            error.
        patience: evaluations without a better one after which the training ends; None: it does not end before its time.
        normalise: rules for both texts: "none", "lower", "letters", or one of whisper-normalizer's; with the
            language of the objective's `Text` if that has one, as "letters-tr".
        by: columns whose values have metrics of their own; "seconds": bands of duration.
        max_seconds: longer rows are left out. Rows are labelled in windows, as by `Label`; their loss is computed on
            whole rows.
    """

    TEXT_USE: ClassVar = TEXTS_OF_ROWS

    source: Shards
    _: KW_ONLY
    others: Mapping[CorpusName, Shards] = field(default_factory=dict)
    column: str | None = None
    every: Count | None = None
    best: Literal["wer", "cer", "accuracy", "f1", "eer", "loss"] = "wer"
    patience: Count | None = None
    normalise: str = NORMALISE
    by: Listed[str] = ()
    max_seconds: Positive = 120.0

    @property
    def steps(self) -> tuple[Step, ...]:
        """The step that decodes."""
        return (Decode(self.max_seconds),)

    @property
    def flow(self) -> Flow:
        """The order of the steps, and the columns that they read."""
        return flow_of(self.steps, self.source.audio)

    @property
    def decoding(self) -> Decode:
        """The step that decodes."""
        return Decode(self.max_seconds)

    @property
    def target(self) -> str | None:
        """The column of the references; None: the rows have none."""
        return self.column or self.source.text

    @property
    def kept(self) -> tuple[str, ...]:
        """The column of the references, and columns of groups."""
        columns = [name for name in self.by if name != "seconds"]
        return tuple(dict.fromkeys([*([self.target] if self.target else []), *columns]))


@spec
class Finetune:
    """A recipe: training of a model on audio shards.

    Attributes:
        source: the corpus; its `text` is the column of reference texts, of objectives with texts.
        steps: steps in order: one `Decode`, and any number of steps that filter rows or add columns. If none of them
            has `max_seconds`, and the objective cuts no rows, rows above 120 s are left out.
        objective: objective of the training.
        schedule: length and learning rates.
        sink: destination of the checkpoint.
        batching: sizes of steps.
        augment: changes of the recordings, drawn in each epoch: at most one `Speed`, then other changes in order.
        mix: shares of the parts of the corpus; None: every epoch has all rows.
        evaluation: evaluation during the training; None: the last weights become the checkpoint.
        ema: share that a moving average of the weights keeps at each update, such as 0.999; the average is evaluated
            and becomes the checkpoint. None: there is none.
        pool: the workers, at most as many as a step has micro-batches. With (low, high), a training on a cluster looks
            for room for more workers every five minutes, and goes on with fewer after a node is lost; it then begins
            again at the last commit.
        seed: seed of all random numbers.
        dtype: dtype of the arithmetic; "auto": bfloat16 on GPUs, else float32. Weights stay in float32.
        device: "auto": GPUs if there are any, else CPUs. "cpu", "cuda", or another kind of device of the installed
            torch.
        deterministic: whether GPUs use kernels that give the same bits each time, which are slower; an operation that
            has none ends the training. On CPUs the bits are always the same.
        name: title of the report and of the model card; None: the name of the sink's folder.
        callbacks: functions at the top level of a module, or their names, "module:function", called in the calling
            process with a dict of figures after each step, and once at the end of the run. An error of a callback is
            logged, and does not end the training.
        max_error_rate: largest share of rows that may fail to decode before training stops.
    """

    NOUN: ClassVar = "recipe"
    VERB: ClassVar = "finetune"
    TEXT_USE: ClassVar = TEXTS_OF_ROWS
    labelled_by: ClassVar[None] = None

    source: Shards
    _: KW_ONLY
    steps: Listed[Step]
    objective: Objective
    schedule: Schedule
    sink: Checkpoint
    batching: Batching = field(default_factory=Batching)
    augment: Listed[Augmentation] = ()
    mix: Mix | None = None
    evaluation: Evaluation | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    pool: Pool = field(default_factory=Pool)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Device = "auto"
    deterministic: bool = False
    name: str | None = None
    callbacks: Listed[FunctionName] = ()
    max_error_rate: Share = 0.5

    def __post_init__(self) -> None:
        """Check the steps, and that targets and metrics fit."""
        if self.flow.decode.keep_prefix:
            raise ValueError(
                "found Decode(keep_prefix=True); damaged recordings are left out of a training: leave it out"
            )
        if self.flow.decode.channel == EACH:
            raise ValueError(
                "found Decode(channel='each'); a training row is one channel: choose one by its index, or "
                "channel='mean'"
            )
        refuse_clash([(f"steps[{i}] {type(step).__name__}", step.columns) for i, step in enumerate(self.steps)])
        speeds = [place for place, change in enumerate(self.augment) if isinstance(change, Speed)]
        if speeds not in ([], [0]):
            raise ValueError(f"found Speed at the places {speeds} of augment; expected one at most, as the first")
        evaluation, has_texts = self.evaluation, isinstance(self.objective, TextObjective)
        evaluated = {name: each.source for name, each in self.evaluations.items()}
        for name, source in {"source": self.source, **evaluated}.items():
            if source.text is None and has_texts:
                raise ValueError(f"{name}.text is not set; give the column of the reference texts")
        metrics, name = self.objective.METRICS, type(self.objective).__name__
        if evaluation and evaluation.normalise != NORMALISE and not has_texts:
            raise ValueError(
                f"found evaluation.normalise={evaluation.normalise!r}; {name} compares no texts: leave it out"
            )
        if evaluation and evaluation.best not in metrics:
            raise ValueError(f"found evaluation.best={evaluation.best!r}; {name} has {', '.join(metrics)}")

    @property
    def target(self) -> str | None:
        """The column of the targets; None: the rows have none."""
        return self.objective.target or self.source.text

    @property
    def kept(self) -> tuple[str, ...]:
        """The column of the targets."""
        return (self.target,) if self.target else ()

    @cached_property
    def flow(self) -> Flow:
        """The order of the steps, and the columns that pass between them."""
        return flow_of(self.steps, self.source.audio)

    @property
    def decoding(self) -> Decode:
        """The step that decodes, with the longest duration that is read."""
        return replace(self.flow.decode, max_seconds=self.longest_seconds)

    @property
    def sources(self) -> dict[str, Shards]:
        """All corpora that are read, by the names of their fields."""
        further: dict[str, Evaluation | OfSounds] = {**self.evaluations, **self.sounds}
        return {"source": self.source, **{name: work.source for name, work in further.items()}}

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """Evaluations by the names of the fields of their corpora; the first decides, further ones have no groups."""
        if (evaluation := self.evaluation) is None:
            return {}
        alone = partial(replace, evaluation, others={}, by=())
        further = {f"evaluation.others.{name}": alone(source=source) for name, source in evaluation.others.items()}
        return {"evaluation.source": evaluation, **further}

    @property
    def sounds(self) -> dict[str, OfSounds]:
        """Augmentations with sounds of a corpus, by the names of the fields of these."""
        steps = enumerate(self.augment)
        return {f"augment.{place}.source": step for place, step in steps if isinstance(step, OfSounds)}

    @property
    def speeds(self) -> Sequence[float]:
        """Factors of the speed of the recordings; none if it is not changed."""
        return next((step.factors for step in self.augment if isinstance(step, Speed)), ())

    @property
    def read_places(self) -> list[ReadPlace]:
        """The checkpoints that are read and never written."""
        return [ReadPlace(f"objective.{name}", url) for name, url in self.objective.checkpoints.items()]

    @property
    def limits_rows(self) -> bool:
        """Whether the recipe limits the duration of rows: by a step, or by the crops of its objective."""
        by_decode = self.flow.decode.max_seconds != Decode().max_seconds
        by_keep = any(isinstance(step, Keep) and step.max_seconds is not None for step in self.steps)
        return by_decode or by_keep or getattr(self.objective, "crop_seconds", None) is not None

    @property
    def longest_seconds(self) -> float:
        """Duration above which a row is left out as `too_long`."""
        return self.flow.decode.max_seconds if self.limits_rows else LONGEST_ROW


def load_recipe(target: str) -> Finetune:
    """Load a recipe from `file.py` (its only recipe, or the recipe named `recipe`) or `file.py:name`.

    Raises:
        SpecError: as `load_value`.
    """
    return cast("Finetune", load_value(target, {"recipe": "raysp.training.specs.recipe:Finetune"}))
