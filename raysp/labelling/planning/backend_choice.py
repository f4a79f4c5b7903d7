"""Backend of a `Label` step that names none: chosen by a sink's first plan, and carried in its pipeline."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from raysp.backends import hf_installed
from raysp.backends.finding import HUGGING_FACE, NAMED, choose
from raysp.backends.packages import GROUP
from raysp.errors import CheckpointError, PlanError
from raysp.labelling.planning.planned_checkpoint import folder_of, summary_of
from raysp.models.summary import OWN, CheckpointSummary
from raysp.sink.run_record import RunRecord
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import Label


class Chosen(NamedTuple):
    """Backend that runs a checkpoint."""

    name: str
    summary: CheckpointSummary
    why: str = ""
    """Reason why the models of raysp do not run the checkpoint; empty if they do."""


def with_backends(pipeline: Pipeline, record: RunRecord | None = None) -> tuple[Pipeline, tuple[Chosen, ...]]:
    """Return the pipeline with the backends of its `Label` steps, and the choice of each.

    A backend that a step names is kept. Otherwise the recorded one is used where it reads the checkpoint, so that a
    sink has labels of one backend, whatever is installed; without a record it is chosen.

    Raises:
        CheckpointError: no backend reads a checkpoint; with the reasons.
        PlanError: the labels of the sink were made by transformers, which is not installed here.
    """
    steps, choices = [*pipeline.steps], []
    for place, step in enumerate(steps):
        if not isinstance(step, Label):
            continue
        folder_for = partial(folder_of, step.checkpoint, pipeline.source, language=step.language)
        if step.backend:
            choices.append(Chosen(step.backend, summary_of(folder_for(backend=step.backend), step.backend)))
            continue
        recorded = _recorded(record, place)
        if recorded == HUGGING_FACE and not hf_installed.version():
            raise PlanError(
                f"{pipeline.sink.url}: its labels were made with backend='transformers', and transformers is not "
                f"installed here; {hf_installed.COMMAND}, or use another sink with what is installed"
            )
        choices.append(choose_backend(folder_for, first=recorded or OWN))
        steps[place] = _with(step, choices[-1].name)
    return (pipeline if steps == [*pipeline.steps] else replace(pipeline, steps=steps)), tuple(choices)


def as_recorded(pipeline: Pipeline, record: RunRecord) -> Pipeline:
    """Return the pipeline with the recorded backends of `Label` steps that name none."""
    steps = [
        _with(step, recorded)
        if isinstance(step, Label) and step.backend is None and (recorded := _recorded(record, place))
        else step
        for place, step in enumerate(pipeline.steps)
    ]
    return pipeline if steps == [*pipeline.steps] else replace(pipeline, steps=steps)


def choose_backend(folder_for: Callable[..., Path], *, first: str = OWN) -> Chosen:
    """Return the first backend that reads a checkpoint: `first`, the models of raysp, transformers.

    A folder whose model raysp reads, and whose files disagree, is refused: transformers compares fewer of them.

    Args:
        folder_for: returns the local folder with the files for the backend that is passed as `backend`.
        first: backend to try first.

    Raises:
        CheckpointError: no backend reads the checkpoint; with the reasons.
    """
    folder = folder_for(backend=OWN)
    if first != OWN:
        try:
            return Chosen(first, summary_of(folder_for(backend=first), first))
        except CheckpointError:
            pass  # of another checkpoint than the recorded one, which the fingerprint shows
    try:
        return Chosen(OWN, summary_of(folder, OWN))
    except CheckpointError as error:
        if choose(folder, OWN).package is not None:
            raise
        return _by_transformers(folder, folder_for, error)


def _by_transformers(folder: Path, folder_for: Callable[..., Path], error: CheckpointError) -> Chosen:
    """Return transformers as the backend of a checkpoint that the models of raysp refuse with an error.

    Raises:
        CheckpointError: it does not read it either, or is not installed.
    """
    from raysp.backends.own import unread, unread_error
    from raysp.models.checking import reads_kind

    other = unread(folder)
    if not other and reads_kind(folder):
        raise error
    why = unread_error(folder, other) if other else str(error)
    if not hf_installed.version():
        if not other:
            raise error
        reads = "reads it" if hf_installed.would_read(folder) else "may read it"
        raise CheckpointError(f"{why}; transformers {reads}, and is not installed: {hf_installed.COMMAND}") from error
    try:
        summary = summary_of(folder_for(backend=HUGGING_FACE), HUGGING_FACE)
    except CheckpointError as theirs:
        if str(theirs) == why:
            raise error from None
        advice = (
            f"; use a checkpoint of a supported model, or install a package that offers it (entry points {GROUP})"
            if other
            else ""
        )
        raise CheckpointError(
            f"{why}; transformers {hf_installed.version()} refuses it too: {theirs}{advice}"
        ) from theirs
    return Chosen(HUGGING_FACE, summary, f"raysp has no model of type {other!r}" if other else why)


def _recorded(record: RunRecord | None, place: int) -> str | None:
    """Return the backend of a step of a recorded pipeline."""
    steps = record.pipeline.get("steps") if record and isinstance(record.pipeline, dict) else None
    step = steps[place] if isinstance(steps, list) and place < len(steps) else None
    return str(step["backend"]) if isinstance(step, dict) and step.get("backend") in NAMED else None


def _with(label: Label, backend: str) -> Label:
    return replace(label, backend=backend)  # type: ignore[arg-type] # one of `NAMED`
