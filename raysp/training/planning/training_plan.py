"""Plan of a training: corpus, checkpoint, resolved settings. It reads no audio and writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import pyarrow as pa

from raysp.checkpoints import hub
from raysp.cluster.resources import Resources, with_absolute_paths
from raysp.devices import is_accelerator
from raysp.errors import PlanError, SpecError, about
from raysp.labelling.assembly import whole_rows
from raysp.labelling.planning.listing import list_corpus, source_of_commit
from raysp.labelling.planning.planned_checkpoint import digest_of, folder_of, summary_of
from raysp.labelling.planning.run_plan import Corpus
from raysp.labelling.planning.surveying import CheckSchema, holds_text, survey, with_ids
from raysp.models.labelled_passes import CheckpointSummary
from raysp.specs.code import UserCode
from raysp.specs.pipeline import load_function, read_code, with_places
from raysp.specs.values import JsonValue, hashed_fields, replaced, to_json
from raysp.text.error_rates import in_language, normalisation
from raysp.training.planning.ordering import Sizes
from raysp.training.planning.workers import Workers, settle_workers
from raysp.training.specs.augmentations import OfSounds
from raysp.training.specs.objectives import ClassObjective, Objective, TextObjective
from raysp.training.specs.recipe import MICRO_BATCHES, MOST_BETWEEN, TRAINING_VERSION, Evaluation, Finetune
from raysp.words import count

MICRO_SECONDS = 15.0
"""Padded seconds of a micro-batch on a CPU, where a larger one is not faster."""
GPU_MICRO_SECONDS = 80.0
"""Padded seconds of a micro-batch on a GPU."""
WINDOW_STEPS = 100
"""Steps whose audio makes a window, if the recipe has no window_seconds."""


@dataclass(frozen=True)
class TrainingPlan:
    """Plan of a training."""

    recipe: Finetune
    """Recipe with absolute paths and commits of the hub."""
    checkpoint: CheckpointSummary
    """The checkpoint to begin with."""
    checkpoint_digest: str
    corpora: Mapping[str, Corpus]
    """Rows of the corpora that are read, by the names of `Finetune.sources`; "source" is trained on."""
    dtype: str
    workers: Workers
    code: UserCode = field(repr=False)
    """Code from outside raysp."""
    decoder: Path | None = None
    """Folder of the decoder, if it is not the checkpoint."""

    def located(self) -> "TrainingPlan":
        """Return the plan with the folders of its checkpoints on this machine."""
        folders = _folders(self.recipe)
        checkpoint = replace(self.checkpoint, path=folders["checkpoint"])
        return replace(self, checkpoint=checkpoint, decoder=folders.get("decoder"))

    @property
    def batching(self) -> tuple[float, int, float]:
        """Seconds and micro-batches of a step, and seconds of a window; the device's where the recipe has none."""
        batching = self.recipe.batching
        micro_seconds = GPU_MICRO_SECONDS if is_accelerator(self.workers.device) else MICRO_SECONDS
        number = batching.micro_batches or MICRO_BATCHES
        seconds = batching.seconds or micro_seconds * number
        return seconds, number, batching.window_seconds or WINDOW_STEPS * seconds

    @property
    def sizes(self) -> Sizes:
        """Sizes of steps."""
        seconds, number, window_seconds = self.batching
        batching = self.recipe.batching
        return Sizes(seconds / number, number, window_seconds, batching.quadratic_seconds, batching.curriculum)

    @property
    def resolved(self) -> Mapping[str, JsonValue]:
        """Values that the recipe leaves open, which the entry of a run has."""
        return {"device": self.workers.device, "dtype": self.dtype, "cpus_per_worker": self.workers.threads}

    def parts(self, vocabulary_digest: str) -> dict[str, JsonValue]:
        """Return everything that can change the weights, by the dotted names used in reports of differences.

        Args:
            vocabulary_digest: hash of the vocabulary or classes.
        """
        recipe, source = self.recipe, hashed_fields(self.recipe.source)
        parts: dict[str, JsonValue] = {
            "training_version": TRAINING_VERSION,
            "dtype": self.dtype,
            "checkpoint_digest": self.checkpoint_digest,
            "vocabulary_digest": vocabulary_digest,
            **{name: to_json(getattr(recipe, name)) for name in ("seed", "ema", "mix", "deterministic")},
            **{f"source.{name}": source[name] for name in ("id", "audio", "text")},
        }
        specs = {name: getattr(recipe, name) for name in ("objective", "schedule", "batching")}
        specs |= {f"steps.{place}": step for place, step in enumerate(recipe.steps)}
        specs |= {f"augment.{place}": change for place, change in enumerate(recipe.augment)}
        for name, part in specs.items():
            parts |= {f"{name}.{key}": value for key, value in hashed_fields(part).items()}
        for name in (*(f"objective.{name}" for name in recipe.objective.checkpoints), *recipe.sounds):
            del parts[name]
        if recipe.evaluation is not None and recipe.evaluation.patience is not None:  # it decides when training ends
            evaluation = hashed_fields(recipe.evaluation)
            parts |= {f"evaluation.{key}": evaluation[key] for key in ("every", "best", "patience", "normalise")}
        return {**parts, **self.code.parts()}

    @property
    def is_deterministic(self) -> bool:
        """Whether workers on GPUs use kernels that give the same bits each time."""
        return self.recipe.deterministic and is_accelerator(self.workers.device)

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts of the plan for users, as text by name."""
        recipe, checkpoint, corpus = self.recipe, self.checkpoint, self.corpora["source"]
        seconds, number, _ = self.batching
        source, objective = recipe.source, recipe.objective
        more = f" and {len(source.urls) - 1} more" if len(source.urls) > 1 else ""
        return {
            "source": f"{source.urls[0]}{more}: {count(len(corpus.shards), 'shard')}, "
            f"{count(corpus.num_rows, 'row')}" + (f", with the labels of {source.labels}" if source.labels else ""),
            "checkpoint": f"{objective.checkpoint}: {checkpoint.architecture}, "
            f"{count(checkpoint.num_parameters, 'parameter')}, {checkpoint.sample_rate} Hz",
            **({"not used": checkpoint.unused_words} if checkpoint.unused_words else {}),
            "objective": objective.described + objective.details,
            "step": f"at most {seconds:g} padded seconds in {count(number, 'micro-batch')}",
            **({} if recipe.schedule.optimizer is None else {"optimiser": str(recipe.schedule.optimizer)}),
            "workers": f"{self.workers.words}, {self.dtype} on {self.workers.device}"
            f"{', deterministic' if self.is_deterministic else ''}",
            **({} if recipe.limits_rows else {"longest row": f"{recipe.longest_seconds:g} s, by default"}),
            **({} if recipe.evaluation is None else {"evaluation": self._evaluation_fact(recipe.evaluation)}),
            "sink": recipe.sink.url,
        }

    def _evaluation_fact(self, evaluation: Evaluation) -> str:
        rows = {name: count(self.corpora[name].num_rows, "row") for name in self.recipe.evaluations}
        further = [f"; {name}: {rows[f'evaluation.others.{name}']}" for name in evaluation.others]
        return (
            f"{rows['evaluation.source']} before the first step and every "
            f"{count(evaluation.every or MOST_BETWEEN, 'step')}, best by {evaluation.best}{''.join(further)}"
        )


def plan_training(recipe: Finetune, cluster: Resources | None = None) -> TrainingPlan:
    """Return the plan of a training; nothing is written.

    Args:
        recipe: the recipe.
        cluster: resources of the cluster; None: this machine.

    Raises:
        PlanError: there are no rows, a column is missing, or the workers do not fit.
        CheckpointError: the checkpoint cannot be trained for this objective.
    """
    recipe = with_absolute_paths(recipe)
    for name, source in recipe.sources.items():
        recipe = replaced(recipe, name, source_of_commit(source))
    if recipe.evaluation:
        language = recipe.objective.text.language if isinstance(recipe.objective, TextObjective) else None
        evaluation = replace(
            recipe.evaluation,
            column=recipe.evaluation.column or recipe.objective.target,
            normalise=in_language(recipe.evaluation.normalise, language),
        )
        with about("evaluation.normalise", SpecError, SpecError):
            normalisation(evaluation.normalise)  # raises for an unknown name
        recipe = replace(recipe, evaluation=evaluation)
    for name in cast("Sequence[str]", recipe.callbacks):
        load_function(name)
    recipe = with_places(recipe, lambda url: url, hub.pinned_checkpoint)
    objective = recipe.objective
    listed_corpus = list_corpus(recipe.source)
    source, surveyed = with_ids(recipe, listed_corpus)
    recipe = replace(recipe, source=source)
    code = read_code(recipe)
    check = partial(_check_column, objective, recipe.target)
    corpus = survey(listed_corpus, {}, recipe, check=check, surveyed=surveyed)
    _refuse_empty(recipe, corpus)
    folders = _folders(recipe)
    checkpoint = summary_of(folders["checkpoint"])
    checkpoint.require_language(objective.language, "name one in objective.adapter")
    if objective.lora is not None and find_spec("peft") is None:
        raise PlanError(
            "objective.lora needs the package peft, which is not installed; pip install 'raysp[lora]', or leave the "
            "field out"
        )
    objective.check(checkpoint)
    whole_rows(recipe, checkpoint)  # raises for a longest row that is too short
    if recipe.evaluation:
        whole_rows(recipe.evaluation, checkpoint)
    workers = settle_workers(recipe, cluster)
    default_dtype = "bfloat16" if is_accelerator(workers.device) else "float32"
    corpora = {"source": corpus}
    for name, evaluation in recipe.evaluations.items():
        corpora[name] = _surveyed(name, evaluation, partial(_check_column, objective, evaluation.target))
    corpora |= {name: _surveyed(name, sounds) for name, sounds in recipe.sounds.items()}
    return TrainingPlan(
        recipe=recipe,
        checkpoint=checkpoint,
        checkpoint_digest="+".join(digest_of(folder, language=objective.kept_language) for folder in folders.values()),
        corpora=corpora,
        dtype=default_dtype if recipe.dtype == "auto" else recipe.dtype,
        workers=workers,
        code=code,
        decoder=folders.get("decoder"),
    )


def _folders(recipe: Finetune) -> dict[str, Path]:
    """Return the folders of the checkpoints of a recipe on this machine, by the names of their fields."""
    places, language = recipe.objective.checkpoints, recipe.objective.kept_language
    keeps = recipe.objective.language is not None  # the exported checkpoint keeps the others
    return {
        name: folder_of(url, recipe.source, language=language, keeps_languages=keeps) for name, url in places.items()
    }


def _surveyed(name: str, work: Evaluation | OfSounds, check: CheckSchema | None = None) -> Corpus:
    """Return the shards of an evaluation or of sounds, by the name of their source in the recipe.

    Raises:
        PlanError: as `plan_training`, and if any shard cannot be read: the metrics or weights would differ.
    """
    try:
        listed = list_corpus(work.source)
        source, surveyed = with_ids(work, listed)
        corpus = survey(listed, {}, replace(work, source=source), check=check, surveyed=surveyed)
    except PlanError as error:
        of_source = str(error).startswith("source")
        raise PlanError(name + str(error).removeprefix("source") if of_source else f"{name}: {error}") from None
    if corpus.unreadable:
        shard, why = next(iter(corpus.unreadable.items()))
        raise PlanError(f"{name}: {shard} cannot be read: {why}")
    if not corpus.num_rows:
        raise PlanError(f"{name}.url: the shards hold no rows; name another corpus, or leave it out")
    return corpus


def _check_column(objective: Objective, column: str | None, url: str, schema: pa.Schema) -> None:
    """Raise PlanError for a column of classes of another type; texts are checked with the source."""
    if column is None or not isinstance(objective, ClassObjective):
        return
    kind = schema.field(column).type
    if not (holds_text(kind) or pa.types.is_integer(kind.value_type if isinstance(kind, pa.DictionaryType) else kind)):
        raise PlanError(
            f"{url}: column {column!r} holds {kind}, expected strings or integers, one for each row: choose another "
            "objective.column, or write the targets as such"
        )


def _refuse_empty(recipe: Finetune, corpus: Corpus) -> None:
    if not corpus.shards:
        name, why = next(iter(corpus.unreadable.items()))
        raise PlanError(f"source: none of {count(len(corpus.unreadable), 'shard')} can be read, such as {name}: {why}")
    if not corpus.num_rows:
        raise PlanError(f"source.url: {recipe.source.urls[0]}: the shards hold no rows; there is nothing to train on")
