"""Indexes that a sink has, as far as the files that their rows name are still the same."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from raysp.corpus import audio_roots
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError
from raysp.specs.pipeline import Shards
from raysp.storage.audio_root import AudioRoot
from raysp.storage.store import Store
from raysp.training.sink import index_record, training_record
from raysp.training.sink.index_record import ShardIndex
from raysp.training.sink.indexed_contents import Compared, compared, paths_of
from raysp.words import count, listed

COMPARED_ROWS = 500_000
"""Rows whose files are looked up together: a folder of many shards is listed once."""
SHOWN_ROWS = 5
"""Rows that a message names."""

Found = Sequence[tuple[Shard, ShardIndex]]


class KnownIndexes:
    """Indexes of the shards of a source in a sink.

    Args:
        store: the sink; None: there is none.
        key: hash of everything besides the shards that affects an index.
        source: the source.
        saves: whether indexes are written.
        name: name of the source in the recipe.
    """

    def __init__(
        self, store: Store | None, key: str, source: Shards, *, saves: bool = True, name: str = "source"
    ) -> None:
        self._store, self._key, self._source = store, key, source
        self._saves, self._name = saves, name
        self._outdated: set[str] = set()

    def of(self, shards: Sequence[Shard]) -> dict[str, ShardIndex]:
        """Return the indexes of shards by name, without missing ones.

        Before a training is recorded, the index of a shard counts as missing if recordings of it were replaced, or if
        one is there that was missing.

        Raises:
            ChangedError: recordings were replaced since the recorded training began.
            StoreError: the sink or the storage of the recordings fails.
        """
        if self._store is None:
            return {}
        absent = {shard.name for shard in index_record.missing(self._store, shards, self._key)}
        present = [shard for shard in shards if shard.name not in absent]
        indexes: dict[str, ShardIndex] = {}
        replaced: dict[str, Compared] = {}
        is_recorded = training_record.is_training(self._store)
        for some in _together(index_record.load_all(self._store, present, self._key)):
            for (shard, index), outcome in zip(some, self._compared(some), strict=True):
                if outcome.replaced or (outcome.has_new and not is_recorded):
                    replaced[shard.name] = outcome
                    continue
                if outcome.current is not None and self._saves:
                    index_record.save(
                        self._store, shard, self._key, index.with_contents(outcome.current), replaces=True
                    )
                indexes[shard.name] = index.with_contents(None)
        if replaced and is_recorded:
            raise self._changed(replaced)
        self._outdated = {*replaced}
        return indexes

    def add(self, shard: Shard, index: ShardIndex) -> ShardIndex:
        """Write the index of a shard that had none, and return it without its contents."""
        if self._store is not None and self._saves:
            index_record.save(self._store, shard, self._key, index, replaces=shard.name in self._outdated)
        return index.with_contents(None)

    def _compared(self, some: Found) -> Iterator[Compared]:
        """Yield the outcome for each shard; the files of all of them are looked up together."""
        roots = [self._root(shard) for shard, _ in some]
        paths: dict[str, set[str]] = {}
        for root, (_, index) in zip(roots, some, strict=True):
            if root is not None and index.contents is not None:
                paths.setdefault(root.url, set()).update(paths_of(index.contents))
        of_url = {root.url: root for root in roots if root is not None}
        versions = {url: of_url[url].contents(names) if names else {} for url, names in paths.items()}
        for root, (_, index) in zip(roots, some, strict=True):
            if root is None or index.contents is None:
                yield Compared((), None)
            else:
                yield compared(index.contents, versions[root.url], root)

    def _root(self, shard: Shard) -> AudioRoot | None:
        return audio_roots.open_audio_root(shard, self._source.audio_root, self._source.storage_options)

    def _changed(self, replaced: Mapping[str, Compared]) -> ChangedError:
        assert self._store is not None
        rows = tuple(f"{name}:{row} ({path!r:.80})" for name, new in replaced.items() for row, path in new.replaced)
        changed = f"{count(len(rows), 'recording')} of {self._name} {'has' if len(rows) == 1 else 'have'}"
        message = (
            f"{self._store.url}: {changed} another content than when this training began: "
            f"{listed(rows, SHOWN_ROWS)}; put the earlier files back, use another sink, or start over with --restart"
        )
        return ChangedError(message, rows)


def _together(indexed: Iterable[tuple[Shard, ShardIndex]]) -> Iterator[Found]:
    some: list[tuple[Shard, ShardIndex]] = []
    rows = 0
    for pair in indexed:
        some.append(pair)
        rows += pair[0].num_rows
        if rows >= COMPARED_ROWS:
            yield some
            some, rows = [], 0
    if some:
        yield some
