"""Checkpoints of a pipeline: their local folders and backends, their descriptions and digests.

The backend of a `Label` step that names none is chosen by the first plan of a sink, and carried in its pipeline.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError

from raysp.backends import finding, hf_installed
from raysp.backends.finding import GROUP, HUGGING_FACE, NAMED, choose, files_of, label_files
from raysp.checkpoints import hub
from raysp.checkpoints.contents import languages_of, used_adapters
from raysp.checkpoints.fetching import EVERY, digest_adapters, digest_files, read_cached, write_cached
from raysp.checkpoints.hub import may_lack_languages, snapshot_of
from raysp.checkpoints.packaged import PACKAGED, SPEECH, PackagedModel
from raysp.errors import CheckpointError, PlanError
from raysp.models import labelled_passes
from raysp.models.labelled_passes import OWN, CheckpointSummary
from raysp.sink.run_record import RunRecord
from raysp.specs.outputs.output import OWN_MODEL, Output
from raysp.specs.pipeline import Pipeline, Shards, with_places
from raysp.specs.steps import Label
from raysp.specs.values import Column, replaced
from raysp.storage.store import scheme_of


def checkpoint_folder(pipeline: Pipeline) -> Path:
    """Return the local folder of the pipeline's checkpoint.

    A step has no storage options of its own. Those of the source are used if both urls have the same scheme,
    otherwise the environment and the profile.

    Raises:
        CheckpointError, StoreError: as `locate`.
    """
    label = pipeline.label
    return folder_of(label.checkpoint, pipeline.source, label.backend or OWN, label.language)


def folder_of(
    url: str, source: Shards, backend: str = OWN, language: str | Column | None = None, *, keeps_languages: bool = False
) -> Path:
    """Return the local folder of a checkpoint that a backend runs over a corpus; see `checkpoint_folder`.

    The folder of a checkpoint of the hub or of storage holds the adapter of `language`; adapters of a column are
    fetched when the first row has the language. With `keeps_languages` a folder from storage holds all its adapters.

    Raises:
        CheckpointError, StoreError: as `locate`.
    """
    languages = EVERY if keeps_languages and scheme_of(url) else _named(language)
    return hub.locate(url, _options_of(url, source), files_of(backend), languages)


def _named(language: str | Column | None) -> Sequence[str] | None:
    """Return the languages that are known before the rows are read; None: the one that the checkpoint announces."""
    return None if language is None else [] if isinstance(language, Column) else [language]


def _options_of(url: str, source: Shards) -> Mapping[str, object]:
    scheme = scheme_of(url)
    return source.storage_options if scheme and scheme_of(source.urls[0]) == scheme else {}


def _used_by(output: Output, pipeline: Pipeline) -> Iterator[tuple[str, str, Path, str]]:
    """Yield the field, url or `OWN_MODEL`, local path and digest of each file and checkpoint that an output reads."""
    source, checkpoint = pipeline.source, pipeline.label.checkpoint
    for field, url in output.checkpoints.items():
        folder = folder_of(url, source, OWN, output.language)
        yield field, url, folder, digest_of(folder, OWN, output.language)
    for field, url in output.files.items():
        from raysp.checkpoints import language_models

        if field == "phrases":
            expected = "a text in UTF-8, one phrase per line"
            path: Path | None = language_models.locate(url, _options_of(url, source), name="phrases", expected=expected)
        elif url != OWN_MODEL:
            path = language_models.locate(url, _options_of(url, source))
        else:
            path = language_models.locate_own(checkpoint, _options_of(checkpoint, source))
        if path is None:
            raise PlanError(
                f"lm={OWN_MODEL!r}: {checkpoint} comes with no language model, a folder {language_models.FOLDER!r} "
                "with a model in an ARPA or binary file; give the path of one, or leave lm out"
            )
        yield field, url, path, language_models.digest(path)


def check_packaged(model: PackagedModel, planned: Mapping[str, str]) -> None:
    """Raise if the weights of a model of a package on this machine differ from those of the plan.

    Args:
        model: the model.
        planned: digests of files when the run was planned; without the digest of the model nothing is compared.

    Raises:
        CheckpointError: the digests differ, or the model is not installed.
    """
    if model.key in planned and (digest := model.digest()) != planned[model.key]:
        raise CheckpointError(
            f"the model of {model.package}: the digest of its weights was {planned[model.key]} when the run was "
            f"planned, on this worker it is {digest}; install the same version of {model.package} on all machines"
        )


def located_outputs(
    pipeline: Pipeline, folder: Path, planned: Mapping[str, str] | None = None
) -> tuple[tuple[Output, ...], dict[str, str]]:
    """Return the outputs with local paths in place of the urls of their files and checkpoints; and digests by url.

    Models of packages have a digest too. The digest of a checkpoint that outputs use with several languages joins those
    of each.

    Args:
        pipeline: the pipeline.
        folder: local folder of its checkpoint.
        planned: digests of the files when the run was planned; None: not compared.

    Raises:
        CheckpointError: a file does not exist, or is not the planned one, or the model of a package is not.
        PlanError: the checkpoint comes with no language model.
        StoreError: it cannot be read.
    """
    for model in PACKAGED.values():
        check_packaged(model, planned or {})
    label = pipeline.label
    language, located = label.language, []
    if language is not None and not languages_of(folder):
        language = None  # the language of a text decoder
    models = {key for output in label.outputs for key in output.models}
    if label.windows == "speech":
        models.add(SPEECH.key)
    digests = {key: {PACKAGED[key].digest()} for key in sorted(models)}
    for output in label.outputs:
        local: dict[str, Any] = {}
        for field, name, path, digest in _used_by(output, pipeline):
            if planned and name in planned:
                refuse_changed(f"{field} {name!r}", digest, planned[name])
            digests.setdefault(name, set()).add(digest)
            local[field] = str(path)
        if language is not None and output.follows_language:
            local["language"] = language
        located.append(replace(cast("Any", output), **local) if local else output)
    return tuple(located), {name: "+".join(sorted(values)) for name, values in digests.items()}


def refuse_changed(name: str, digest: str, planned: str) -> None:
    """Raise CheckpointError if the digest of a checkpoint or file on this machine differs from the plan."""
    if digest not in planned.split("+"):
        raise CheckpointError(
            f"{name}: its digest was {planned} when the run was planned, on this worker it is {digest}; do not change "
            "it during a run, and make the same files available to all workers"
        )


def pinned(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with the hub ids of its checkpoints resolved to commits, so that all machines read the same.

    Raises:
        CheckpointError: the hub has no such id, or cannot be reached.
    """
    return with_places(pipeline, lambda url: url, hub.pinned_checkpoint)


