"""Settings of a run: checks of checkpoint and pool, values of "auto" settings, and the fingerprint of all of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from raysp.audio.waveforms import Windowing
from raysp.backends.finding import CTRANSLATE2, NAMED, choice_of
from raysp.cluster.resources import Resources, actor_cpus, actors_that_fit, check_device, shortage_of, with_gpu_memory
from raysp.corpus.shards import PIECE_SECONDS, PieceSize
from raysp.devices import is_accelerator, kind_of
from raysp.errors import CheckpointError, PlanError, about
from raysp.labelling.planning.planned_checkpoint import checkpoint_folder, digest_of, located_outputs, summary_of
from raysp.labelling.planning.run_plan import Pass, Settings, output_schema
from raysp.models.labelled_passes import OWN, CheckpointSummary
from raysp.ops.blocks import (
    EIGHT_BITS,
    WEIGHT_BYTES,
    Batching,
    batch_seconds,
    batching,
    block_seconds,
    passes_of_actor,
    windowing_of,
)
from raysp.sink import run_record
from raysp.sink.run_record import CODE, Resolved
from raysp.specs.code import UserCode
from raysp.specs.outputs.output import Output
from raysp.specs.pipeline import Pipeline, added_schema, read_code
from raysp.specs.steps import Decode, Label, Step
from raysp.specs.values import JsonValue, to_json
from raysp.words import count, megabytes

CPU_PIECE_SECONDS = 5 * 60.0
PIECES_AN_ACTOR = 4


def resolve_settings(
    pipeline: Pipeline,
    resources: Resources,
    before: Resolved | None = None,
    summaries: Sequence[CheckpointSummary] = (),
) -> tuple[Pass, ...]:
    """Check checkpoints against the pipeline and the pool against the cluster, and resolve "auto" settings.

    Args:
        pipeline: the pipeline, with the backends that were chosen; its explicit settings are used.
        resources: resources that are up now.
        before: values resolved by the sink's first plan, used on any resources; None at the first plan.
        summaries: descriptions of the checkpoints; empty: they are read.

    Raises:
        CheckpointError: a folder does not exist, or its checkpoint cannot be run.
        PlanError: the pool does not fit, or leaves no CPU for decoding.
    """
    for index, step in enumerate(pipeline.steps):
        if isinstance(step, Label):
            if resources.machine_cpus is not None:
                check_device(step.device, f"steps.{index}.device")
            is_open = before is None and step.device == "auto" and pipeline.label.pool.gpus is None
            if is_open and resources.gpus_may_come:
                raise PlanError(
                    f"steps.{index}.device: found 'auto', and no GPU of the cluster is up now, though nodes with GPUs "
                    "may come up later; the first plan of a sink determines device and dtype of all its labels. Set "
                    f"steps.{index}.device='cuda' (steps.{index}.pool.gpus for a number of GPUs) or "
                    f"steps.{index}.device='cpu'"
                )
        elif not isinstance(step, Decode):
            _refuse_incomplete(step, index)
    if not pipeline.reads_audio:
        return (Pass(pipeline, _without_model(pipeline.label, resources)),)
    alone = pipeline.passes
    summaries = summaries or [summary_of(checkpoint_folder(part), part.label.backend or OWN) for part in alone]
    resolved: list[Resolved | None] = [*(before.passes if before else ())]
    if len(resolved) != len(alone):  # also of another pipeline, which the fingerprint shows
        resolved = [before] * len(alone)
    passes = tuple(
        Pass(part, _settings(part, resources, earlier, summary, summaries))
        for part, earlier, summary in zip(alone, resolved, summaries, strict=True)
    )
    _check_columns(pipeline, passes)
    return passes


def _without_model(label: Label, resources: Resources) -> Settings:
    """Return the settings of a pipeline that reads no audio; they describe no checkpoint."""
    none = CheckpointSummary(
        path=Path(),
        model_type="",
        architecture="",
        num_parameters=0,
        sample_rate=1,
        min_samples=0,
        frame_stride=1,
        gives=(),
        receptive_samples=0,
    )
    cpus = actor_cpus(label.pool, machine_cpus=resources.machine_cpus, on_gpu=False)
    return Settings(checkpoint=none, dtype=label.dtype, device=label.device, cpus_per_actor=cpus)


def _refuse_incomplete(step: Step, index: int) -> None:
    """Raise PlanError if a step between the others lacks a part."""
    why = ""
    if type(step).op is Step.op:
        why = "has no op"
    elif step.columns and (*step.schema().names,) != step.columns:
        why = f"adds the columns {[*step.columns]}, and its schema has {step.schema().names}"
    if why:
        raise PlanError(
            f"steps[{index}] {type(step).__name__}: found a step that this version of raysp cannot run: it {why}"
        )


def _settings(
    pipeline: Pipeline,
    resources: Resources,
    before: Resolved | None,
    summary: CheckpointSummary,
    summaries: Sequence[CheckpointSummary],
) -> Settings:
    """Return the settings of a pass; `summaries` are of all checkpoints in the same actor."""
    label = pipeline.label
    outputs, file_digests = located_outputs(pipeline, summary.path)
    _check_checkpoint(label, summary, outputs)
    device, gpus = _placement(label, resources, before)
    on_gpu = is_accelerator(device)
    auto_dtype = before.dtype if before else ("bfloat16" if on_gpu else "float32")
    dtype = auto_dtype if label.dtype == "auto" else label.dtype
    _check_dtype(label, dtype, device)
    cpus = actor_cpus(label.pool, machine_cpus=resources.machine_cpus, on_gpu=on_gpu)
    if gpus:
        resources = with_gpu_memory(resources)
    _check_pool(label, resources, cpus.number, gpus, before)
    weights = WEIGHT_BYTES.get(dtype, 4) * summary.num_parameters
    most = resources.gpu_memory if gpus else label.pool.memory
    if most is not None and weights > most:
        raise PlanError(
            f"{label.checkpoint}: its weights take {megabytes(weights)} in {dtype}, and an actor has "
            f"{megabytes(most)}; raise pool.memory, use GPUs with more memory, or a dtype of half precision"
        )
    memory = _memory_of_actor(label, resources, cpus.number, gpus) if gpus or not on_gpu else None
    if before and before.alone is False and summary.alone:
        raise PlanError(
            f"{pipeline.sink.url}: its labels were made in padded batches, and here {summary.alone}; install the "
            "version that padding was measured with, or use another sink"
        )
    windows_alone = before.alone if before and before.alone is not None else bool(summary.alone)
    batches = batching(dtype=dtype, device=device, windows_alone=windows_alone)
    is_alone = batches is Batching.ALONE
    at_once = passes_of_actor(None if on_gpu else cpus.number, batches, is_own=summary.backend == OWN)
    of_outputs = (summary_of(Path(url)) for output in outputs for url in output.checkpoints.values())
    in_actor = [*summaries, *of_outputs]
    loaded = replace(  # all models of an actor, whose passes take turns
        summary,
        num_parameters=sum(model.num_parameters for model in in_actor),
        weight_bytes=sum(model.weight_bytes for model in in_actor),
        activations_per_second=max(model.activations_per_second for model in in_actor),
    )
    budget = batch_seconds(loaded, on_gpu=on_gpu, memory=memory, at_once=at_once)
    if before is not None and before.batch_seconds is not None and before.device == device:
        # A text in half precision may depend on its batch. A batch that does not fit is halved when it fails.
        budget = min(before.batch_seconds, budget) if dtype == "float32" else before.batch_seconds
    budget = label.batch_seconds or budget
    of_pass = max(budget, label.window_seconds) if is_alone else budget
    return Settings(
        checkpoint=summary,
        checkpoint_digest=digest_of(summary.path, summary.backend, label.language),
        dtype=dtype,
        device=device,
        batch_seconds=budget,
        block_seconds=block_seconds(loaded, on_gpu=on_gpu, batch_seconds=of_pass, threads=cpus.number, at_once=at_once),
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        batching=batches,
        fingerprint_seconds=_fingerprint_seconds(label, dtype, device, budget, before, windows_alone=windows_alone),
        file_digests=file_digests,
        library=choice_of(summary).library,
        windows_alone=windows_alone,
    )


def _check_checkpoint(label: Label, summary: CheckpointSummary, outputs: Sequence[Output]) -> None:
    """Raise CheckpointError or PlanError if a checkpoint does not support the outputs or the windows of a step."""
    summary.require_language(label.language)
    if len(label.languages) > 1 and not summary.writes_text:
        raise PlanError(
            f"{label.checkpoint}: outputs have the languages {', '.join(map(repr, label.languages))}, and they share "
            "one forward pass of the model, which has the adapter of one: run a pipeline for each language"
        )
    for output in outputs:
        output.check(summary)
        if output.needs and not {*output.needs} & {*summary.gives}:
            from raysp.specs.outputs.table import outputs_for

            raise CheckpointError(
                f"{label.checkpoint}: {summary.architecture} does not support {type(output).__name__}; it supports "
                f"{', '.join(outputs_for(summary))}: name one of those in outputs"
            )
    if label.windows == "speech":
        label.speech.check(summary)
        for output in outputs:
            output.check_gaps(summary)
    most = summary.max_samples
    if most is not None and label.window_seconds * summary.sample_rate > most:
        seconds = most / summary.sample_rate
        raise PlanError(
            f"{label.checkpoint}: window_seconds={label.window_seconds:g}, and {summary.architecture} takes at most "
            f"{seconds:g} s; set window_seconds={seconds:g} or less"
        )
    try:
        windowing(summary, label)
    except ValueError as error:
        raise PlanError(f"{label.checkpoint}: {error}. Raise window_seconds") from None


def _check_dtype(label: Label, dtype: str, device: str) -> None:
    """Raise PlanError if a device or backend has no products of a dtype."""
    if dtype == "tf32" and kind_of(device) != "cuda":  # labels would be those of float32
        raise PlanError(
            f"{label.checkpoint}: dtype='tf32' on the device {device!r}, expected the device 'cuda': only NVIDIA "
            "GPUs support TF32. Set dtype='float32'"
        )
    if dtype in EIGHT_BITS and label.backend != CTRANSLATE2:
        raise PlanError(
            f"{label.checkpoint}: dtype={dtype!r} with backend={label.backend!r}, expected backend='ctranslate2', "
            "which has products of eight-bit numbers. Set dtype='auto'"
        )


def piece_size(pipeline: Pipeline, resources: Resources, before: Resolved | None = None) -> PieceSize:
    """Return the size of the pieces of new shards; arguments are those of `resolve_settings`."""
    label = pipeline.label
    device, _ = _placement(label, resources, before)
    return PieceSize(PIECE_SECONDS if is_accelerator(device) else CPU_PIECE_SECONDS, PIECES_AN_ACTOR * label.pool.high)


def _check_columns(pipeline: Pipeline, passes: Sequence[Pass]) -> None:
    """Raise PlanError if a filter or output cannot read the columns of outputs of `Label` steps before it."""
    number = 0
    for index, step in enumerate(pipeline.steps):
        where = f"steps[{index}] {type(step).__name__}"
        with about(step.checkpoint if isinstance(step, Label) else where, PlanError, ValueError):
            if isinstance(step, Label):
                schema = output_schema(*passes[:number]) if number else added_schema(pipeline)
                for output in (output for output in step.outputs if output.reads):
                    if {*output.reads} <= {*schema.names}:
                        output.check_reads(schema)
                number += 1
            elif number:
                step.check(output_schema(*passes[:number]))


def _fingerprint_seconds(
    label: Label, dtype: str, device: str, budget: float, before: Resolved | None, *, windows_alone: bool
) -> float | None:
    """Return the budget if labels may depend on it, on this device or on the sink's first one; otherwise None."""
    began = before.device if before and before.device else device
    of_device = partial(batching, dtype=dtype, windows_alone=windows_alone)
    depends = {place: of_device(device=place) is Batching.RECORDED for place in (began, device)}
    if depends[began] and before and before.batch_seconds:
        return label.batch_seconds or before.batch_seconds
    return budget if any(depends.values()) else None


