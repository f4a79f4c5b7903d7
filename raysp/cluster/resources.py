"""Resources of a run, of this machine or of a cluster, and the number of actors that they allow."""

import logging
import os
import subprocess
from dataclasses import dataclass, replace

from raysp.cluster.nodes import ask, with_resource
from raysp.devices import is_accelerator, is_available, memory_bytes, num_cpus
from raysp.errors import PlanError
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import Pool
from raysp.words import count

logger = logging.getLogger(__name__)

CPUS_A_READER = 10
"""CPUs that run models per CPU that decodes: for each core that runs a model, decoding takes a tenth or less."""


@dataclass(frozen=True)
class Resources:
    """Resources that a run may use."""

    cpus: float
    gpus: float = 0
    memory: float | None = None
    """Bytes of main memory; None: unknown."""
    gpu_memory: float | None = None
    """Bytes of one GPU; None: unknown, or not asked for yet (`with_gpu_memory`)."""
    machine_cpus: int | None = None
    """CPUs of this machine, if the run starts a local Ray on it; None: a cluster."""
    node_cpus: float | None = None
    """CPUs of the cluster's largest node; None: unknown, or no cluster."""
    can_grow: bool = False
    """Whether more resources may come up: a cluster may start nodes on demand."""
    gpus_may_come: bool = False
    """Whether no GPU is up now, and nodes with GPUs may come up later."""


def local_resources(pipeline: Pipeline) -> Resources:
    """Return the resources of a local Ray: every CPU, and at least one for decoding besides all actors.

    There are no more actors than fit on the machine's CPUs, but at least one.
    """
    label = pipeline.label
    gpus, machine_cpus = count_gpus(), num_cpus()
    on_gpu = gpus > 0 if label.device == "auto" else is_accelerator(label.device)
    each = actor_cpus(label.pool, machine_cpus=machine_cpus, on_gpu=on_gpu).number
    actors = max(1, min(label.pool.low, machine_cpus // each))
    return Resources(
        cpus=max(machine_cpus, actors * each + 1),
        gpus=gpus,
        machine_cpus=machine_cpus,
        memory=memory_bytes(),
        gpu_memory=gpu_memory() if gpus else None,
    )


def gpu_memory() -> float | None:
    """Return the memory in bytes of this machine's smallest GPU, as its driver reports it; None if unknown."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(float(line) for line in said.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def with_gpu_memory(resources: Resources) -> Resources:
    """Return resources of which the memory of a GPU is known: on a cluster, that of the smallest of all nodes.

    The nodes are asked. It stays None where none reports it.
    """
    if resources.machine_cpus is not None or resources.gpu_memory is not None:
        return resources
    nodes = with_resource("GPU")
    found = [memory for memory in ask(nodes, gpu_memory) if memory is not None]
    if nodes and not found:
        logger.warning("no node reported the memory of its GPU")
    return replace(resources, gpu_memory=min(found, default=None))


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that this process may use, without a driver library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    try:
        return sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))  # noqa: PTH208
    except OSError:
        return 0


def check_device(device: str, field: str) -> None:
    """Check that torch can use a device on this machine, unless it is one whose GPUs are counted.

    Raises:
        PlanError: torch cannot use it; the message names the field.
    """
    if device not in ("auto", "cpu", "cuda") and not is_available(device):
        raise PlanError(
            f"{field}={device!r}: the installed torch can use no such device on this machine; expected 'auto', 'cpu', "
            "'cuda', or another kind of device that it can use"
        )


def actors_that_fit(resources: Resources, cpus: int, gpus: float) -> int | None:
    """Return the number of actors that fit besides one CPU that decodes; may be 0. None: more machines may come up."""
    if resources.can_grow:
        return None
    by_cpus = int((resources.cpus - 1) // cpus)
    # 0.3 / 0.1 is a little less than 3 in floating point.
    return min(by_cpus, int(resources.gpus / gpus + 1e-6)) if gpus else by_cpus


def shortage_of(actors: int, resources: Resources, cpus: int, gpus: float) -> str:
    """Return a text on the resources missing for `actors` actors; empty if all are up.

    Args:
        actors: number of actors of the model.
        resources: resources that are up.
        cpus: CPUs of each actor.
        gpus: GPUs of each actor.
    """
    wanted = {"GPU": (actors * gpus, resources.gpus), "CPU": (actors * cpus + 1, resources.cpus)}
    short = [f"{count(asked, name)}, {there:g} found" for name, (asked, there) in wanted.items() if asked > there]
    if resources.node_cpus is not None and cpus > resources.node_cpus and len(short) == 0:
        short.append(f"{count(cpus, 'CPU')} on one node, {resources.node_cpus:g} on the largest found")
    return "; ".join(short)


@dataclass(frozen=True)
class PoolSize:
    """Bounds of a pool, and the reason if they differ from those requested."""

    low: int
    high: int
    reason: str = ""
    """Empty: as requested."""

    def __str__(self) -> str:
        """Return one phrase, such as "2 actors (64 requested; this machine has 2 CPUs)"."""
        return f"{_range(self.low, self.high, 'actor')}{self.reason}"


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


def _range(low: int, high: int, noun: str = "") -> str:
    most = count(high, noun) if noun else f"{high}"
    return most if low == high else f"{low} to {most}"
