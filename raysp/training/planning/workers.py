"""Workers of a training: their device, number and threads, on this machine or on a cluster."""

from dataclasses import dataclass

from raysp.cluster.resources import Resources, check_device, count_gpus
from raysp.devices import num_cpus
from raysp.errors import PlanError
from raysp.training.specs.recipe import MICRO_BATCHES, Finetune
from raysp.words import count


@dataclass(frozen=True)
class Workers:
    """Workers of a training."""

    device: str
    low: int
    """Number with which the training begins; on a cluster the least."""
    high: int
    """Largest number of workers; equal to `low` except on a cluster, where their number follows the nodes."""
    threads: int
    """CPUs and torch threads of each."""

    @property
    def words(self) -> str:
        """Number of workers as text."""
        return count(self.low, "worker") if self.low == self.high else f"{self.low:,} to {count(self.high, 'worker')}"


def settle_workers(recipe: Finetune, cluster: Resources | None) -> Workers:
    """Return the workers of a recipe.

    Args:
        recipe: the recipe.
        cluster: resources of the cluster; None: this machine.

    Raises:
        PlanError: the machine has no GPU or too few, or a step has fewer micro-batches than workers.
    """
    pool, most = recipe.pool, recipe.batching.micro_batches or MICRO_BATCHES
    refuse_idle(recipe, most, "lower pool.actors, or raise batching.micro_batches")
    gpus = _gpus(recipe, cluster)
    device = "cpu" if not gpus else "cuda" if recipe.device == "auto" else recipe.device
    high = max(pool.low, min(pool.high, most))
    if cluster is not None:
        free = int(min(cluster.node_cpus or cluster.cpus, (cluster.cpus - 1) // pool.low))
        return Workers(device, pool.low, high, pool.cpus or (1 if gpus else max(1, free)))
    if gpus and pool.low > gpus:
        raise PlanError(f"pool.actors={pool.actors}: found {count(gpus, 'GPU')}; lower pool.actors")
    number = max(pool.low, min(high, gpus or num_cpus() // (pool.cpus or 1)))
    return Workers(device, number, number, pool.cpus or max(1, num_cpus() // number))


def refuse_idle(recipe: Finetune, micro_batches: int, remedy: str) -> None:
    """Raise PlanError, which ends with a remedy, if a step has fewer micro-batches than workers."""
    if recipe.pool.low > micro_batches:
        raise PlanError(
            f"pool.actors={recipe.pool.actors}: a step has {count(micro_batches, 'micro-batch')}, which is the largest "
            f"number of workers that have work; {remedy}"
        )


def _gpus(recipe: Finetune, cluster: Resources | None) -> int:
    """Return the number of GPUs for the workers; 0: they use CPUs."""
    if recipe.device == "cpu" or recipe.pool.gpus == 0:
        return 0
    if recipe.device not in ("auto", "cuda"):
        if cluster is not None:
            raise PlanError(f"device={recipe.device!r}: on a cluster, workers use 'cuda' or 'cpu'; set one of them")
        check_device(recipe.device, "device")
        return 1
    gpus = count_gpus() if cluster is None else int(cluster.gpus)
    if cluster is not None and cluster.gpus_may_come and (recipe.pool.gpus or recipe.device == "cuda"):
        gpus = recipe.pool.low  # they come up for the workers
    if recipe.device == "cuda" and not gpus:
        place = "on this machine" if cluster is None else "in the cluster"
        raise PlanError(f"device='cuda': found no GPU {place}; set device='cpu', or leave it out")
    return gpus
