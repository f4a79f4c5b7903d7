"""What is true at every write of a history, and at its end."""

import json
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.sink import layout, records
from raysp.sink.commit import outcomes
from raysp.sink.lease import Lease
from raysp.sink.receipts import Counts, ShardReceipt
from tests.sink.simulation.actors import Actor, ViolationError
from tests.sink.simulation.store import (
    SHARD_NAMES,
    STAGE_ID,
    Store,
    read_parquet,
    recorded_fingerprint,
    rest_path,
    wrong_rows,
)

if TYPE_CHECKING:
    from tests.sink.simulation.labelling import Driver
    from tests.sink.simulation.world import World


def check_planned_under(world: "World", driver: "Driver", own: Lease) -> None:
    """Check that no run that held the lease before has recorded anything since a driver began its plan."""
    own.check()
    changes, epoch = world.recorded
    if driver.began < changes and epoch < own.epoch:
        world.violations.append(f"{driver.name} planned before it held the lease: epoch {epoch} recorded a run since")


def check_record(world: "World", actor: Actor, data: bytes) -> None:
    """The steps behind the last `Label` change only while no shard is committed, and by no run that lost its lease."""
    if 0 < actor.epoch < world.recorded[1]:
        world.violations.append(f"{actor.name} replaced the record that a later holder of the lease wrote")
    before, now = world.fingerprint, recorded_fingerprint(data)
    if before in (None, now):
        return
    if shown := [name for name in SHARD_NAMES if name in world.files and world.files[name][1] <= actor.began]:
        world.violations.append(f"{actor.name} recorded {now} in place of {before}, of which {shown} are")
    world.replaced = world.changes
    world.story.append(f"{world.now:.1f} {actor.name} records {now} in place of {before}")


def check_refusal(world: "World", actor: Actor) -> None:
    """A run is refused for its steps behind the last `Label` only if a shard is committed, or was meanwhile."""
    if world.shown <= actor.began and not any(name in world.files for name in SHARD_NAMES):
        world.violations.append(f"{actor.name} was refused though no shard is committed")


def check_visible(world: "World", actor: Actor, path: str, data: bytes) -> None:
    """Visible files are always whole, and a committed file is written again only to replace it."""
    try:
        rows, metadata = read_parquet(data)
    except pa.ArrowException as error:
        world.violations.append(f"{actor.name} showed a {path} that cannot be read: {error}")
        return
    made_of = (metadata[b"raysp.input_id"].decode(), metadata[b"raysp.fingerprint"].decode())
    if path in world.files and actor.kind == "plain":
        world.violations.append(f"{actor.name} wrote {path} again, which was committed")
    if made_of[1] != world.fingerprint and world.replaced <= actor.began:
        world.violations.append(f"{actor.name} showed a {path} of {made_of[1]}, and {world.fingerprint} is recorded")
    every_row = world.with_rest(path, rows, metadata)
    if wrong := wrong_rows(path, every_row, *made_of):
        world.violations.append(f"{actor.name} showed {path} with {wrong}")
    failed = sum(row["status"] == "error" for row in every_row)
    # A run that stops, or `gc` beside a run without the lease, may remove what the driver has counted.
    if actor.errors is not None and failed > actor.errors and world.removed < actor.began:
        world.violations.append(f"{actor.name} showed {path} with {failed} error rows, {actor.errors} were counted")
    is_asked = actor.kind == "again" and path in world.files and world.files[path][1] <= actor.planned
    if path in world.files and world.made_of.get(path) == made_of and not is_asked:
        before = world.with_rest(path, *read_parquet(world.files[path][0]))
        if lost := {row["row"] for row in before if row["status"] == "ok"} - {
            row["row"] for row in every_row if row["status"] == "ok"
        }:
            world.violations.append(f"{actor.name} took the labels of rows {sorted(lost)} of {path} away")
    world.made_of[path] = made_of
    world.shown = world.changes
    counts = Counter(row["status"] for row in every_row)
    world.published[path, f"{len(data)}:{world.changes}"] = (*made_of, counts["ok"], counts["error"])