def _memory_of_actor(label: Label, resources: Resources, cpus: int, gpus: float) -> float | None:
    """Return the bytes of each actor: of its GPU, as reserved, or its share of memory among all actors and a reader."""
    if gpus:
        return None if resources.gpu_memory is None else resources.gpu_memory * min(gpus, 1)
    if label.pool.memory or resources.memory is None:
        return label.pool.memory
    most = actors_that_fit(resources, cpus, gpus)
    return resources.memory / (label.pool.high + 1 if most is None else max(1, min(label.pool.high, most)) + 1)


def windowing(summary: CheckpointSummary, label: Label) -> Windowing:
    """Return the settings by which rows are cut into windows for a checkpoint.

    Raises:
        ValueError: a window would not hold a frame of the model.
    """
    return windowing_of(summary, window_seconds=label.window_seconds, overlap_seconds=label.overlap_seconds)


def _placement(label: Label, resources: Resources, before: Resolved | None) -> tuple[str, float]:
    """Return the device of an actor, and its number of GPUs."""
    device, gpus = label.device, label.pool.gpus
    if device == "auto" and gpus is None and before and before.device:
        device = before.device
    elif device == "auto":
        device = "cuda" if (resources.gpus if gpus is None else gpus) else "cpu"
    if gpus is None:
        gpus = 1 if device == "cuda" else 0  # Ray counts GPUs of "cuda" alone
    return device, gpus


