"""Assembly of ops from the specs of a pipeline or recipe: decoding, labelling and joining.

Ops take plain arguments and know no pipeline; specs hold no code. Workers of a run and `verify --sample` build their
ops here. Code that needs torch is imported on use: a worker that decodes does not load it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

import raysp.audio as in_process
from raysp.audio.waveforms import Windowing
from raysp.backends.finding import check_library, choice_of
from raysp.checkpoints.contents import OF_VOCABULARY, languages_of
from raysp.checkpoints.packaged import SPEECH
from raysp.columns import OUTCOME, RECORDING_COLUMNS, STATUS
from raysp.corpus import audio_roots, sources
from raysp.corpus.shards import FAULT, Shard
from raysp.errors import PlanError, RunError
from raysp.labelling.planning.planned_checkpoint import (
    check_packaged,
    checkpoint_folder,
    digest_of,
    located_outputs,
    refuse_changed,
)
from raysp.labelling.planning.run_plan import Pass
from raysp.labelling.planning.settings import windowing
from raysp.ops.blocks import BlockOp, windowing_of
from raysp.ops.channels import gather
from raysp.ops.decoding import Decoder, Decoding
from raysp.ops.late_steps import Carrying, Joining, LateFilter, LateSteps, RowFilters
from raysp.ops.step_ops import ColumnOp, Labelled, RowOp
from raysp.sink.sorting import in_order
from raysp.specs.outputs.output import Output
from raysp.specs.pipeline import Pipeline, ReadsCorpus, Shards, added_schema, load_function
from raysp.specs.steps import EACH, Decode, Functions, Step
from raysp.specs.values import Column
from raysp.storage.audio_root import AudioRoot

if TYPE_CHECKING:
    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel
    from raysp.ops.forward import OutputOp
    from raysp.ops.row_languages import RowLanguages
    from raysp.ops.speech.pauses import SpeechWindows

MEASURED_SECONDS = 60.0
"""Seconds of audio that are decoded together while rows are measured or read for training."""
_NO_FUNCTIONS: Functions = MappingProxyType({})


def reading(
    step: Pass, shard: Shard, decoder: Decoder | None = None, functions: Functions = _NO_FUNCTIONS
) -> Callable[[pa.Table, int], Iterator[pa.Table]]:
    """Return the op that makes blocks of the rows of a shard: `decoding`; without audio `RowReading`."""
    pipeline = step.pipeline
    if pipeline.reads_audio:
        return decoding(step, shard, decoder, functions)
    from raysp.ops.row_reading import RowReading

    source, flow = pipeline.source, pipeline.flow
    before = [cast("RowOp", _op(step, functions)) for step in flow.before if step not in flow.late]
    texts = () if source.text is None else (source.text,)
    return RowReading(before, *_late_ops(source, flow.late, functions), texts)


def decoding(
    step: Pass,
    shard: Shard | None,
    decoder: Decoder | None,
    functions: Functions = _NO_FUNCTIONS,
    *,
    cuts_at_pauses: bool = True,
) -> Decoding:
    """Return the op that decodes rows of a shard, filters them, and adds columns.

    Args:
        step: the `Label` step with its settings.
        shard: the shard whose rows are decoded; None: rows of a table, of no shard.
        decoder: decoding functions; None: those of this process.
        functions: functions of steps that cannot be imported.
        cuts_at_pauses: whether the model of speech is loaded if it cuts rows; False for durations from headers.
    """
    pipeline, settings = step
    label, source, flow = pipeline.label, pipeline.source, pipeline.flow
    cut = windowing(settings.checkpoint, label)
    past_seconds = max((output.past_seconds for output in label.outputs), default=0.0)
    return replace(
        _decoding(source, flow.before, flow.late, shard, cut, decoder, functions, label.carried),
        keep_prefix=pipeline.decoding.keep_prefix,
        block_seconds=settings.block_seconds,
        together=label.language_column,
        cut_at_pauses=speech_windows(step) if cuts_at_pauses else None,
        past_samples=round(past_seconds * cut.sample_rate),
    )


def speech_windows(step: Pass) -> "SpeechWindows | None":
    """Return the function that cuts recordings at pauses; None if windows are even. It loads the model of speech.

    Raises:
        CheckpointError: the model is not installed, or is not the planned one.
    """
    label, checkpoint = step.pipeline.label, step.settings.checkpoint
    if label.windows != "speech":
        return None
    check_packaged(SPEECH, step.settings.file_digests)
    from raysp.models.silero_vad import SileroVAD
    from raysp.ops.speech.pauses import SpeechWindows

    speech, rate = label.speech, checkpoint.sample_rate
    return SpeechWindows(
        SileroVAD.from_package(),
        windowing(checkpoint, label),
        min_samples=checkpoint.min_samples,
        grid_samples=max(checkpoint.frame_stride, checkpoint.hidden_stride),
        threshold=speech.threshold,
        min_speech_samples=speech.min_speech_seconds * rate,
        min_silence_samples=speech.min_silence_seconds * rate,
    )


def _decoding(
    source: Shards,
    steps: Sequence[Step],
    late: Sequence[Step],
    shard: Shard | None,
    windowing: Windowing,
    decoder: Decoder | None,
    functions: Functions = _NO_FUNCTIONS,
    outputs: Sequence[str] = (),
) -> Decoding:
    """Return the op of the steps before `Label`; steps of `late` are applied to decoded blocks."""
    decode = next(step for step in steps if isinstance(step, Decode))
    place = steps.index(decode)
    before, after = (
        [cast("RowOp", _op(step, functions)) for step in part if step not in late]
        for part in (steps[:place], steps[place + 1 :])
    )
    carrying, late_steps = _late_ops(source, late, functions, windowing.sample_rate, outputs)
    if shard is not None:
        root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
    else:
        root = AudioRoot(source.audio_root, source.storage_options) if source.audio_root is not None else None
    return Decoding(
        audio=source.audio,
        windowing=windowing,
        channel=decode.channel,
        max_seconds=decode.max_seconds,
        block_seconds=MEASURED_SECONDS,
        before=[*([Labelled()] if source.labels is not None else []), *before],
        after=after,
        carrying=carrying,
        late=late_steps,
        decoder=in_process if decoder is None else decoder,
        root=root,
        excerpt_columns=sources.kind_named(shard.kind).excerpt_columns if shard else (),
        texts=() if source.text is None else (source.text,),
    )


def _late_ops(
    source: Shards, late: Sequence[Step], functions: Functions, rate: int = 0, outputs: Sequence[str] = ()
) -> tuple[Carrying, LateSteps | None]:
    """Return the op of steps that are applied to blocks, None without any, and the columns that blocks carry."""
    reads_all = any(step.reads_all for step in late)
    columns = None if reads_all else tuple(dict.fromkeys(name for step in late for name in step.reads))
    carrying = Carrying(columns, any(source.audio in step.reads for step in late), rate, outputs)
    ops = [late_op(step, functions) for step in late]
    return carrying, LateSteps(ops, audio=source.audio, sample_rate=rate, outputs=outputs) if late else None


def measuring(recipe: ReadsCorpus, checkpoint: "CheckpointSummary", shard: Shard, decoder: Decoder | None) -> Decoding:
    """Return the op whose `measure` gives durations of rows, and which of them the steps of a recipe leave out.

    Args:
        recipe: the recipe.
        checkpoint: description of the checkpoint to begin with.
        shard: the shard.
        decoder: decoding functions; None: those of this process.
    """
    steps = [recipe.decoding if isinstance(step, Decode) else step for step in recipe.steps]
    return _decoding(recipe.source, steps, recipe.flow.late, shard, whole_rows(recipe, checkpoint), decoder)


def training_decoding(
    work: ReadsCorpus, windowing: Windowing, shard: Shard, *, decoder: Decoder | None = None
) -> Decoding:
    """Return the op that decodes rows for training or evaluation, and leaves out no row by its columns.

    Args:
        work: the recipe or evaluation.
        windowing: division of rows into windows: `whole_rows`, or as for labels.
        shard: the shard.
        decoder: decoding functions; None: those of this process.
    """
    return _decoding(work.source, [work.decoding], (), shard, windowing, decoder)


def whole_rows(work: ReadsCorpus, checkpoint: "CheckpointSummary") -> Windowing:
    """Return the division of rows into windows of which the longest row fills one.

    Raises:
        PlanError: the longest row is too short for the model.
    """
    longest = work.decoding.max_seconds
    try:
        return windowing_of(checkpoint, window_seconds=longest, overlap_seconds=0)
    except ValueError:
        raise PlanError(
            f"found max_seconds={longest:g}: rows of that length are too short for the model; raise max_seconds"
        ) from None


def decoded_columns(work: ReadsCorpus, shard: Shard) -> list[str]:
    """Return the columns of a shard that its reading op takes: the audio, texts, and columns of other steps.

    Without audio they are the durations and outcomes that the source has, in its place.
    """
    source = work.source
    if work.flow.reads_audio:
        columns = {source.audio, *sources.kind_named(shard.kind).excerpt_columns, *work.flow.reads}
    else:
        from raysp.ops.row_reading import DURATIONS

        there = sources.column_names(shard, source.storage_options)
        columns = {*work.flow.reads, *({*DURATIONS, *OUTCOME} & {*there})}
    if source.labels is not None:
        columns.add(STATUS)
    if source.text is not None and source.text in work.kept:
        columns.add(source.text)
    if sources.kind_named(shard.kind).has_faults and (values := {*work.kept, *work.flow.reads} - {source.audio}):
        columns |= {FAULT, *values}
    if any(step.reads_all for step in work.flow.before):
        columns |= {*sources.column_names(shard, source.storage_options)}
    return sorted(columns)


def late_op(step: Step, functions: Functions = _NO_FUNCTIONS) -> ColumnOp | LateFilter:
    """Return the op of a step that adds columns, or filters rows by added ones."""
    op = _op(step, functions)
    reads = None if step.reads_all else step.reads
    return cast("ColumnOp", op) if step.columns else LateFilter(cast("RowOp", op), reads)


def _op(step: Step, functions: Functions) -> RowOp | ColumnOp:
    return step.op({name: functions.get(name) or load_function(name) for name in step.functions})


def labelling(step: Pass, *, threads: int | None = None) -> BlockOp:
    """Load the model of the `Label` step, and return the op that labels blocks with it; without audio it has no model.

    Args:
        step: the `Label` step with its settings.
        threads: torch threads on CPUs; None: those of the calling thread, which are not changed.

    Raises:
        CheckpointError: the checkpoint or a file of an output is missing, or not the planned one.
    """
    pipeline, settings = step
    if not pipeline.reads_audio:
        from raysp.ops.row_reading import WithoutModel

        return WithoutModel(added_schema(pipeline))
    from raysp.ops.labelling import Labelling

    label, folder = pipeline.label, checkpoint_folder(pipeline)
    digest = digest_of(folder, settings.checkpoint.backend, label.language)
    refuse_changed(f"checkpoint {label.checkpoint!r}", digest, settings.checkpoint_digest)
    outputs, _ = located_outputs(pipeline, folder, settings.file_digests)
    check_library(settings.checkpoint, settings.library)
    make: Callable[..., Labelling] = Labelling
    if label.language_column is not None:
        from raysp.ops.row_languages import LabellingByLanguage

        languages = _row_languages(label.language_column, outputs, replace(settings.checkpoint, path=folder))
        make = partial(LabellingByLanguage, languages=languages)
    return make(
        str(folder),
        lambda loaded: [output.op(loaded.summary, loaded) for output in outputs],
        batch_seconds=settings.batch_seconds,
        dtype=settings.dtype,
        device=settings.device,
        backend=choice_of(settings.checkpoint).open(),
        window_seconds=label.window_seconds,
        overlap_seconds=label.overlap_seconds,
        added=added_schema(pipeline),
        reads=label.carried,
        completing=completing_ops(outputs, settings.checkpoint),
        threads=threads,
        windows_alone=settings.windows_alone,
    )


def joining(step: Pass) -> Callable[[pa.Table], pa.Table]:
    """Return the function that makes rows of labelled windows in order; it loads no weights."""
    pipeline, settings = step
    if not pipeline.reads_audio:
        return lambda rows: rows
    checkpoint = replace(settings.checkpoint, path=checkpoint_folder(pipeline))  # planned on another machine
    located, _ = located_outputs(pipeline, checkpoint.path, settings.file_digests)
    outputs = [output.op(checkpoint) for output in located]
    added = added_schema(pipeline)
    completing = completing_ops(located, checkpoint)
    make: Callable[..., Joining] = Joining
    if (column := pipeline.label.language_column) is not None:
        from raysp.ops.row_languages import JoiningByLanguage

        make = partial(JoiningByLanguage, languages=_row_languages(column, located, checkpoint))
    join = partial(join_windows, join=make(outputs, checkpoint.sample_rate, added, completing))
    if pipeline.decode.channel != EACH:
        return join
    names = [name for output in outputs for name in output.schema.names]
    return lambda windows: gather(join(windows), added, names)


def _row_languages(column: str, outputs: Sequence[Output], checkpoint: "CheckpointSummary") -> "RowLanguages":
    """Return the languages that the rows name in a column, with the ops of outputs in each of them."""
    from raysp.ops.row_languages import RowLanguages

    def ops(language: str, without: "Sequence[OutputOp]", loaded: "LabellingModel | None") -> "list[OutputOp]":
        summary = checkpoint if loaded is None else loaded.summary
        return [
            replace(cast("Any", output), language=language).op(summary, loaded)
            if isinstance(output.language, Column)
            else op
            for output, op in zip(outputs, without, strict=True)
        ]

    of_decoder = checkpoint.languages
    return RowLanguages(column, of_decoder or languages_of(checkpoint.path), "" if of_decoder else OF_VOCABULARY, ops)


def join_windows(windows: pa.Table, join: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Return one row for all windows of each row; only the columns that all rows have then.

    Args:
        windows: labelled windows, all of each row. Rows that are in order stay in order.
        join: joins the windows of longer rows, sorted and complete, to rows.

    Raises:
        RunError: windows of a row are missing or duplicate, or are of several versions of its recording.
    """
    is_whole = np.asarray(windows.column("windows").to_numpy() == 1)  # null becomes NaN
    if is_whole.all():
        return windows
    parts = windows.filter(~is_whole).sort_by([("row", "ascending"), ("window", "ascending")])
    _check_windows(parts)
    rows = join(parts)
    whole = windows.filter(is_whole).select(rows.column_names)
    return in_order([whole, rows]) if whole.num_rows else rows


