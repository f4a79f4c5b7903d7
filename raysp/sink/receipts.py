"""Receipts: small records of the outcome of pieces and shards, in the logs of runs (`run_log`); and the counts in them.

Receipts feed progress, `status` and reports. The receipt of a shard has the version of its label shard, so that a
listing of the sink shows which shards are committed. Correctness never depends on receipts: if a batch is lost, the
footers of label shards are read instead. Rows are counted by status and type, by the conditions of `Keep` steps, and by
the errors of their words against reference texts, ignoring case and punctuation.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from raysp import bounds
from raysp.columns import ERROR, OK, SKIPPED
from raysp.corpus.shards import Shard
from raysp.errors import RunError
from raysp.ops.rows import FILTERED
from raysp.ops.step_ops import Rule
from raysp.sink import layout, records
from raysp.sink.records import Natural
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import Keep
from raysp.storage.store import Store
from raysp.text.error_rates import count_errors, joined
from raysp.words import count

log = logging.getLogger(__name__)

FAILED = "failed"
"""Event of a run that ended with an error."""
READ_AT_ONCE = 16
"""Batches of receipts that are read at once."""


@dataclass(frozen=True)
class Counts:
    """Counts and times of labelled rows."""

    rows: Natural = 0
    blocks: Natural = 0
    windows: Natural = 0
    """Windows that went through the model."""
    audio_seconds: float = 0.0
    real_samples: Natural = 0
    """Samples that went through the model, without padding."""
    padded_samples: Natural = 0
    """Samples that went through the model, with padding."""
    busy_seconds: float = 0.0
    """Time that models spent labelling."""
    wait_seconds: float = 0.0
    """Time that models were idle between blocks."""
    staged_bytes: Natural = 0
    """Arrow memory of the results, which the commit reads."""
    errors: Mapping[str, Natural] = field(default_factory=dict)
    """Error rows by type."""
    skipped: Mapping[str, Natural] = field(default_factory=dict)
    """Skipped rows by reason."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts.total([self, other])

    @classmethod
    def total(cls, parts: Sequence["Counts"]) -> Self:
        """Return the sum of counts."""
        values: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in _NUMBERS}
        for name in ("errors", "skipped"):
            kinds = Counter[str]()
            for part in parts:
                kinds.update(getattr(part, name))
            values[name] = {kind: number for kind, number in sorted(kinds.items()) if number}
        return cls(**values)

    @property
    def padding_efficiency(self) -> float | None:
        """Share of the computed samples that are not padding; None before the first block."""
        return self.real_samples / self.padded_samples if self.padded_samples else None

    @property
    def wait_share(self) -> float | None:
        """Share of time that models waited for input; None before the first block."""
        total = self.busy_seconds + self.wait_seconds
        return self.wait_seconds / total if total > 0 else None

    @property
    def by_status(self) -> dict[str, int]:
        """Rows by status."""
        errors, skipped = sum(self.errors.values()), sum(self.skipped.values())
        return {OK: self.rows - errors - skipped, SKIPPED: skipped, ERROR: errors}

    @property
    def by_type(self) -> dict[str, int]:
        """Rows by `error_type`, the reasons of skipped rows included; the most frequent first."""
        return dict((Counter(self.errors) + Counter(self.skipped)).most_common())


_NUMBERS = [part.name for part in fields(Counts) if part.name not in ("errors", "skipped")]


def json_of(result: Any, *names: str) -> dict[str, object]:  # noqa: ANN401 - of any class with `counts`
    """Return the fields of a result for JSON, with properties of these names in place of its counts."""
    values = {name: value for name, value in asdict(result).items() if name != "counts"}
    return values | {name: getattr(result, name) for name in names}