def check_receipts(world: "World", actor: Actor, data: bytes) -> None:
    """What a receipt says of a version of a label shard is true for ever."""
    for receipt in map(json.loads, data.splitlines()):
        said = (receipt["input_id"], receipt["fingerprint"], *_numbers(records.checked(receipt["counts"], Counts)))
        if receipt["version"] and said != (found := world.published.get((receipt["shard"], receipt["version"]))):
            world.violations.append(f"{actor.name} wrote the receipt {said} of a {receipt['shard']} that is {found}")


def check_removed(world: "World", actor: Actor, path: str) -> None:
    """What a label shard names, and what one will be made of, stays."""
    rest = layout.parse_errors_path(path)
    if rest and rest[0] in world.files and path == rest_path(rest[0], read_parquet(world.files[rest[0]][0])[1]):
        world.violations.append(f"{actor.name} removed {path}, the left-out rows of a label shard")
    staged = layout.parse_stage_path(path)
    if staged is None:
        return
    if actor.is_stopping or actor.kind == "gc":
        world.removed = world.changes
    if path not in world.files or world.made_of.get(staged.shard) or (actor.is_stopping and staged.errors):
        return
    is_known = world.files[path][1] <= actor.began and staged.fingerprint == STAGE_ID and not world.has_other_input
    if actor.kind == "plain" or (actor.kind == "gc" and is_known):
        world.violations.append(f"{actor.name} removed {path} before its shard was committed")


def check_left_out(world: "World") -> None:
    """Of the rows that are left out nothing is there but what label shards name."""
    found = {path for path in world.files if path.startswith(layout.ERRORS)}
    named = {
        rest_path(path, read_parquet(data)[1])
        for path, (data, *_) in world.files.items()
        if not path.startswith(layout.HOME)
    }
    if found - named:
        raise ViolationError(f"gc leaves {sorted(found - named)}")


def check(world: "World", *, errors: bool) -> None:
    """Every shard is committed once with the right rows, and the protocol itself knows it."""
    visible = {path for path in world.files if not path.startswith(layout.HOME)}
    present = set(SHARD_NAMES) - world.vanished
    if not present <= visible <= set(SHARD_NAMES):
        raise ViolationError(f"readers see {sorted(visible)}")
    for name in visible:
        is_present = name in present
        made_of = (f"{world.versions[name]:x}", world.fingerprint) if is_present else world.made_of[name]
        if world.made_of[name] != made_of:
            raise ViolationError(f"{name} is of {world.made_of[name]}, not of {made_of}")
        rows = world.with_rest(name, *read_parquet(world.files[name][0]))
        if wrong := wrong_rows(name, rows, *made_of, errors=errors or not is_present):
            raise ViolationError(f"{name} has {wrong}")
    asker = Actor("check", "plain")
    asker.turn.acquire()
    world.actors.append(asker)
    world._until = None
    found = dict(outcomes(Store(world, asker), world.source(), world.fingerprint))
    world.actors.remove(asker)
    known = {name: receipt for name, receipt in found.items() if isinstance(receipt, ShardReceipt)}
    if known.keys() != present:
        raise ViolationError(f"the next run finds {found}, and not {present}")
    for name, receipt in known.items():
        version = f"{len(world.files[name][0])}:{world.files[name][1]}"
        said = (receipt.input_id, receipt.fingerprint, *_numbers(receipt.counts))
        if said != world.published[name, version]:
            raise ViolationError(f"{name} is held to be {said} and is {world.published[name, version]}")
        world.story.append(f"{world.now:.1f} {name} is known by its {'footer' if receipt.existing else 'receipt'}")


def _numbers(counts: Counts) -> tuple[int, int]:
    """Return the numbers of rows that are ok, and of error rows."""
    return counts.by_status["ok"], counts.by_status["error"]
