"""Record of a training: its recipe, in `.raysp/recipe.json`, and an entry for each run.

The names of the shards that it began with are in `.raysp/shards.json`, so that missing shards can be named.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Self

from raysp import bounds
from raysp.errors import ChangedError, PlanError
from raysp.sink import layout, records
from raysp.sink.layout import RECIPE
from raysp.sink.records import Natural
from raysp.sink.run_record import RunEntry, differences
from raysp.specs.values import JsonValue
from raysp.storage.store import Store
from raysp.words import count, listed

INDEX = f"{layout.HOME}index/"
EXPORT = f"{layout.HOME}export.json"
"""Record of the checkpoint at the root of the sink."""
CORPUS = "corpus"
"""Name, among the parts, of the digests of rows and targets."""
VOCABULARY = "vocabulary_digest"
"""Name, among the parts, of the digest of the vocabulary or classes, which come from the texts."""
RECORDINGS = "recordings"
"""Name, among the parts, of the digest of the content of recordings."""
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class TrainingRecord:
    """Content of recipe.json."""

    created: str
    recipe: JsonValue
    fingerprint: str
    parts: Mapping[str, JsonValue]
    """Everything that can change the weights, by dotted name."""
    epoch: Natural = 0
    """Epoch of the lease in which it began. Records with a lower epoch belong to an earlier training."""

    @classmethod
    def load(cls, store: Store) -> Self | None:
        """Return the record; None if the store is not the sink of a training yet.

        Raises:
            PlanError: it is not a record, or the sink has label shards.
        """
        if not is_training(store):
            if store.stat(layout.RUN) is not None:
                raise PlanError(f"{store.url}: a sink of labels; choose another folder for the checkpoint")
            return None
        return cls._read(store)

    @classmethod
    def existing(cls, store: Store) -> Self:
        """Return the record of a training that must exist.

        Raises:
            PlanError: it is not a record, or there is none.
        """
        if not is_training(store):
            raise PlanError(
                f"{store.url}: not the sink of a training: found no {RECIPE}; give the folder of the trained "
                "checkpoint, or the recipe file"
            )
        return cls._read(store)

    @classmethod
    def _read(cls, store: Store) -> Self:
        try:
            return records.parse(store.read(RECIPE), cls)
        except ValueError as error:
            raise PlanError(
                f"{store.url}/{RECIPE}: not the record of a training ({bounds.plain(error)}); restore it"
            ) from error

    def value(self, path: str) -> JsonValue:
        """Return a value of the recipe by its dotted path; None if there is none."""
        value = self.recipe
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def check_same(
        self,
        store: Store,
        parts: Mapping[str, JsonValue],
        shards: Collection[str] = (),
        unreadable: Mapping[str, str] = _NONE,
    ) -> None:
        """Raise if a training has another recipe, or other rows. Arguments as for `begin`.

        Raises:
            ChangedError: `differences` lists every key with its recorded and its current value.
        """
        if self.parts == parts:
            return
        changed = differences(self.parts, parts)
        if of_shards := _described_change(store, shards, unreadable):
            further = differences(_without_rows(self.parts), _without_rows(parts))
            more = f" Also changed: {'; '.join(further)}; undo that." if further else ""
            raise ChangedError(f"{store.url}: {of_shards}.{more}", changed)
        raise ChangedError(
            f"{store.url}: begun with another recipe or corpus: {'; '.join(changed)}; undo the change, use another "
            "sink, or start over with --restart",
            changed,
        )


def _without_rows(parts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the parts that other shards do not change."""
    return {name: value for name, value in parts.items() if name not in (CORPUS, RECORDINGS, VOCABULARY)}


def is_training(store: Store) -> bool:
    """Return whether a store is the sink of a training."""
    return store.stat(RECIPE) is not None


