"""Preparation of a training: index of the corpus, vocabulary or classes, fingerprint. No weights are read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import numpy as np

from raysp.devices import num_cpus
from raysp.errors import PlanError, ShardError
from raysp.ops.decoding import Decoder
from raysp.specs.pipeline import fingerprint
from raysp.specs.values import JsonValue, hashed_fields, to_json
from raysp.storage.store import Store
from raysp.text.targets import OUTSIDE
from raysp.training.data.augmenting import Speeds
from raysp.training.data.epoch_order import EpochOrder
from raysp.training.data.indexing import Indexer, index_sounds
from raysp.training.data.mixed_epochs import mixture_of
from raysp.training.data.row_windows import PieceReader
from raysp.training.objectives.task import Task, task_of
from raysp.training.planning.corpus_index import CorpusIndex, combine
from raysp.training.planning.ordering import Costs, Window, imbalances, longest_seconds
from raysp.training.planning.small_corpora import settled
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.sink.source_index import INDEX_VERSION, SourceIndex
from raysp.training.sink.training_record import TrainingRecord
from raysp.training.specs.recipe import LONGEST_ROW, TRAINING_VERSION, Finetune
from raysp.words import count, duration

TOO_LONG = "too_long"
"""Reason: the recording is longer than the limit."""


@dataclass(frozen=True)
class Prepared:
    """A training that can begin."""

    plan: TrainingPlan
    corpus: CorpusIndex
    task: Task
    """Task of the recipe, with its vocabulary or classes."""
    parts: Mapping[str, JsonValue]
    """Everything that can change the weights, by dotted name."""
    fingerprint: str
    """Hash of the parts, without the versions of sounds."""
    unreadable: Mapping[str, str]
    """Shards that cannot be read, with the reasons."""
    order: EpochOrder
    """Order of the rows of all epochs."""

    def of_length(self, num_steps: int) -> "Prepared":
        """Return the same training with another number of steps."""
        schedule = replace(self.plan.recipe.schedule, epochs=None, steps=num_steps)
        return replace(self, plan=replace(self.plan, recipe=replace(self.plan.recipe, schedule=schedule)))

    @cached_property
    def first_window(self) -> Window:
        """The first window of the first epoch."""
        return next(self.order.first_epoch.windows_from(0))

    @property
    def costs(self) -> Costs:
        """Costs of the micro-batches of the first window (num_steps, micro_batches), as `Sizes.cost` has them."""
        window, sizes = self.first_window, self.plan.sizes
        costs = sizes.cost(longest_seconds(window, self.order.first_epoch.durations)) * np.diff(window.edges)
        return costs.reshape(-1, window.micro_batches)

    def reader(self, decoder: Decoder | None = None) -> PieceReader:
        """Return a reader of rows of pieces."""
        plan, task = self.plan, self.task
        return PieceReader(
            plan.recipe, plan.checkpoint, self.corpus, task.targets(), _min_samples(plan, task), decoder=decoder
        )

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts of the plan and of the rows for users, as text by name."""
        corpus, durations, epoch, window = self.corpus, self.corpus.durations, self.order.first_epoch, self.first_window
        left_out = _described(self.plan.recipe, corpus.left_out)
        rows_per_step = epoch.durations.num_rows / max(1, epoch.num_steps)
        # Share of the padded audio of the first window that is not padding.
        padded = float(longest_seconds(window, epoch.durations) @ np.diff(window.edges))
        efficiency = float(epoch.durations.seconds[window.rows].sum()) / padded if padded else 1.0
        facts = {
            "rows": f"{count(durations.num_rows, 'row')}, {duration(float(durations.seconds.sum()))} of audio"
            + (f"; left out: {left_out}" if left_out else ""),
            **self.task.facts(corpus.counts),
            **({"mix": self.order.mixture.fact} if self.order.mixture else {}),
            "epoch": f"{count(epoch.num_steps, 'step')} of {rows_per_step:.0f} rows on average, "
            f"padding efficiency {efficiency:.1%}",
            "fingerprint": self.fingerprint,
        }
        of_plan = self.plan.facts
        return {**of_plan, "workers": of_plan["workers"] + self._slowest, **facts}

    @property
    def _slowest(self) -> str:
        """The imbalance as text: a step takes as long as its slowest worker."""
        workers = self.plan.workers
        shown = [
            f"with {number:,} {f'the slowest takes {value:.2f} of the mean' if place == 0 else f'{value:.2f}'}"
            for place, (number, value) in enumerate(imbalances(self.costs, {workers.low, workers.high}).items())
        ]
        return f"; {', '.join(shown)}" if shown else ""