class Counted:
    """Figures of a value that holds `Counts`, and the seconds that they took."""

    counts: Counts
    wall_seconds: float

    @property
    def rtfx(self) -> float:
        """Seconds of audio labelled per second of wall-clock time, the start of the run included."""
        return self.audio_seconds / max(self.wall_seconds, 1e-9)

    @property
    def rows(self) -> int:
        """Number of labelled rows."""
        return self.counts.rows

    @property
    def errors(self) -> Mapping[str, int]:
        """Error rows by type."""
        return self.counts.errors

    @property
    def skipped(self) -> Mapping[str, int]:
        """Skipped rows by reason."""
        return self.counts.skipped

    @property
    def audio_seconds(self) -> float:
        """Seconds of labelled audio."""
        return self.counts.audio_seconds

    @property
    def padding_efficiency(self) -> float | None:
        """Share of the computed samples that are not padding; None before the first block."""
        return self.counts.padding_efficiency

    @property
    def wait_share(self) -> float | None:
        """Share of time that models waited for input; None before the first block."""
        return self.counts.wait_share


class TextColumns(NamedTuple):
    """Columns of a label shard to compare."""

    reference: str
    hypothesis: str

    @classmethod
    def of(cls, pipeline: Pipeline) -> "TextColumns | None":
        """Return the columns of the reference and of the first transcript; None if either is missing."""
        reference = pipeline.source.text
        transcript = next((output.text_column for output in pipeline.outputs if output.text_column), None)
        return cls(reference, transcript) if reference and transcript else None


@dataclass
class WordErrors:
    """Counts over rows that have a reference, which may be empty."""

    rows: Natural = 0
    """Labelled rows."""
    unlabelled: Natural = 0
    """Error rows and skipped rows, which are not in the counts of words."""
    skipped: Natural = 0
    """Skipped rows among the unlabelled ones."""
    words: Natural = 0
    """Words in the references of labelled rows."""
    substitutions: Natural = 0
    deletions: Natural = 0
    insertions: Natural = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Word error rate; 0 without reference words."""
        return self.errors / self.words if self.words else 0.0

    def __bool__(self) -> bool:
        """Return whether a row has a reference."""
        return bool(self.rows or self.unlabelled)

    @property
    def sentence(self) -> str:
        """The word error rate, the errors by kind, and the numbers of words and rows compared."""
        unlabelled = f"; {count(self.unlabelled, 'row')} with a reference not labelled" if self.unlabelled else ""
        if not self.rows:
            return f"nothing to compare{unlabelled}"
        rate = f"{self.rate:.2%} of {count(self.words, 'reference word')}" if self.words else "no reference words"
        numbers = {"substitution": self.substitutions, "insertion": self.insertions, "deletion": self.deletions}
        kinds = ", ".join(count(number, noun) for noun, number in numbers.items())
        rows = count(self.rows, "labelled row")
        return f"{rate} in {rows} (ignoring case and punctuation): {kinds}{unlabelled}"

    def __add__(self, other: "WordErrors") -> "WordErrors":
        return WordErrors(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def count(self, table: pa.Table, columns: TextColumns) -> None:
        """Count the rows of a table with a `status` column."""
        references, hypotheses = (texts_of(table.column(name)) for name in columns)
        pairs = []
        for reference, hypothesis, status in zip(
            references, hypotheses, table.column("status").to_pylist(), strict=True
        ):
            if reference is None:
                continue
            if status != OK:
                self.unlabelled += 1
                self.skipped += status == SKIPPED
                continue
            pairs.append((_plain_words(reference), _plain_words(hypothesis or "")))
        self.rows += len(pairs)
        counts = count_errors([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])
        substitutions, insertions, deletions, words = counts.sum(0).tolist()
        self.words += words
        self.substitutions += substitutions
        self.insertions += insertions
        self.deletions += deletions


@dataclass(frozen=True)
class PieceReceipt:
    """Counts of a piece, or of a part of one, that went through a model."""

    shard: str
    first: Natural
    end: Natural
    counts: Counts
    actor: str = ""
    finished: float = 0.0
    """Seconds since the epoch, by the actor's clock."""