def begin(
    store: Store,
    run: RunEntry,
    *,
    recipe: JsonValue,
    fingerprint: str,
    parts: Mapping[str, JsonValue],
    epoch: int = 0,
    shards: Collection[str] = (),
    unreadable: Mapping[str, str] = _NONE,
) -> TrainingRecord:
    """Create the record with the first run, or check a later run against it; and add the run's entry.

    Args:
        store: the sink.
        run: the run that begins.
        recipe: the recipe as JSON.
        fingerprint: fingerprint of the recipe.
        parts: everything that can change the weights, by dotted name.
        epoch: epoch of the lease that the run holds.
        shards: names of the shards that are trained on; none: they are not recorded.
        unreadable: shards that cannot be read, with the reasons.

    Raises:
        ChangedError: the recorded training has another recipe, or other rows.
        PlanError: as `TrainingRecord.load`.
        StoreError: the sink cannot be written.
    """
    new = TrainingRecord(run.started, recipe, fingerprint, dict(parts), epoch)
    if (record := TrainingRecord.load(store)) is None:
        if shards:
            # Before the record, so that a training that is recorded has its shards.
            store.create(SHARDS, json.dumps([*shards]).encode())
        store.create(RECIPE, json.dumps(asdict(new), indent=1).encode())
        record = TrainingRecord.load(store) or new
    record.check_same(store, parts, shards, unreadable)
    store.create(layout.run_path(run.run_id), json.dumps(asdict(run)).encode())
    return record


def first_epoch(store: Store) -> int:
    """Return the epoch of the lease in which the recorded training began; 0 without a record that can be read."""
    try:
        return TrainingRecord._read(store).epoch if is_training(store) else 0
    except PlanError:
        return 0


def belongs(store: Store, run_ids: Collection[str]) -> set[str]:
    """Return the runs that belong to the recorded training.

    A run that was suspended while another one restarted the training may write a file when it wakes. Its entry was
    removed by then. Without any entries, as of a sink that another program filled, all runs do.
    """
    entries = {entry.path for entry in store.list(layout.RUNS)}
    return {run_id for run_id in run_ids if not entries or layout.run_path(run_id) in entries}


def remove(store: Store) -> None:
    """Remove a training: first its record, then everything else below `.raysp/` but the lease and the index.

    The exported checkpoint at the root stays, with its record.
    """
    if is_training(store):
        store.delete(RECIPE)
    kept = (layout.LEASE, layout.TMP, INDEX, EXPORT)
    for entry in [*store.list(layout.HOME)]:
        if not entry.path.startswith(kept):
            store.delete(entry.path)


SHARDS = f"{layout.HOME}shards.json"
MOST_NAMES = 5
"""Shards that a message names."""


def _described_change(store: Store, names: Collection[str], unreadable: Mapping[str, str]) -> str:
    """Return a sentence on the shards that are missing or new since the training began, with a remedy.

    It is empty if there are the same shards, and if an earlier version of raysp began the training, which wrote no
    names.

    Args:
        store: the sink.
        names: the shards that can be read now.
        unreadable: existing shards that cannot be read, with the reasons.
    """
    if store.stat(SHARDS) is None:
        return ""
    try:
        begun = dict.fromkeys(records.parse(store.read(SHARDS), list[str]))
    except ValueError as error:
        raise PlanError(
            f"{store.url}/{SHARDS}: not a list of shards ({bounds.plain(error)}); restore or remove it"
        ) from error
    now = {*names}
    missing = [name for name in begun if name not in now]
    new = [name for name in names if name not in begun]
    parts = []
    if missing:
        shown = [f"{name} (cannot be read: {unreadable[name]})" if name in unreadable else name for name in missing]
        parts.append(
            f"{count(len(missing), 'shard')} of the {len(begun):,} with which it began {_is(missing)} missing: "
            f"{listed(shown, MOST_NAMES)}"
        )
    if new:
        parts.append(f"{count(len(new), 'shard')} {_is(new)} new: {listed(new, MOST_NAMES)}")
    if not parts:
        return ""
    remedies = [*["bring the missing ones back"][: len(missing)], *["leave the new ones out"][: len(new)]]
    return (
        f"{'; '.join(parts)}. The training continues over the shards with which it began: {' and '.join(remedies)}, "
        "and run the same command again; nothing is lost. To train on others, use another sink"
    )


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"
