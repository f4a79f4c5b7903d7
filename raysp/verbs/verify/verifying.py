"""Verification of a sink: every row once, in its place, and made by the recorded pipeline from the recorded input.

Label shards are read completely and checked against the plan, the source and themselves; nothing is written.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, cast
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK
from raysp.corpus.shards import Shard, place_of
from raysp.corpus.sources import cast_column, kind_named
from raysp.errors import ChangedError, PlanError, ShardError, refuse_unused
from raysp.labelling.planning.carried import read_source_columns
from raysp.labelling.planning.trust import Recorded, check_same_source, read_recorded
from raysp.ops.blocks import AGREED_RATE, DIGITS, ROUNDED, most_unequal
from raysp.sink import footer, run_record
from raysp.sink.footer import shown
from raysp.sink.label_rows import Cursor, DamagedLabelsError, read_labels, read_rest, side_by_side
from raysp.sink.orphans import find_orphans
from raysp.sink.receipts import ShardReceipt, Tally
from raysp.sink.recording_versions import replaced_since_labelled
from raysp.specs.pipeline import Pipeline
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.storage.options import GivenOptions
from raysp.verbs.verify.recomputing import Recomputing, differing
from raysp.words import Brief, count, label_again
from raysp.work import SinkRequest

SHARDS_AT_ONCE = 4

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Verification(Brief):
    """Result of a verification; `dataclasses.asdict` converts it for JSON."""

    sink: str
    shards: int
    """Planned shards, and shards that the last plan could not read."""
    rows: int
    """Rows in label shards, and next to them if label shards hold only ok rows."""
    sampled: int
    """Rows that were labelled again, each alone."""
    sampled_equal: int
    """Sampled rows that got the same label again."""
    duplicate_ids: int
    """Rows whose id an earlier row has as well: allowed, because rows are identified by their place."""
    sources_missing: tuple[str, ...]
    """Shards that no longer exist, whose ids could not be compared; of others the number of missing recordings."""
    orphans: tuple[str, ...]
    """Files of killed runs that `raysp gc` removes; during a run also files in use."""
    differences: tuple[str, ...]
    """Deviations from the expected state, one per line."""
    unused: tuple[str, ...] = ()
    """Untrusted values of the sink, because of which the source was not compared (`raysp.labelling.planning.trust`)."""

    @property
    def exit_code(self) -> int:
        """1 if there is a difference, else 0."""
        return 1 if self.differences else 0


@dataclass
class _Checked:
    """Findings in one label shard."""

    differences: list[str] = field(default_factory=list)
    rows: int = 0
    missing: list[str] = field(default_factory=list)
    """The shard if it no longer exists, or the number of its missing recordings."""
    ids: list[Ints] = field(default_factory=list)
    """Hashes of the ids."""
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    """Types of the columns."""
    chosen: list[tuple[float, Shard, int, Mapping[str, object]]] = field(default_factory=list)
    """Ok rows that may be sampled: random number, shard, row, label."""


def verify(
    sink: str,
    storage_options: GivenOptions | None = None,
    *,
    sample: int = 0,
    seed: int = 0,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Verification:
    """Check a sink: every label shard exists, is complete and in order, and matches the plan.

    Args:
        sink: url of the sink.
        storage_options: options to reach it; None: options of `pipeline`, or with `trust` the recorded ones.
        sample: number of ok rows to label again, each alone and without Ray, and to compare. In float32, texts are
            compared exactly and numbers to three digits; in half precision the share of equal rows is checked
            (`ops.precision`).
        seed: seed for the choice of these rows.
        pipeline: pipeline that made the labels. Without it and `trust`, the source is not compared, and `unused` lists
            the reasons.
        trust: use the recorded pipeline.

    Raises:
        PlanError: There is no sink at this url. Or `sample` is set, rows were read by path, and the pipeline has no
            `source.audio_root`.
        ChangedError: the pipeline, or for `sample` the checkpoint, is not the recorded one.
        TrustError: `sample` is set without `pipeline` or `trust`, or shards are outside the pipeline's source.
    """
    if not sample:
        refuse_unused({"seed": seed or None}, "it chooses the rows of sample=, and there is none; leave it out")
    recorded = read_recorded(SinkRequest(sink, storage_options, pipeline, trust))
    record, store = recorded.record, recorded.sink.store
    shards = [*recorded.sink.shards().values()]
    outside = recorded.outside(shards)
    if sample:
        recorded.trusted_pipeline(shards)
    if recorded.pipeline:
        check_same_source(store.url, record, recorded.pipeline)
        if sample and run_record.names_audio_root(record.pipeline) and recorded.pipeline.source.audio_root is None:
            raise PlanError(
                f"{store.url}: some of its rows were read by path, and the pipeline has no source.audio_root, so "
                "they cannot be labelled again; add --set source.audio_root=DIR"
            )
    differences: list[str] = []
    missing: list[str] = []
    ids: list[Ints] = []
    chosen: list[tuple[float, Shard, int, Mapping[str, object]]] = []
    rows = 0
    types: dict[str, tuple[pa.DataType, str]] = {}
    check = _Check(recorded, frozenset(outside), sample, seed)
    for shard, checked in zip(shards, _at_once(check, shards), strict=True):
        differences += [f"{shard.name}: {difference}" for difference in checked.differences]
        missing += checked.missing
        rows += checked.rows
        for name, kind in checked.types.items():
            first, there = types.setdefault(name, (kind, shard.name))
            if first != kind:
                differences.append(
                    f"{shard.name}: column {name} is {kind}, in {there} it is {first}, so readers cannot read both; "
                    "use another sink"
                )
        ids += checked.ids
        chosen = sorted([*chosen, *checked.chosen], key=itemgetter(0))[:sample]
    absent = recorded.sink.absent()
    differences += [f"{shard.name}: not labelled: {shard.reason}" for shard in absent]
    names = {*(shard.name for shard in shards), *(shard.name for shard in absent)}
    unplanned = [path for path in recorded.sink.label_shards() if path not in names]
    differences += [f"{path}: readers see this file, but it is not in the sink's plan" for path in unplanned]
    unequal: list[str] = []
    if chosen:
        alone = Recomputing(recorded.trusted_pipeline(shards), record)
        for _, shard, row, label in chosen:
            if difference := differing(label, alone(shard, row), digits=DIGITS[alone.dtype]):
                unequal.append(f"{shard.name}: row {row}: {difference}")
        differences += beyond_agreement(unequal, len(chosen), alone.dtype)
    hashes = np.concatenate([np.empty(0, np.int64), *ids])
    return Verification(
        sink=store.url,
        shards=len(names),
        rows=rows,
        sampled=len(chosen),
        sampled_equal=len(chosen) - len(unequal),
        duplicate_ids=len(hashes) - len(np.unique(hashes)),
        sources_missing=tuple(missing),
        orphans=tuple(orphan.path for orphan in find_orphans(store)),
        differences=tuple(differences),
        unused=recorded.unused(shards),
    )


def beyond_agreement(unequal: Sequence[str], num_rows: int, dtype: str) -> list[str]:
    """Return the differences that unequal rows make: each row in float32; in half precision one, if too many differ."""
    if len(unequal) <= most_unequal(num_rows, dtype):
        return []
    if dtype not in ROUNDED:
        return list(unequal)
    return [
        f"{num_rows - len(unequal)} of {num_rows} sampled rows are equal when labelled again alone "
        f"({1 - len(unequal) / num_rows:.1%}), expected at least {AGREED_RATE:.0%} in {dtype}: {unequal[0]}"
    ]


def _at_once(check: "_Check", shards: Sequence[Shard]) -> Iterator[_Checked]:
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        for start in range(0, len(shards), 16 * SHARDS_AT_ONCE):
            yield from pool.map(check, shards[start : start + 16 * SHARDS_AT_ONCE])


class _Check:
    """Callable that checks a label shard."""

    def __init__(self, recorded: Recorded, outside: frozenset[str], sample: int, seed: int) -> None:
        self.store = recorded.sink.store
        self.pipeline = recorded.pipeline
        self.record = recorded.record
        self.outside = outside
        self.file_id = hash_parts(self.record.file_parts)
        self.only_ok = self.record.file_parts.get("sink.rows") == "ok"
        self.sample = sample
        self.seed = seed

    def __call__(self, shard: Shard) -> _Checked:
        checked = _Checked()
        try:
            if self.store.stat(shard.name) is None:
                checked.differences.append("not committed: there is no label shard; run again")
                return checked
            labels = footer.read_expected(self.store, shard, self.record.fingerprint, self.file_id)
            self._check_rows(shard, labels.receipt, checked)
            if self.pipeline is None or shard.url in self.outside:
                rest = read_rest(self.store, shard, ["id"]) if self.only_ok else ()
                tables = chain(read_labels(self.store, shard, ["id"]), rest)
                checked.ids += [_hashes(table.column("id")) for table in tables]
            elif _is_gone(shard, self.pipeline):
                checked.missing.append(shard.name)
            else:
                self._check_source(shard, self.pipeline, checked)
                self._check_recordings(shard, self.pipeline, checked)
        except ChangedError as error:
            checked.differences.append("; ".join(error.differences))
        except DamagedLabelsError as error:
            checked.differences.append(f"cannot be read: {error}")
        return checked

    def _check_rows(self, shard: Shard, receipt: ShardReceipt, checked: _Checked) -> None:
        """Read all of a label shard."""
        tally, seen = Tally(), np.zeros(shard.num_rows, bool)
        drawn = np.random.default_rng([self.seed, crc32(shard.name.encode())]).random(shard.num_rows)
        for table in read_labels(self.store, shard):
            checked.types = {column.name: column.type for column in table.schema}
            seen[_numbers(table)] = True
            tally.add(table)
            self._check_nulls(table, checked)
            self._choose(shard, table, drawn, checked)
        for table in read_rest(self.store, shard) if self.only_ok else ():
            fresh = table.take(np.flatnonzero(~seen[_numbers(table)]))
            seen[_numbers(fresh)] = True
            tally.add(fresh)
        checked.rows = tally.counts.rows
        if not seen.all():
            lost = np.flatnonzero(~seen)
            checked.differences.append(
                f"missing: {len(lost):,} of {count(shard.num_rows, 'row')}, the first is row {lost[0]}"
            )
        self._check_counts(tally, receipt, checked)

    def _check_nulls(self, table: pa.Table, checked: _Checked) -> None:
        ok = pc.equal(table.column("status"), pa.scalar(OK))
        for name in ("error_type", "error_message"):
            wrong = pc.not_equal(ok, pc.is_null(table.column(name)))
            if pc.any(wrong, min_count=0).as_py():
                row = table.column("row").filter(wrong)[0].as_py()
                checked.differences.append(f"row {row}: {name} must be null exactly where status is ok")

    def _check_counts(self, tally: Tally, receipt: ShardReceipt, checked: _Checked) -> None:
        counts, recorded = tally.counts, receipt.counts
        for name in ("rows", "errors", "skipped"):
            ours, theirs = getattr(counts, name), getattr(recorded, name)
            if ours != theirs:
                checked.differences.append(f"its metadata says {name}={theirs}, found {ours}")
        if not math.isclose(counts.audio_seconds, recorded.audio_seconds, rel_tol=1e-6, abs_tol=1e-6):
            seconds = recorded.audio_seconds
            checked.differences.append(f"its metadata says {seconds} seconds, found {counts.audio_seconds}")

    def _choose(self, shard: Shard, table: pa.Table, drawn: npt.NDArray[np.float64], checked: _Checked) -> None:
        if not self.sample:
            return
        ok = table.filter(pc.equal(table.column("status"), pa.scalar(OK)))
        numbers = drawn[_numbers(ok)]
        best = np.argsort(numbers)[: self.sample]
        labels = ok.take(best).to_pylist()
        fresh = [(float(numbers[i]), shard, int(label["row"]), label) for i, label in zip(best, labels, strict=True)]
        checked.chosen = sorted([*checked.chosen, *fresh], key=itemgetter(0))[: self.sample]

    def _check_source(self, shard: Shard, pipeline: Pipeline, checked: _Checked) -> None:
        """Compare the columns carried over with the source."""
        names = ["id", *pipeline.kept]
        labels = Cursor(read_labels(self.store, shard, ["row", *names]))
        rest = Cursor(read_rest(self.store, shard, ["row", *names]) if self.only_ok else iter(()))
        for piece in shard.pieces:
            labelled = side_by_side(labels.until(piece.end), rest.until(piece.end))
            try:
                source = read_source_columns(pipeline, shard, piece)
            except ShardError as error:
                checked.differences.append(f"its shard: {error}")
                return
            source = source.take(_numbers(labelled) - piece.first)
            checked.ids.append(_hashes(labelled.column("id")))
            for column in names:
                if difference := _differing(labelled, source, column):
                    checked.differences.append(difference)
                    return

    def _check_recordings(self, shard: Shard, pipeline: Pipeline, checked: _Checked) -> None:
        """Compare the files that rows were labelled from with the current files."""
        try:
            replaced = replaced_since_labelled(self.store, pipeline.source, shard)
        except ShardError as error:
            checked.differences.append(f"its shard: {error}")
            return
        if replaced.gone:
            checked.missing.append(f"{shard.name} ({len(replaced.gone)} recordings of its rows)")
        if replaced.rows:
            checked.differences.append(
                f"recordings were replaced after they were labelled: {shown(replaced.rows)}; restore the original "
                f"files, or label the shard again with `{label_again(shard.name)}`"
            )


def _is_gone(shard: Shard, pipeline: Pipeline) -> bool:
    if kind_named(shard.kind).is_folder:
        return False
    store, name = place_of(shard.url, pipeline.source.storage_options)
    return store.stat(name) is None


def _numbers(table: pa.Table) -> Ints:
    return cast("Ints", table.column("row").to_numpy())


def _hashes(ids: "pa.ChunkedArray[Any]") -> Ints:
    """Return 64-bit hashes of ids; only these are kept until all label shards are read."""
    hashes = [_hash(value) for value in ids.to_pylist() if value is not None]
    return np.array(hashes, np.int64)


def _hash(value: object) -> int:
    try:
        return hash(value)
    except TypeError:  # a list, a struct or a map
        return hash(repr(value))


def _differing(labelled: pa.Table, source: pa.Table, column: str) -> str:
    """Describe the first row in which a copied column differs from the source; empty if all agree."""
    ours, theirs = labelled.column(column), source.column(column)
    try:
        theirs = cast_column(theirs, ours.type)
    except pa.ArrowException:
        return f"{column} is {ours.type}, in the source it is {theirs.type}"
    if ours.equals(theirs):
        return ""
    pairs = zip(labelled.column("row").to_pylist(), ours.to_pylist(), theirs.to_pylist(), strict=True)
    # Two NaNs are equal here.
    wrong = ((row, a, b) for row, a, b in pairs if a != b and not (a != a and b != b))
    return next((f"row {row}: {column} is {a!r}, in the source it is {b!r}" for row, a, b in wrong), "")
