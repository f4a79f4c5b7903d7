"""Number of actors of a run: as requested, limited by the machine and by the work."""

from dataclasses import dataclass

from raysp.specs.steps import Pool
from raysp.words import count

CPUS_A_READER = 10
"""CPUs that run models per CPU that decodes: for each core that runs a model, decoding takes a tenth or less."""


@dataclass(frozen=True)
class PoolSize:
    """Bounds of a pool, and the reason if they differ from those requested."""

    low: int
    high: int
    reason: str = ""
    """Empty: as requested."""

    def __str__(self) -> str:
        """Return one phrase, such as "2 actors (64 requested; this machine has 2 CPUs)"."""
        return f"{_actors(self.low, self.high)}{self.reason}"


def pool_size(pool: Pool, *, machine: tuple[int | None, str], work: tuple[int, str]) -> PoolSize:
    """Return the bounds that a run uses.

    Args:
        pool: the requested pool.
        machine: number of actors that fit, None if more machines may come up; and the reason to show.
        work: number of pieces to do, each done by one actor; and the reason to show.
    """
    bounds = [(max(1, most), reason) for most, reason in (work, machine) if most is not None]
    bound, reason = min(bounds, key=lambda one: one[0])
    if bound >= pool.high:
        return PoolSize(pool.low, pool.high)
    return PoolSize(min(pool.low, bound), bound, f" ({_range(pool.low, pool.high)} requested; {reason})")


@dataclass(frozen=True)
class ActorCpus:
    """CPUs of each actor of a pool, and the reason for their number."""

    number: int
    reason: str = ""
    """Empty: as requested, or 1 by default."""
    is_capped: bool = False
    """Whether more were requested."""

    def __str__(self) -> str:
        """Return one phrase, such as "2 CPUs (all of this machine)"."""
        return count(self.number, "CPU") + (f" ({self.reason})" if self.reason else "")


def actor_cpus(pool: Pool, *, machine_cpus: int | None, on_gpu: bool) -> ActorCpus:
    """Return the CPUs of each actor: as requested, at most those of the machine; by default a share of the machine.

    Args:
        pool: the requested pool.
        machine_cpus: CPUs of this machine; None if actors run on a cluster, whose nodes may differ.
        on_gpu: whether the model runs on a GPU, so that an actor's threads only prepare its batches.
    """
    if machine_cpus is None:
        return ActorCpus(pool.cpus or 1)
    if pool.cpus is not None:
        if pool.cpus <= machine_cpus:
            return ActorCpus(pool.cpus)
        return ActorCpus(machine_cpus, f"{pool.cpus} requested; this machine has {machine_cpus}", is_capped=True)
    if on_gpu:
        return ActorCpus(1)
    actors = min(pool.high, machine_cpus)
    number = max(1, (machine_cpus - machine_cpus // CPUS_A_READER) // actors)
    if number == machine_cpus:
        return ActorCpus(number, "all of this machine")
    return ActorCpus(number, f"of this machine's {machine_cpus}")


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _actors(low: int, high: int) -> str:
    return count(high, "actor") if low == high else f"{low} to {count(high, 'actor')}"