def prepare(
    plan: TrainingPlan,
    store: Store | None,
    *,
    saves: bool = True,
    decoder: Decoder | None = None,
    on_cluster: bool = False,
    on_indexed: Callable[[int, int], None] = lambda done, of: None,
) -> Prepared:
    """Index the shards that are not indexed yet, and return the training.

    Args:
        plan: the plan.
        store: the sink, which keeps the index; None: it is not kept.
        saves: whether indexes that are made are written to the sink.
        decoder: decoding functions; None: of this process.
        on_cluster: whether tasks of the connected cluster index many rows, in place of processes of this machine.
        on_indexed: called with the numbers of indexed shards and of all shards.

    Raises:
        PlanError: no row is left, or fewer than workers; the vocabulary does not fit.
        ChangedError: recordings were replaced since the training of the sink began.
    """
    recipe = plan.recipe
    task = task_of(plan)
    indexer = Indexer(recipe, plan.checkpoint, task.targets, _min_samples(plan, task), plan.code)
    make = partial(indexer.index, decoder=decoder, processes=num_cpus(), on_cluster=on_cluster)
    index_of_source = SourceIndex(store, "source", recipe.source, _key(plan, task), saves=saves)
    indexed = index_of_source.complete(plan.corpora["source"].shards, make, on_indexed)
    corpus = combine(indexed)
    _refuse_few(plan, task, corpus)
    durations = corpus.durations
    mixture = None if recipe.mix is None else mixture_of(recipe.mix, corpus, recipe.seed)
    of_first = durations if mixture is None else mixture.of_epoch(durations, 0)
    task = task.settled(corpus.counts)
    plan = settled(plan, of_first, TrainingRecord.load(store) if store else None)
    parts = plan.parts(task.digest)
    sounds = _sound_versions(plan, store, saves=saves)
    not_indexed = {shard.name: index for shard, index in indexed if isinstance(index, str)}
    unreadable = {**plan.corpora["source"].unreadable, **not_indexed}
    speeds = Speeds(recipe.speeds, recipe.seed) if recipe.speeds else None
    order = EpochOrder(durations, plan.sizes, recipe.seed, mixture, speeds)
    return Prepared(plan, corpus, task, {**parts, **sounds}, fingerprint(parts), unreadable, order)


def _sound_versions(plan: TrainingPlan, store: Store | None, *, saves: bool) -> dict[str, JsonValue]:
    """Return hashes of the versions of the sounds of augmentations, by the names of parts.

    Raises:
        PlanError: they cannot be read.
        ChangedError: they were replaced since the training began.
    """
    versions: dict[str, JsonValue] = {}
    for name, sounds in plan.recipe.sounds.items():
        source = sounds.source
        key = fingerprint({"sounds": INDEX_VERSION, "audio": source.audio, "audio_root": source.audio_root})
        index = SourceIndex(store, name, source, key, saves=saves)
        try:
            indexed = index.complete(plan.corpora[name].shards, partial(index_sounds, source))
        except ShardError as error:
            raise PlanError(f"{name}: {error}") from error
        versions[f"{name.removesuffix('.source')}.sounds"] = combine(indexed).recordings_digest
    return versions


def _min_samples(plan: TrainingPlan, task: Task) -> int:
    """Return the samples of the shortest row, which at the highest speed is the shortest input of the model."""
    return math.ceil(task.min_samples(plan) * max([1.0, *plan.recipe.speeds]))


def _key(plan: TrainingPlan, task: Task) -> str:
    """Return the hash of everything besides the content of a shard that affects its index."""
    recipe, checkpoint = plan.recipe, plan.checkpoint
    source = cast("Mapping[str, JsonValue]", to_json(recipe.source))
    content = {
        "version": TRAINING_VERSION,
        "index": INDEX_VERSION,
        "source": {name: source[name] for name in ("audio", "text", "audio_root")},
        "steps": [cast("JsonValue", hashed_fields(step)) for step in recipe.steps],
        "code": plan.code.parts(),
        **({} if recipe.limits_rows else {"longest_seconds": recipe.longest_seconds}),
        **task.index_parts,
        "frames": [
            checkpoint.sample_rate,
            _min_samples(plan, task),
            checkpoint.receptive_samples,
            checkpoint.frame_stride,
        ],
    }
    return fingerprint(content)


def _described(recipe: Finetune, left_out: Mapping[str, int]) -> str:
    """Return numbers of rows that are left out by reason, as text, and the limit that a recipe does not have."""
    notes = {} if recipe.limits_rows else {TOO_LONG: f" (above {LONGEST_ROW:g} s; Decode(max_seconds=...) changes it)"}
    return ", ".join(f"{number:,} {reason}{notes.get(reason, '')}" for reason, number in sorted(left_out.items()))


def _refuse_few(plan: TrainingPlan, task: Task, corpus: CorpusIndex) -> None:
    num_kept = corpus.durations.num_rows
    if num_kept >= max(1, plan.workers.low):
        return
    why = _described(plan.recipe, corpus.left_out)
    if not num_kept:
        more = ""
        if OUTSIDE in corpus.left_out:  # the characters outside the vocabulary, with a remedy
            facts = task.settled(corpus.counts).facts(corpus.counts)
            more = "".join(f"; {name}: {fact}" for name, fact in facts.items())
        rows = count(len(corpus.durations.seconds), "row")
        raise PlanError(f"no row is left to train on: {rows}, left out: {why or 'none'}{more}")
    raise PlanError(
        f"{count(num_kept, 'row')} to train on, and {count(plan.workers.low, 'worker')}: lower pool.actors"
        + (f" (left out: {why})" if why else "")
    )
