"""Look into finished label shards: the first rows, and how texts compare with their references."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raysp.errors import PlanError
from raysp.io.store import Store, open_store


@dataclass(frozen=True)
class WordErrors:
    """Word errors against references."""

    rows: int
    """Labelled rows that have a reference."""
    words: int
    """Of the references."""
    errors: int
    """Substitutions, deletions and insertions."""

    @property
    def rate(self) -> float:
        """Divide errors by words."""
        return self.errors / self.words if self.words else 0.0


def first_rows(url: str, num_rows: int, storage_options: Mapping[str, object] | None = None) -> pa.Table:
    """Read the first rows of a sink.

    Raises:
        PlanError: there is no label shard.
    """
    store = open_store(url, storage_options)
    tables: list[pa.Table] = []
    for name in _label_shards(store):
        missing = num_rows - sum(table.num_rows for table in tables)
        if missing <= 0:
            break
        with store.open(name) as file:
            batch = next(pq.ParquetFile(file).iter_batches(missing), None)
        if batch is not None:
            tables.append(pa.Table.from_batches([batch]))
    if not tables:
        raise PlanError(f"{url}: found no label shard; is this the sink of a run?")
    return _readable(pa.concat_tables(tables, promote_options="permissive"))


def _readable(table: pa.Table) -> pa.Table:
    """Replace what is no UTF-8, which label shards carry over as it is but Python has no text for."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            raw = table.column(index).cast(pa.large_binary()).to_pylist()
            texts = [None if one is None else one.decode(errors="replace") for one in raw]
            table = table.set_column(index, field, pa.chunked_array([pa.array(texts, field.type)]))
    return table


def word_error_rate(
    url: str, reference: str, hypothesis: str, storage_options: Mapping[str, object] | None = None
) -> WordErrors:
    """Compare two text columns of all label shards, letter case and punctuation aside."""
    import jiwer

    rows = words = errors = 0
    store = open_store(url, storage_options)
    for name in _label_shards(store):
        with store.open(name) as file:
            for batch in pq.ParquetFile(file).iter_batches(10_000, columns=[reference, hypothesis]):
                pairs = [
                    (_plain_words(r), _plain_words(h))
                    for r, h in zip(*(batch.column(c).to_pylist() for c in (reference, hypothesis)), strict=True)
                    if r is not None and h is not None
                ]
                pairs = [(r, h) for r, h in pairs if r]
                if not pairs:
                    continue
                found = jiwer.process_words([r for r, _ in pairs], [h for _, h in pairs])
                rows += len(pairs)
                words += found.hits + found.substitutions + found.deletions
                errors += found.substitutions + found.deletions + found.insertions
    return WordErrors(rows, words, errors)


def _plain_words(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s']", " ", text.casefold()).split())


def _label_shards(store: Store) -> Iterator[str]:
    for entry in store.list():
        if not entry.path.startswith(".") and entry.path.endswith(".parquet"):
            yield entry.path