def summary_of(folder: Path, backend: str | None = None) -> CheckpointSummary:
    """Check a checkpoint, and return its description.

    The description is cached, since the check imports torch, which takes longer than the rest of a plan. It is used
    again while the files of the checkpoint and the code of the models have the same size, modification time and inode.

    Args:
        folder: the model folder.
        backend: backend of the checkpoint in a `Label` step; None: the models of raysp only.

    Raises:
        CheckpointError: as `Backend.describe`.
    """
    choice = None if backend is None else choose(folder, backend)
    if choice is not None:
        choice.require()
    adapter = TypeAdapter(CheckpointSummary)
    name = ""
    with contextlib.suppress(OSError):  # the state of a file cannot be read
        states = [choice.library if choice else "", *_states(folder.iterdir()), *_states_of_code()]
        name = f"summaries/{hashlib.sha256(repr(states).encode()).hexdigest()[:32]}.json"
    if name and (cached := read_cached(name)) is not None:
        with contextlib.suppress(ValidationError):  # another program wrote the file
            return replace(adapter.validate_json(cached), path=folder)
    if choice is None:
        from raysp.models.loading import check_checkpoint

        summary = check_checkpoint(folder, is_announced=False)
    else:
        summary = choice.open().describe(folder)
    if name:
        write_cached(name, adapter.dump_json(summary))
    return summary


