"""Single rows labelled again, each alone, by the ops themselves: the reference of `verify --sample`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import cast

import pyarrow as pa

from raysp.cluster.cards import Card
from raysp.cluster.resources import Resources, count_gpus
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import RunError
from raysp.labelling import assembly
from raysp.labelling.joined_rows import join_windows
from raysp.labelling.planning.fingerprints import hash_pipeline
from raysp.labelling.planning.settling import settle
from raysp.sink import run_record
from raysp.sink.commit import RESULT_SCHEMA
from raysp.sink.run_record import Resolved, RunEntry, RunRecord
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import Decode, Label, Pool
from raysp.specs.values import JsonValue
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
            replace(step, pool=Pool(), dtype="auto") if step is pipeline.label else step for step in pipeline.steps
        ]
        pipeline = replace(pipeline, steps=steps)
        dtype = str(_part(record, ".dtype") or "float32")
        packed_on = cast("str | None", _part(record, ".packed_on"))
        # A device without TF32 labels in float32, to whose labels those of TF32 are compared.
        before = Resolved("float32" if dtype == "tf32" else dtype, in_packs=packed_on is not None)
        settings = replace(
            settle(pipeline, Resources(cpus=2, gpus=count_gpus(), machine_cpus=1), before),
            dtype=dtype,
            fingerprint_seconds=cast("float | None", _part(record, ".batch_seconds")),
            packed_on=packed_on,
        )
        parts, fingerprint, _ = hash_pipeline(pipeline, settings)
        run_record.check_same(
            pipeline.sink.url, record, fingerprint=fingerprint, parts=parts, file_parts=record.file_parts
        )
        self.dtype = dtype
        self.card = settings.cards[0].card if settings.packs and settings.packs.is_on else None
        """Card on which rows are labelled in packs; None: labels of the sink may have other last bits."""
        self.columns = [*RESULT_SCHEMA.names, *pipeline.columns]
        # Without filters, which choose rows and change no label. A row of any length is one block.
        unfiltered = [step for step in steps if isinstance(step, Decode | Label) or step.columns]
        self.pipeline = replace(pipeline, steps=unfiltered)
        self.settings = replace(settings, block_seconds=pipeline.decode.max_seconds)
        self.op = assembly.labelling(self.pipeline, self.settings)
        self.join = assembly.joining(self.pipeline, self.settings)

    def __call__(self, shard: Shard, row: int) -> Mapping[str, object]:
        """Return the label of one row, with the columns of a label shard except those carried over."""
        decoding = assembly.decoding(self.pipeline, self.settings, shard)
        columns = assembly.decoded_columns(self.pipeline, shard)
        source, piece = self.pipeline.source, Piece(row, row + 1)
        table = sources.read_table(shard, piece, columns, source.storage_options, audio_root=source.audio_root)
        windows = pa.concat_tables([self.op(block, shard.name)[0] for block in decoding(table, row)])
        rows = join_windows(windows, self.join).to_pylist()
        if len(rows) != 1:
            raise RunError(
                f"{shard.url} row {row}: recomputed alone it became {count(len(rows), 'row')}; this is a bug in raysp: "
                "report it"
            )
        return {name: rows[0][name] for name in self.columns}


def _part(record: RunRecord, name: str) -> JsonValue:
    """Return the part of a fingerprint whose name ends with `name`; None: the fingerprint lacks it."""
    return next((value for key, value in record.parts.items() if key.endswith(name)), None)


def cards_of(runs: Sequence[RunEntry]) -> set[Card | None]:
    """Return the kinds of cards of runs; None is among them if a card of a run is not known."""
    recorded = (run.resolved.get("cards") or [None] for run in runs)
    return {_card(one) for found in recorded for one in (found if isinstance(found, list) else [None])}


def _card(recorded: JsonValue) -> Card | None:
    """Return a card as a run recorded it; None: not known."""
    found = [recorded.get(field.name) for field in fields(Card)] if isinstance(recorded, dict) else []
    texts = [one for one in found if one is None or isinstance(one, str)]
    return Card(*texts) if found and len(texts) == len(found) else None  # type: ignore[arg-type]


def differing(labelled: Mapping[str, object], alone: Mapping[str, object], *, digits: int = 3) -> str:
    """Return a text on the first column in which a label differs from that of the row alone; empty if all agree.

    Texts are compared exactly, numbers to `digits` digits.
    """
    for name, value in alone.items():
        if not _alike(labelled.get(name), value, 10.0**-digits):
            return f"{name} is {_shown(labelled.get(name))}, recomputed alone {_shown(value)}"
    return ""


def _alike(one: object, other: object, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) or (one != one and other != other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[key], other[key], tolerance) for key in one)
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str | bytes):
        return len(one) == len(other) and all(_alike(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
