"""The protocol of the sink in a world of its own: drivers and workers that are delayed, fail and die at any call.

A sink holds labels or a training; both are simulated on the same store, by the same scheduler. Each actor runs the
protocol's own functions in a thread; only one runs at a time, and at every call to the store a seeded scheduler decides
which one goes on, whether the call fails before or after its effect, and whether its actor dies there or falls asleep
to come back late. So a history follows from its seed alone. The store keeps its files in memory and is honest: what one
call wrote, the next one reads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.sink.simulation import labelling, training
from tests.sink.simulation.planting import StandIn
from tests.sink.simulation.training import TrainingWorld
from tests.sink.simulation.world import World

WORKS = ((World, labelling), (TrainingWorld, training))


def of_labels(number: int) -> int:
    """Return the seed of a history of labels."""
    return 2 * number


def of_training(number: int) -> int:
    """Return the seed of a history of a training."""
    return 2 * number + 1


def simulate(seed: int, folder: Path, bug: Sequence[StandIn] = ()) -> World:
    """Run a history, in which a bug may be planted, and check its result.

    Raises:
        ViolationError: something was wrong at any time.
    """
    number, kind = divmod(seed, len(WORKS))
    make, work = WORKS[kind]
    world = make(number, folder)
    with _replaced([*work.stand_ins(), *bug]):
        try:
            work.happen(world)
        finally:
            for actor in list(world.actors):
                actor.doomed = True
            world.violations.clear()
            world.run()
    return world


@contextmanager
def _replaced(stand_ins: list[StandIn]) -> Iterator[None]:
    before = [(place, name, getattr(place, name)) for place, name, _ in stand_ins]
    for place, name, stand_in in stand_ins:
        setattr(place, name, stand_in)
    try:
        yield
    finally:
        for place, name, value in reversed(before):
            setattr(place, name, value)
