"""The number of actors that a run starts: those asked for, but no more than the machine and the work bear."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from raysp.specs.steps import Pool
from raysp.words import count

FEWEST_BYTES_PER_SECOND = 500
"""Of encoded audio: Opus at its lowest rate has 750."""

CPUS_A_READER = 10
"""That run models for each CPU that decodes: decoding takes a tenth of a core or less beside one that runs a model."""


@dataclass(frozen=True)
class PoolSize:
    """Bounds of a pool, and why they are not those asked for."""

    low: int
    high: int
    reason: str = ""
    """Empty: as asked."""

    def __str__(self) -> str:
        """Return it as one phrase: "2 actors (64 asked for; this machine has 2 CPUs)"."""
        return f"{_actors(self.low, self.high)}{self.reason}"


def pool_size(pool: Pool, *, machine: tuple[int | None, str], work: tuple[int, str]) -> PoolSize:
    """Return the bounds that a run uses.

    Args:
        pool: as asked.
        machine: actors that it bears, None where more machines may come up; and the reason to show.
        work: upper bound of the blocks to do, of which an actor takes one at a time; and the reason to show.
    """
    bounds = [(max(1, most), reason) for most, reason in (work, machine) if most is not None]
    bound, reason = min(bounds, key=lambda one: one[0])
    if bound >= pool.high:
        return PoolSize(pool.low, pool.high)
    return PoolSize(min(pool.low, bound), bound, f" ({_range(pool.low, pool.high)} asked for; {reason})")


@dataclass(frozen=True)
class ActorCpus:
    """CPUs of each actor of a pool, and where they come from."""

    number: int
    reason: str = ""
    """Empty: as asked, or 1 where nothing was."""
    is_capped: bool = False
    """Whether more were asked for."""

    def __str__(self) -> str:
        """Return it as one phrase: "2 CPUs (all of this machine)"."""
        return count(self.number, "CPU") + (f" ({self.reason})" if self.reason else "")


def actor_cpus(pool: Pool, *, machine_cpus: int | None, on_gpu: bool) -> ActorCpus:
    """Return the CPUs of each actor: those asked for, as far as the machine has them, else a share of the machine.

    Args:
        pool: as asked.
        machine_cpus: of this machine; None where actors run on a cluster, whose nodes may differ.
        on_gpu: whether the model runs on a GPU, so that an actor's threads only prepare its batches.
    """
    if machine_cpus is None:
        return ActorCpus(pool.cpus or 1)
    if pool.cpus is not None:
        if pool.cpus <= machine_cpus:
            return ActorCpus(pool.cpus)
        return ActorCpus(machine_cpus, f"{pool.cpus} asked for; this machine has {machine_cpus}", is_capped=True)
    if on_gpu:
        return ActorCpus(1)
    actors = min(pool.high, machine_cpus)
    number = max(1, (machine_cpus - machine_cpus // CPUS_A_READER) // actors)
    if number == machine_cpus:
        return ActorCpus(number, "all of this machine")
    return ActorCpus(number, f"of this machine's {machine_cpus}")


def most_actors(*, cpus: float, cpus_per_actor: int, gpus: float, gpus_per_actor: float) -> int:
    """Return how many actors a machine bears beside one CPU that decodes; 0: not one."""
    by_cpus = int((cpus - 1) // cpus_per_actor)
    return min(by_cpus, int(gpus / gpus_per_actor + 1e-6)) if gpus_per_actor else by_cpus


def most_blocks(pieces: Iterable[tuple[int, float | None]], block_seconds: float, enough: int) -> int:
    """Return an upper bound of the blocks that pieces give, each at least one; counts no further than `enough`.

    Args:
        pieces: rows and encoded bytes of each; bytes are None where rows are read by path: a block a row then.
        block_seconds: audio in a block.
        enough: most that the caller wants to know of.
    """
    blocks = 0
    for rows, num_bytes in pieces:
        seconds = (num_bytes or 0) / FEWEST_BYTES_PER_SECOND
        blocks += max(1, rows if num_bytes is None else math.ceil(seconds / block_seconds))
        if blocks >= enough:
            break
    return blocks


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _actors(low: int, high: int) -> str:
    return count(high, "actor") if low == high else f"{low} to {count(high, 'actor')}"