@dataclass(frozen=True)
class ShardReceipt:
    """Counts of a committed label shard."""

    shard: str
    counts: Counts
    """Rows of the shard, of which with `rows="ok"` the label shard itself holds only those that are ok; their audio."""
    word_errors: WordErrors = field(default_factory=WordErrors)
    """Without reference texts, or without a comparison, all counts are zero."""
    filtered: Mapping[str, tuple[Natural, float]] = field(default_factory=dict)
    """Rows that conditions of `Keep` steps left out, and seconds of their decoded audio, by the place of each."""
    filtered_behind: Natural = 0
    """Rows that steps after the model left out in this commit; the receipts of their pieces count them as ok."""
    failed_behind: Natural = 0
    """Rows for which such a step failed; the receipts of their pieces count them as ok."""
    examples_behind: tuple[tuple[Natural, str, str], ...] = ()
    """A few of them: row, `error_type` and message."""
    existing: bool = False
    """Whether the shard was committed before, by another run or a concurrent task."""
    version: str = ""
    """Version of the label shard that this commit published; empty if it published none, or the store has none."""
    fingerprint: str = ""
    """Fingerprint of the pipeline."""
    input_id: str = ""
    """Input id of the shard."""
    file_id: str = ""
    """Hash of settings that change the file but no label: the columns carried over and the rows left out."""


@dataclass(frozen=True)
class ShardFailure:
    """Reason why a shard was not committed."""

    shard: str
    reason: str


Receipt = PieceReceipt | ShardReceipt | ShardFailure

KINDS: Mapping[str, type[Receipt]] = {"piece": PieceReceipt, "shard": ShardReceipt, "failure": ShardFailure}
KIND_OF = {cls: kind for kind, cls in KINDS.items()}


def recent_pieces(store: Store, run_id: str, batches: int = 3) -> tuple[list[PieceReceipt], str]:
    """Return the piece receipts of a run's last batches, and the error that ended the run; empty if none did."""
    prefix = layout.log_prefix(run_id)
    paths = sorted(entry.path for entry in store.list(layout.LOG) if entry.path.startswith(prefix))
    pieces, reason = list[PieceReceipt](), ""
    for path in paths[-batches:]:
        data = store.read(path)
        pieces += (receipt for receipt in _parsed(store, path, data, ("piece",)) if isinstance(receipt, PieceReceipt))
        for line in _lines(data, (FAILED,)):
            with suppress(ValueError):
                reason = str(records.parse(line, dict[str, object]).get("reason"))
    return pieces, reason


def load(
    store: Store, kinds: Collection[str] = tuple(KINDS), paths: Sequence[str] | None = None
) -> Iterator[tuple[str, Receipt]]:
    """Yield the ids of runs with their receipts of these kinds, in the order of runs and writing.

    Unreadable receipts are logged and skipped.

    Args:
        store: the sink.
        kinds: keys of `KINDS`.
        paths: the batches to read; None: all, which are listed.
    """
    paths = [entry.path for entry in store.list(layout.LOG)] if paths is None else paths
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for start in range(0, len(paths), READ_AT_ONCE):
            window = paths[start : start + READ_AT_ONCE]
            for path, data in zip(window, pool.map(store.read, window), strict=True):
                yield from ((layout.run_of_log(path), receipt) for receipt in _parsed(store, path, data, kinds))


def _parsed(store: Store, path: str, data: bytes, kinds: Collection[str]) -> Iterator[Receipt]:
    for line in _lines(data, kinds):
        try:
            fields = records.parse(line, dict[str, object])
            fields.pop("time")
            yield records.checked(fields, KINDS[str(fields.pop("kind"))])
        except (ValueError, KeyError) as error:
            log.warning("%s/%s: skipped a receipt that cannot be read (%s)", store.url, path, bounds.plain(error))


def _lines(data: bytes, kinds: Iterable[str]) -> Iterator[bytes]:
    """Return the lines of these kinds, as `run_log` writes them."""
    beginnings = tuple(f'{{"kind": "{kind}"'.encode() for kind in kinds)
    return (line for line in data.splitlines() if line.startswith(beginnings))


_NO_LETTER = re.compile(r"[^\w\s']")


