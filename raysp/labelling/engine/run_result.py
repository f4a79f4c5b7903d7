"""The result of a run, with examples of its error rows."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa

from raysp.columns import OK
from raysp.corpus.shards import Piece, Shard
from raysp.corpus.sources import kind_named
from raysp.errors import RayspError, RunError
from raysp.labelling.engine.job import RowError
from raysp.labelling.finished.first_rows import first_rows
from raysp.labelling.finished.kept_rows import KeptRows
from raysp.labelling.planning.carried import read_columns
from raysp.labelling.planning.listing import count_files
from raysp.sink.receipts import Counted, Counts, WordErrors, json_of
from raysp.specs.pipeline import Pipeline
from raysp.words import Brief, count, duration, listed, run_again

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024 * 1024
"""Largest shard whose ids are read, if its kind stores them among the recordings, as Arrow does."""
COUNTED = (
    *("rows", "errors", "skipped", "audio_seconds", "rtfx"),
    *("padding_efficiency", "wait_share", "word_error_rate"),
)
"""Properties of a result in its JSON."""


@dataclass(frozen=True, repr=False)
class RunResult(Counted, Brief):
    """Result of a run."""

    sink: str
    fingerprint: str
    shards: int
    """Shards of the corpus."""
    shards_committed: int
    """Shards of `shards` committed by this run or before."""
    shards_before: int
    """Shards committed before this run, and not done again."""
    shards_failed: dict[str, str]
    """Shards not committed, with the reasons."""
    counts: Counts
    """Of the rows labelled by this run."""
    wall_seconds: float
    """Seconds from the plan to the last commit, including the start of Ray and the loading of the model."""
    error_examples: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()
    """Label shards whose shard is no longer in the source; they are kept."""
    nothing_labelled: str | None = None
    """Reason why no row was labelled, and a remedy; None if a row was labelled or all rows were filtered out.

    If there was nothing to do: the reason why no row of the sink has a label."""
    kept: tuple[KeptRows, ...] = ()
    """Rows of all label shards of the sink that come into each step that filters, and leave it."""
    word_errors: WordErrors | None = None
    """Word errors of all label shards of the sink, against `source.text`; None if no row has a reference."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Number of files of the source that are neither shards nor recordings, by suffix."""
    shards_unchanged: int = 0
    """Label shards that existed and were not replaced; by a retry, since no row changed."""
    first_shards: tuple[str, ...] = ()
    """First label shards by name that this run wrote with rows that are ok, at most five."""
    table: pa.Table | None = None
    """Label rows of a run over the first rows of a corpus, of which nothing is kept; None: labels are in the sink."""
    storage_options: Mapping[str, object] | None = field(default=None, repr=False)
    """Storage options of the sink, to read its first labels; not in `json`, which has no secrets."""

    @property
    def word_error_rate(self) -> float | None:
        """Word errors divided by reference words; None without references."""
        return self.word_errors.rate if self.word_errors else None

    @property
    def json(self) -> dict[str, object]:
        """Fields and figures of the run, as `raysp run --json` prints them."""
        shown = json_of(replace(self, table=None, storage_options=None), *COUNTED)
        return {name: value for name, value in shown.items() if name not in ("table", "storage_options")}

    @property
    def exit_code(self) -> int:
        """Exit code: 3 if a shard failed or no row was labelled (`nothing_labelled`), else 0."""
        return 3 if self.shards_failed or self.nothing_labelled else 0

    @property
    def committed(self) -> str:
        """Text with the number of committed shards, now and before this run; of a try-out, number of rows."""
        if self.table is not None:
            labelled = self.counts.by_status[OK]
            of = "" if labelled == self.rows else f"{labelled:,} of "
            return f"{of}{count(self.rows, 'row')} labelled, nothing is kept"
        if not self.rows and self.shards_before == self.shards:
            return f"nothing to do, {self.shards:,} of {count(self.shards, 'shard')} committed already"
        before = f", {self.shards_before:,} of them before this run" if self.shards_before else ""
        return f"{self.shards_committed:,} of {count(self.shards, 'shard')} committed{before}"

    @property
    def facts(self) -> dict[str, str]:
        """Facts of the run for users, as text by name."""
        efficiency, waited = self.padding_efficiency, self.wait_share or 0.0
        failed = [f"{name}: {reason}" for name, reason in self.shards_failed.items()]
        facts = {
            "labels": f"{self.sink}: {self.committed}",
            "this run": f"{count(self.rows, 'row')}, {duration(self.audio_seconds)} of audio in "
            f"{self.wall_seconds:.1f} s: RTFx {self.rtfx:,.1f}"
            if self.rows
            else "",
            "model": f"padding efficiency {efficiency:.1%}, waited for input {waited:.1%} of its time"
            if efficiency is not None
            else "",
            "failed": listed(failed, 1),
            "skipped rows": _numbers(self.skipped),
            "kept": "; ".join(step.sentence for step in self.kept),
            "error rows": _numbers(self.errors),
            "source": count_files(self.passed_over, " ignored") if self.passed_over else "",
            "word errors": self.word_errors.sentence if self.word_errors else "",
            "nothing labelled": self.nothing_labelled,
        }
        return {name: fact for name, fact in facts.items() if fact}

    def head(self, rows: int = 5) -> pa.Table:
        """Return the first rows of this run that are ok; if it committed no shard, those of the sink.

        Of a run over the first rows of a corpus these are the first of `table`. The table is empty if there are none.

        Raises:
            PlanError: the sink holds no label shard and no record of a run.
            StoreError: the sink cannot be read.
        """
        if self.table is not None:
            return self.table.slice(0, rows)
        is_new = self.shards_committed > self.shards_before + self.shards_unchanged
        names = self.first_shards if is_new else None
        return first_rows(self.sink, rows, self.storage_options, names=names)