def _check_pool(label: Label, resources: Resources, cpus: int, gpus: float, before: Resolved | None) -> None:
    """Raise if the pool cannot run; on a cluster only if it contradicts itself, because more nodes may come up."""
    pool = label.pool
    requested = f"pool: {count(pool.low, 'actor')} of {count(gpus, 'GPU')}, device={label.device!r}"
    if label.device == "cuda" and gpus == 0:
        raise PlanError(f"{requested}: a model on a GPU needs pool.gpus above 0; set it, or device='cpu'")
    if resources.can_grow or not shortage_of(1, resources, cpus, gpus):
        return
    if gpus > resources.gpus:
        recorded = before is not None and before.device == "cuda" and label.device == "auto" and pool.gpus is None
        why = ", as the labels of this sink were made on GPUs" if recorded else ""
        raise PlanError(
            f"{requested}{why}; found {count(resources.gpus, 'GPU')}, and this machine has no more. Use the "
            "--address of a cluster with GPUs, lower pool.gpus, or set device='cpu'"
        )
    raise PlanError(
        f"pool: one actor of {count(cpus, 'CPU')} leaves no CPU of {resources.cpus:g} for decoding; lower pool.cpus"
    )


LABEL_VERSION = 9
"""Version of labels, increased with every change of raysp that changes a label.

Since 9 `signal` has more fields, and rows whose last window is too short are labelled.
"""
HALF_LABEL_VERSION = 13
"""Version of labels in half precision, increased with each change of these."""