def _check_windows(windows: pa.Table) -> None:
    row, window = (windows.column(name).to_numpy() for name in ("row", "window"))
    # Null, which numpy shows as NaN, on all but the last window of a row; 0 from here on.
    num_windows = np.nan_to_num(windows.column("windows").to_numpy()).astype(int)
    ends = np.append(row[1:] != row[:-1], True)
    starts = np.insert(ends[:-1], 0, True)
    expected = np.where(starts, 0, np.insert(window[:-1] + 1, 0, 0))
    wrong = (window != expected) | (num_windows != np.where(ends, window + 1, 0))
    if wrong.any():
        raise RunError(f"row {row[wrong.argmax()]} lacks a window or has one twice; this is a bug in raysp: report it")
    recordings = zip(row.tolist(), *(windows.column(name).to_pylist() for name in RECORDING_COLUMNS), strict=True)
    for before, after in pairwise(recordings):
        if before[0] == after[0] and before[2] != after[2]:
            raise RunError(
                f"row {before[0]}: its recording {before[1]!r:.80} was replaced between its windows; run again: its "
                "rows are labelled again"
            )


def completing_ops(outputs: Sequence[Output], checkpoint: "CheckpointSummary") -> list[ColumnOp]:
    """Return the ops that complete outputs of labelled rows."""
    return [op for output in outputs if (op := output.row_op(outputs, checkpoint)) is not None]


def row_filters(pipeline: Pipeline, functions: Functions, number: int, num_rows: int | None = None) -> RowFilters:
    """Return the op that filters labelled rows by the steps after the model `number`.

    With `num_rows`, the rows of the shard, it raises an error if too many of them fail.
    """
    ops = (late_op(step, functions) for step in pipeline.flow.after[number])
    filters = [op for op in ops if isinstance(op, LateFilter)]
    return RowFilters(filters, pipeline.flow.columns, num_rows=num_rows, max_error_rate=pipeline.max_error_rate)