def _numbers(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))


def refuse_no_commit(result: RunResult) -> None:
    """Raise if shards failed and no shard is committed.

    Raises:
        RunError: no shard was committed; with the reason of the first one.
    """
    failed = result.shards_failed
    if result.shards_committed or not failed:
        return
    name, reason = next(iter(failed.items()))
    more = f" (and {count(len(failed) - 1, 'more shard')})" if len(failed) > 1 else ""
    raise RunError(run_again(f"{result.sink}: no shard was committed: {name}: {reason}{more}"))


def describe(examples: Iterable[RowError], shards: Iterable[Shard], pipeline: Pipeline) -> tuple[str, ...]:
    """Describe error rows by shard, row, id and reason.

    Args:
        examples: error rows of a run.
        shards: shards of the run.
        pipeline: pipeline of the run, for the id column and storage options.
    """
    examples = list(examples)
    names = {example.shard for example in examples}  # of few shards, whatever the size of the corpus
    by_name = {shard.name: shard for shard in shards if shard.name in names}
    return tuple(
        f"{shard} row {row}{_id_of(by_name.get(shard), row, pipeline)}: {kind}: {message}"
        for shard, row, kind, message in examples
    )


def _id_of(shard: Shard | None, row: int, pipeline: Pipeline) -> str:
    """Return the id of a row in parentheses; empty if it has none or it cannot be read."""
    column = pipeline.source.id
    if shard is None or column is None:  # None: ids are <shard>:<row>
        return ""
    if not kind_named(shard.kind).reads_columns_alone and shard.num_bytes > MOST_BYTES:
        return ""
    try:
        ids = read_columns(pipeline.source, shard, Piece(row, row + 1), [column]).column(column)
        value = ids[0].as_py() if len(ids) else None
    except (RayspError, OSError, ValueError) as error:
        logger.debug("%s row %d: its id cannot be read: %s", shard.name, row, error)
        return ""
    return "" if value is None else f" ({f'{column} {value!r}':.200})"