def label_parts(pipeline: Pipeline, settings: Iterable[Settings], code: UserCode | None = None) -> dict[str, JsonValue]:
    """Return everything that can change a label, by the dotted names used in reports of differences.

    Args:
        pipeline: the pipeline.
        settings: settings of each `Label` step.
        code: code of functions and specs from outside raysp; None: the current code.
    """
    code = read_code(pipeline) if code is None else code
    of_labels = iter(settings)
    version = LABEL_VERSION
    parts: dict[str, JsonValue] = {"source.id": pipeline.source.id, "source.audio": pipeline.source.audio}
    for index, step in enumerate(pipeline.steps):
        fields = step.label_fields({})
        if isinstance(step, Label):
            resolved = next(of_labels)
            if resolved.dtype in ("bfloat16", "float16"):
                version = HALF_LABEL_VERSION
            for unimportant in ("checkpoint", "pool", "batch_seconds", "device"):
                del fields[unimportant]
            fields["outputs"] = [output.label_fields(resolved.file_digests) for output in step.outputs]
            fields |= {"checkpoint_digest": resolved.checkpoint_digest, "dtype": resolved.dtype}
            if step.backend in (None, "torch"):
                del fields["backend"]  # as in sinks made before there was a choice
            if resolved.library and resolved.checkpoint.backend not in NAMED:
                fields["package"] = resolved.library
            if step.windows == "speech":
                fields["windows_by"] = step.speech.label_fields(resolved.file_digests)
            if resolved.windows_alone:
                fields["windows_alone"] = True
            if resolved.fingerprint_seconds is not None:
                fields["batch_seconds"] = resolved.fingerprint_seconds
        parts |= {f"steps.{index}.{key}": value for key, value in fields.items()}
    return {"label_version": version, **parts, **code.parts()}


def staged_parts(pipeline: Pipeline, parts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the parts of a pipeline that can change staged results: all up to the last `Label`."""
    steps = pipeline.steps[: -len(pipeline.flow.after[-1])]
    behind = tuple(f"steps.{place}." for place in range(len(steps), len(pipeline.steps)))
    code = read_code(replace(pipeline, steps=steps)).parts()
    return {
        name: value
        for name, value in parts.items()
        if not name.startswith(behind) and (not name.startswith(CODE) or name in code)
    }


def is_surveyed_for(pipeline: Pipeline, record: run_record.RunRecord | None) -> bool:
    """Return whether shards were recorded for the same source and the same columns read by the steps."""
    if record is None:
        return False
    code = {name: value for name, value in record.parts.items() if name.startswith(CODE)}
    return _reading(record.pipeline) == _reading(to_json(pipeline)) and code == read_code(pipeline).parts()


def _reading(pipeline: JsonValue) -> JsonValue:
    """Return the fields of a pipeline that determine the columns read from its source; None for another value."""
    match pipeline:
        case {"source": source, "steps": [*steps], "sink": {"keep": keep}}:
            return [source, keep, [_outputs(step) for step in steps]]
    return None


def _outputs(step: JsonValue) -> JsonValue:
    """Return the outputs of a `Label` step, which alone read columns of the source; another step as it is."""
    return step["outputs"] if isinstance(step, dict) and step.get("type") == Label.__name__ else step
