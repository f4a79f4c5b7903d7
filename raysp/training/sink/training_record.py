"""Record of a training, `.raysp/recipe.json`: its recipe, and every run over it.

The names of the shards that it began with are in `.raysp/shards.json`, so that missing shards can be named.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

from raysp import bounds
from raysp.errors import ChangedError, PlanError
from raysp.sink import layout, records
from raysp.sink.layout import RECIPE
from raysp.sink.records import Natural
from raysp.sink.run_record import SCHEMA_VERSION, RunEntry, all_runs, begin_record, differences, read_record
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
    """The recipe of the last run, of which only parts that change no weight may differ from that of the first."""
    fingerprint: str
    parts: Mapping[str, JsonValue]
    """Everything that can change the weights, by dotted name."""
    runs: tuple[RunEntry, ...] = ()
    schema_version: Natural = SCHEMA_VERSION

    @classmethod
    def load(cls, store: Store) -> Self | None:
        """Return the record; None if the store is not the sink of a training yet.

        Raises:
            PlanError: it is not a record, or the sink has label shards.
        """
        refuse_labels(store)
        return read_record(store, RECIPE, cls) if is_training(store) else None

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
        return read_record(store, RECIPE, cls)

    def value(self, path: str) -> JsonValue:
        """Return a value of the recipe by its dotted path; None if there is none."""
        value = self.recipe
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value


def is_training(store: Store) -> bool:
    """Return whether a store is the sink of a training."""
    return store.stat(RECIPE) is not None


def refuse_labels(store: Store) -> None:
    """Raise if a store is a sink of labels.

    Raises:
        PlanError: it is one.
    """
    if not is_training(store) and store.stat(layout.RUN) is not None:
        raise PlanError(f"{store.url}: a sink of labels; choose another folder for the checkpoint")


def begin(
    store: Store,
    made: TrainingRecord,
    *,
    is_new: bool,
    shards: Collection[str] = (),
    unreadable: Mapping[str, str] = _NONE,
) -> TrainingRecord:
    """Create the record with the first run, or check a later run against it and add it.

    Args:
        store: the sink.
        made: record of the run, as if it was the first one.
        is_new: whether there was no record, so that everything else was removed; False: a missing record is an error,
            since a restart that another run has overtaken may have removed it.
        shards: names of the shards that are trained on; none: they are not recorded.
        unreadable: shards that cannot be read, with the reasons.

    Raises:
        ChangedError: the recorded training has another recipe or corpus.
        PlanError: as `TrainingRecord.load`.
        StoreError: the sink cannot be written.
    """
    if shards and is_new:
        # Before the record, so that a training that is recorded has its shards.
        store.create(SHARDS, json.dumps([*shards]).encode())

    def joined(recorded: TrainingRecord) -> TrainingRecord:
        if recorded.parts != made.parts:
            raise _changed(store, recorded.parts, made.parts, _described_shards(store, shards, unreadable))
        return replace(recorded, recipe=made.recipe, runs=all_runs(recorded, made))

    return begin_record(store, RECIPE, made, joined, creates=is_new)


def runs(store: Store) -> tuple[RunEntry, ...]:
    """Return the runs of the recorded training; none without a record that can be read."""
    try:
        return read_record(store, RECIPE, TrainingRecord).runs if is_training(store) else ()
    except PlanError:
        return ()


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


def _changed(
    store: Store, recorded: Mapping[str, JsonValue], parts: Mapping[str, JsonValue], of_shards: str
) -> ChangedError:
    """Return the error for a changed recipe or corpus; `of_shards` describes the changed shards, if there are any."""
    changed = differences(recorded, parts)
    if not of_shards:
        return ChangedError(
            f"{store.url}: begun with another recipe or corpus: {'; '.join(changed)}; undo the change, use another "
            "sink, or start over with --restart",
            changed,
        )
    # Other shards change these parts too.
    of_rows = (CORPUS, RECORDINGS, VOCABULARY)
    rest = ({name: value for name, value in each.items() if name not in of_rows} for each in (recorded, parts))
    further = differences(*rest)
    more = f" Also changed: {'; '.join(further)}; undo that." if further else ""
    return ChangedError(f"{store.url}: {of_shards}.{more}", changed)


SHARDS = f"{layout.HOME}shards.json"
MOST_NAMES = 5
"""Shards that a message names."""


def _described_shards(store: Store, names: Collection[str], unreadable: Mapping[str, str]) -> str:
    """Return a sentence on the shards that are missing or new since the training began; empty without any.

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
    now = dict.fromkeys(names)
    changes, remedies = [], []
    if missing := [name for name in begun if name not in now]:
        reasons = [f"{name} (cannot be read: {unreadable[name]})" if name in unreadable else name for name in missing]
        changes.append(
            f"{count(len(missing), 'shard')} of the {len(begun):,} with which it began {_is(missing)} missing: "
            f"{listed(reasons, MOST_NAMES)}"
        )
        remedies.append("bring the missing ones back")
    if new := [name for name in now if name not in begun]:
        changes.append(f"{count(len(new), 'shard')} {_is(new)} new: {listed(new, MOST_NAMES)}")
        remedies.append("leave the new ones out")
    if not changes:
        return ""
    return (
        f"{'; '.join(changes)}. The training continues over the shards with which it began: {' and '.join(remedies)}, "
        "and run the same command again; nothing is lost. To train on others, use another sink"
    )


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"
