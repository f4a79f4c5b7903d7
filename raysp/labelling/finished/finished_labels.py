"""A sink of labels for readers: its finished shards, its columns, and the recorded pipeline."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from raysp.columns import ROW_COLUMNS
from raysp.corpus.shards import Shard
from raysp.errors import PlanError
from raysp.labelling.planning.listing import real_place
from raysp.sink.absent import AbsentShard
from raysp.sink.commit import committed
from raysp.sink.label_rows import read_labels, read_rest
from raysp.sink.receipts import TextColumns
from raysp.sink.run_record import RunRecord, field_of, objects_in
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.storage.store import Store


@dataclass(frozen=True)
class Labelling:
    """A sink of label shards."""

    store: Store
    record: RunRecord
    shards: Mapping[str, Shard]
    """Recorded shards by name."""
    done: frozenset[str]
    """Names of the finished ones."""
    absent: Mapping[str, AbsentShard] = field(default_factory=dict)
    """Shards of the source that the plan lacks, because they could not be read."""
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Recorded shards with a damaged or foreign file in the place of their label shard, with the reason."""

    @classmethod
    def of(cls, sink: Sink, record: RunRecord) -> "Labelling":
        """Read the plan of a sink and which shards are committed."""
        shards, absent = sink.shards(), {missing.name: missing for missing in sink.absent()}
        done, foreign = committed(
            sink.store, shards.values(), record.fingerprint, file_id=hash_parts(record.file_parts)
        )
        return cls(sink.store, record, shards, done, absent, foreign)

    @property
    def url(self) -> str:
        """Url of the folder."""
        return self.store.url

    @property
    def finished_shards(self) -> list[Shard]:
        """Shards that are finished, in the order of the plan."""
        return [shard for name, shard in self.shards.items() if name in self.done]

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Names of the shards that are not finished, in the order of the plan; last those that could not be read."""
        planned = tuple(name for name in self.shards if name not in self.done)
        return (*planned, *(name for name in self.absent if name not in self.shards))

    @property
    def checkpoint(self) -> str | None:
        """Checkpoint that the recorded pipeline names; of a merge all of them."""
        merged = self.record.parts.get("merge.checkpoints")
        if isinstance(merged, list):
            return ", ".join(dict.fromkeys(str(name) for name in merged if name)) or None
        urls = (step.get("checkpoint") for step in self.record.steps)
        return next((url for url in urls if isinstance(url, str)), None)

    @property
    def reference(self) -> str | None:
        """Column of the reference texts that the recorded pipeline names."""
        text = field_of(self.record.pipeline, "source", "text")
        return text if isinstance(text, str) else None

    @property
    def texts(self) -> TextColumns | None:
        """Columns of the references and of the first transcript; None if its finished label shards lack either."""
        is_there = self.reference in self.schema.names
        return TextColumns(str(self.reference), self.transcript) if is_there and self.transcript else None

    @property
    def transcript(self) -> str | None:
        """Column of the first transcript; None if its finished label shards have none."""
        outputs = [output for step in self.record.steps for output in objects_in(step, "outputs")]
        named = [f"{output.get('name')}_text" for output in outputs if output.get("type") == "Transcript"]
        texts = [name for name in self.outputs if name.endswith("_text")]  # of outputs that a user defined
        return next((name for name in (*named, *texts) if name in self.outputs), None)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of its label shards; none if no shard is finished."""
        for shard in self.finished_shards:
            return next(self.tables(shard)).schema
        return pa.schema([])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Columns that its steps added."""
        not_outputs = {*ROW_COLUMNS, self.reference, *self.kept}
        return tuple(name for name in self.schema.names if name not in not_outputs)

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns of the source that the recorded pipeline keeps."""
        keep = field_of(self.record.pipeline, "sink", "keep")
        return tuple(name for name in (keep if isinstance(keep, list) else ()) if isinstance(name, str))

    def tables(self, shard: Shard, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of a label shard in batches, an empty table first.

        Raises:
            ChangedError, StoreError: as `read_labels`.
        """
        return read_labels(self.store, shard, columns)

    def left_out(self, shard: Shard, columns: list[str]) -> Iterator[pa.Table]:
        """Yield the rows that `rows="ok"` left out of a label shard, in batches.

        Raises:
            ChangedError, StoreError: as `read_rest`.
        """
        return read_rest(self.store, shard, columns)


def refuse_overlap(sink: Store, destination: Store) -> None:
    """Raise if one of two folders is in the other.

    Raises:
        PlanError: they overlap; the message has both folders.
    """
    ours, theirs = (real_place(store.url).rstrip("/") for store in (sink, destination))
    if f"{ours}/".startswith(f"{theirs}/") or f"{theirs}/".startswith(f"{ours}/"):
        raise PlanError(
            f"{destination.url}: is in the same folder as the sink {sink.url}, whose readers would see its files; "
            "choose a destination outside"
        )


def identity_of(*parts: object) -> str:
    """Return a hash of values that identify an export: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
