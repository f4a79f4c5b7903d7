"""What is true at the end of every history."""

from typing import TYPE_CHECKING

from raysp.sink import layout
from raysp.sink.commit import committed
from raysp.sink.lease import Lease
from tests.sink.simulated_actors import Actor, ViolationError
from tests.sink.simulated_store import FINGERPRINT, SHARD_NAMES, Store, read_parquet, rest_path, wrong_rows

if TYPE_CHECKING:
    from tests.sink.simulation import Driver, World


def check_planned_under(world: "World", driver: "Driver", own: Lease) -> None:
    """Check that no run that held the lease before has recorded anything since a driver began its plan."""
    own.check()
    changes, epoch = world.recorded
    if driver.began < changes and epoch < own.epoch:
        world.violations.append(f"{driver.name} planned before it held the lease: epoch {epoch} recorded a run since")


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
        made_of = (f"{world.versions[name]:x}", FINGERPRINT) if is_present else world.made_of[name]
        if world.made_of[name] != made_of:
            raise ViolationError(f"{name} is of {world.made_of[name]}, not of {made_of}")
        rows = world.with_rest(name, *read_parquet(world.files[name][0]))
        if wrong := wrong_rows(name, rows, *made_of, errors=errors or not is_present):
            raise ViolationError(f"{name} has {wrong}")
    asker = Actor("check", "plain")
    asker.turn.acquire()
    world.actors.append(asker)
    world._until = None
    found = committed(Store(world, asker), world.source(), FINGERPRINT, repair=False)
    world.actors.remove(asker)
    if found.done != present:
        raise ViolationError(f"the next run holds {sorted(found.foreign.values())} against it")