def texts_of(column: "pa.ChunkedArray[Any]") -> Sequence[str | None]:
    """Return the texts of a column; invalid UTF-8, which label shards carry over unchanged, is replaced.

    Numbers are converted to text. Lists and other types have no text.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        # As bytes: `to_pylist` of strings raises at invalid UTF-8.
        raw = (column.cast(pa.large_string()) if is_number else column).cast(pa.large_binary()).to_pylist()
    except pa.ArrowNotImplementedError:
        return [None] * len(column)
    return [None if value is None else value.decode(errors="replace") for value in raw]


def _plain_words(text: str) -> str:
    # NFC last: casefolding can leave letters decomposed.
    text = unicodedata.normalize("NFC", text.casefold()).replace("i\u0307", "i")  # of İ
    return " ".join(_NO_LETTER.sub(_mark_or_space, joined(text)).split())


def _mark_or_space(match: re.Match[str]) -> str:
    """Return a mark on a letter, such as a vowel of Devanagari or Thai; any other character as a space."""
    return match[0] if unicodedata.category(match[0])[0] == "M" else " "


OTHERS = ""
"""Place of the rows that another step leaves out."""

Rules = Mapping[str, Rule]
"""Conditions by their places, such as `steps.0.where.1`, in the order of the steps."""

Filtered = dict[str, tuple[int, float]]
"""Filtered rows, and seconds of their decoded audio, by the place of a condition."""


def rules_of_steps(steps: Sequence[object]) -> Rules:
    """Return the conditions of those steps of a pipeline that are `Keep`."""
    return {
        f"steps.{number}.{rule.place}": rule
        for number, step in enumerate(steps)
        if isinstance(step, Keep)
        for rule in step.rules
    }


def summed(counts: Iterable[tuple[str, tuple[int, float]]]) -> Filtered:
    """Return the sums of rows and seconds by place."""
    sums: Filtered = {}
    for place, (rows, seconds) in counts:
        before = sums.get(place, (0, 0.0))
        sums[place] = before[0] + rows, before[1] + seconds
    return dict(sorted(sums.items()))


@dataclass
class Tally:
    """Counts over the rows added."""

    counts: Counts = field(default_factory=Counts)
    texts: TextColumns | None = None
    word_errors: WordErrors = field(default_factory=WordErrors)
    rules: Rules = field(default_factory=dict)
    filtered: Filtered = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    """Rows by a status that no row has."""

    def add(self, table: pa.Table) -> None:
        """Count a table's rows."""
        seconds = pc.sum(table.column("seconds"), min_count=0).as_py() or 0.0
        reasons: dict[str | None, Counter[str]] = {ERROR: Counter(), SKIPPED: Counter()}
        for status, reason in zip(*(table.column(name).to_pylist() for name in ("status", "error_type")), strict=True):
            if status in reasons:
                reasons[status][reason or ""] += 1
            elif status != OK:
                self.unknown[str(status)] += 1
        self.counts += Counts(table.num_rows, audio_seconds=seconds, errors=reasons[ERROR], skipped=reasons[SKIPPED])
        rows = table.filter(pc.equal(table.column("error_type"), pa.scalar(FILTERED)))
        messages, durations = (rows.column(name).to_pylist() for name in ("error_message", "seconds"))
        new = ((self._place(str(message)), (1, time or 0.0)) for message, time in zip(messages, durations, strict=True))
        self.filtered = summed([*self.filtered.items(), *new])
        if self.texts is not None:
            self.word_errors.count(table, self.texts)

    def _place(self, message: str) -> str:
        """Return the place of the first condition that a filtered row does not meet."""
        overlaps = {place: rule.overlap(message) for place, rule in self.rules.items()}
        place = max(overlaps, key=overlaps.__getitem__, default=OTHERS)
        return place if overlaps.get(place) else OTHERS

    def receipt(self, shard: Shard) -> ShardReceipt:
        """Return the receipt of a shard whose rows were all added.

        Raises:
            RunError: rows are missing or have an unknown status.
        """
        if self.counts.rows != shard.num_rows or self.unknown:
            statuses = {**self.counts.by_status, **self.unknown}
            raise RunError(
                f"shard {shard.name!r}: {self.counts.rows} rows with status {statuses}, expected {shard.num_rows} "
                "rows that are ok, skipped or error; this is a bug in raysp: report it with the plan"
            )
        return ShardReceipt(shard.name, self.counts, word_errors=self.word_errors, filtered=self.filtered)