@functools.cache
def _states_of_code() -> list[tuple[object, ...]]:
    """Return the states of the files of the models and of the backends, when this process first looked."""
    models, backends = Path(labelled_passes.__file__).parent, Path(finding.__file__).parent
    return _states([*models.rglob("*.py"), *backends.rglob("*.py")])


def _states(files: Iterable[Path]) -> list[tuple[object, ...]]:
    """Return path, size, modification time and inode of each file, in order."""
    states = [(str(file.resolve()), file.stat()) for file in sorted(files)]
    return [(path, state.st_size, state.st_mtime_ns, state.st_ino) for path, state in states]


def digest_of(folder: Path, backend: str = OWN, language: str | Column | None = None) -> str:
    """Return the digest of the files of a checkpoint that labels depend on, which differ by backend.

    It covers the adapter of the language, or of the announced one. If the rows name languages, it covers all adapters
    in the folder, or the commit of the hub or sizes and versions on storage if adapters are fetched later.
    """
    files = label_files(folder, backend)
    if not isinstance(language, Column):
        return digest_files(folder, [*files, *used_adapters(folder, _named(language))])
    if may_lack_languages(folder):
        of_adapters = snapshot_of(folder) or digest_adapters(folder)
        return hashlib.sha256(f"{digest_files(folder, files)} {of_adapters}".encode()).hexdigest()[:16]
    return digest_files(folder, [*files, *used_adapters(folder, languages_of(folder))])


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
    choices = []
    for place, step in enumerate(pipeline.steps):
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
        pipeline = replaced(pipeline, f"steps.{place}.backend", choices[-1].name)
    return pipeline, tuple(choices)


def as_recorded(pipeline: Pipeline, record: RunRecord) -> Pipeline:
    """Return the pipeline with the recorded backends of `Label` steps that name none."""
    for place, step in enumerate(pipeline.steps):
        if isinstance(step, Label) and step.backend is None and (recorded := _recorded(record, place)):
            pipeline = replaced(pipeline, f"steps.{place}.backend", recorded)
    return pipeline


def choose_backend(folder_for: Callable[..., Path], *, first: str = OWN) -> Chosen:
    """Return the first backend that reads a checkpoint: `first`, the models of raysp, transformers.

    If raysp supports the model but the files contradict each other, the folder is refused: transformers is not tried,
    because it compares fewer of the files.

    Args:
        folder_for: returns the local folder with the files for the backend that is passed as `backend`.
        first: backend to try first.

    Raises:
        CheckpointError: no backend reads the checkpoint; the message lists the reasons.
    """
    folder = folder_for(backend=OWN)
    if first != OWN:
        with contextlib.suppress(CheckpointError):  # of another checkpoint than the recorded one
            return Chosen(first, summary_of(folder_for(backend=first), first))
    try:
        return Chosen(OWN, summary_of(folder, OWN))
    except CheckpointError as error:
        if choose(folder, OWN).package is not None:
            raise
        return _by_transformers(folder, folder_for, error)


def _by_transformers(folder: Path, folder_for: Callable[..., Path], error: CheckpointError) -> Chosen:
    """Return transformers as the backend of a checkpoint that the models of raysp refuse with an error."""
    from raysp.backends.own import unread, unread_error
    from raysp.models.loading import reads_kind

    other = unread(folder)
    if not other and reads_kind(folder):
        raise error
    why = unread_error(folder, other) if other else str(error)
    if not hf_installed.version():
        if not other:
            raise error
        may_read = "if it is a speech model, transformers may read it"
        reads = "transformers reads it" if hf_installed.would_read(folder) else may_read
        raise CheckpointError(f"{why}; {reads}, and is not installed: {hf_installed.COMMAND}") from error
    try:
        summary = summary_of(folder_for(backend=HUGGING_FACE), HUGGING_FACE)
    except CheckpointError as theirs:
        if str(theirs) == why:
            raise error from None
        if other and hf_installed.knows(other):
            raise CheckpointError(
                f"raysp has no model of type {other!r}; transformers {hf_installed.version()} refuses it too: {theirs}"
            ) from theirs
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
    steps = record.steps if record else []
    backend = steps[place].get("backend") if place < len(steps) else None
    return str(backend) if backend in NAMED else None
