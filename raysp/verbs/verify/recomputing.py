"""Single rows labelled again, each alone, by the ops themselves: the reference of `verify --sample`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import pyarrow as pa

from raysp.cluster.resources import Resources, count_gpus
from raysp.columns import OK
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import RunError
from raysp.labelling import assembly
from raysp.labelling.planning.run_plan import Pass, Settings, output_schema
from raysp.labelling.planning.settings import label_parts, resolve_settings
from raysp.sink import run_record
from raysp.sink.commit import RESULT_SCHEMA
from raysp.sink.run_record import Resolved, RunRecord
from raysp.sink.sorting import in_order
from raysp.specs.pipeline import Pipeline, fingerprint
from raysp.specs.steps import Decode, Label, Pool
from raysp.words import count


class Recomputing:
    """Callable that labels rows of a sink again, one at a time, without Ray.

    Args:
        pipeline: the recorded pipeline.
        record: record of the sink; the checkpoint must still be the recorded one.

    Raises:
        ChangedError: the checkpoint is not the recorded one.
    """

    def __init__(self, pipeline: Pipeline, record: RunRecord) -> None:
        steps = [
            replace(step, pool=Pool(), dtype="auto") if isinstance(step, Label) else step for step in pipeline.steps
        ]
        pipeline = replace(pipeline, steps=steps)
        recorded = [_Recorded.of(record, place) for place, step in enumerate(steps) if isinstance(step, Label)]
        recorded = recorded or [_Recorded("float32", None)]
        first, *later = (step.resolved for step in recorded)
        here = Resources(cpus=2, gpus=count_gpus(), machine_cpus=1)
        resolved = resolve_settings(pipeline, here, replace(first, later=tuple(later)))
        passes = [
            Pass(planned.pipeline, replace(planned.settings, **by._asdict()))
            for planned, by in zip(resolved, recorded, strict=True)
        ]
        parts = label_parts(pipeline, (planned.settings for planned in passes))
        run_record.check_same(pipeline.sink.url, record, replace(record, fingerprint=fingerprint(parts), parts=parts))
        settings = passes[0].settings
        self.dtype = settings.dtype
        self.columns = [*RESULT_SCHEMA.names, *pipeline.flow.columns]
        self.passes = [_unfiltered(*planned) for planned in passes]
        self.ops = [assembly.labelling(pass_) for pass_ in self.passes]

    def __call__(self, shard: Shard, row: int) -> Mapping[str, object]:
        """Return the label of one row, with the columns of a label shard except copied source columns."""
        label = self._labelled(0, shard, row, {})
        for number in range(1, len(self.passes)):
            of_pass = dict.fromkeys(output_schema(self.passes[number]).names)
            label |= self._labelled(number, shard, row, label) if label["status"] == OK else of_pass
        return {name: label[name] for name in self.columns}

    def _labelled(self, number: int, shard: Shard, row: int, before: Mapping[str, object]) -> dict[str, object]:
        """Return the label that a pass gives to a row; `before` has the columns of earlier ones."""
        pipeline, _ = pass_ = self.passes[number]
        source, piece = pipeline.source, Piece(row, row + 1)
        names = [name for name in assembly.decoded_columns(pipeline, shard) if name not in before]
        table = sources.read_table(shard, piece, names, source.storage_options, audio_root=source.audio_root)
        schema = output_schema(*self.passes[:number]) if number else pa.schema([])
        for name in {*pipeline.label.reads} & {*before}:
            table = table.append_column(schema.field(name), pa.array([before[name]], schema.field(name).type))
        reading = assembly.reading(pass_, shard)
        windows = in_order([self.ops[number](block, shard.name)[0] for block in reading(table, row)])
        rows = assembly.joining(pass_)(windows).to_pylist()
        if len(rows) != 1:
            raise RunError(
                f"{shard.url} row {row}: recomputed alone it became {count(len(rows), 'row')}; this is a bug in raysp: "
                "report it"
            )
        return rows[0]


class _Recorded(NamedTuple):
    """Settings of a `Label` step in the fingerprint of a sink."""

    dtype: str
    fingerprint_seconds: float | None

    @classmethod
    def of(cls, record: RunRecord, place: int) -> "_Recorded":
        """Return the record of the step at a place."""
        dtype, seconds = (record.parts.get(f"steps.{place}.{name}") for name in ("dtype", "batch_seconds"))
        return cls(str(dtype or "float32"), cast("float | None", seconds))

    @property
    def resolved(self) -> Resolved:
        """Resolved settings for a plan: a device without TF32 labels in float32, to compare with TF32."""
        return Resolved("float32" if self.dtype == "tf32" else self.dtype)


def _unfiltered(pipeline: Pipeline, settings: Settings) -> Pass:
    """Return a pass without filters, which choose rows and change no label. A row of any length is one block."""
    if not pipeline.reads_audio:
        return Pass(pipeline, settings)
    steps = [step for step in pipeline.steps if isinstance(step, Decode | Label) or step.columns]
    block_seconds = pipeline.decode.max_seconds
    return Pass(replace(pipeline, steps=steps), replace(settings, block_seconds=block_seconds))


def differing(labelled: Mapping[str, object], alone: Mapping[str, object], *, digits: int = 3) -> str:
    """Describe the first column in which a label differs from the label of the row alone; empty if all agree.

    Texts are compared exactly, numbers to `digits` digits.
    """
    for name, value in alone.items():
        if not _alike(labelled.get(name), value, 10.0**-digits):
            return f"{name} is {_shown(labelled.get(name))}, recomputed alone {_shown(value)}"
    return ""


def _alike(a: object, b: object, tolerance: float) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (a != a and b != b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[key], b[key], tolerance) for key in a)
    if isinstance(a, Sequence) and isinstance(b, Sequence) and not isinstance(a, str | bytes):
        return len(a) == len(b) and all(_alike(x, y, tolerance) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
