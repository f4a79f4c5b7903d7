"""Live nodes of a cluster, places that hold on every machine, and the number of actors that resources allow.

Ray itself detects the loss of a node only after half a minute.
"""

import logging
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from raysp.cluster.addresses import is_connected
from raysp.devices import is_accelerator, is_available, memory_bytes, num_cpus
from raysp.errors import PlanError, StoreError
from raysp.specs.pipeline import SHARD_PLACES, AnyWork, Pipeline, Work, with_places
from raysp.specs.steps import Pool
from raysp.storage.store import normalise, scheme_of
from raysp.words import count

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
TASK_SECONDS = 60.0
"""Time after which a node that does not answer a task is ignored: it may be busy or shutting down."""

Node: TypeAlias = dict[str, Any]
"""A node as Ray lists it."""
Amounts: TypeAlias = Mapping[str, float]
"""Amounts of resources by their names."""
Params = ParamSpec("Params")
Answer = TypeVar("Answer")


def up() -> list[Node]:
    """Return the nodes that Ray reports as alive."""
    import ray

    return [node for node in cast("Any", ray).nodes() if node["Alive"]]


def alive(node_ids: Iterable[str]) -> set[str]:
    """Return the nodes that Ray reports as alive and whose raylet accepts connections; all if Ray does not answer."""
    try:
        nodes = {str(node["NodeID"]): node for node in up()}
    except Exception as error:  # types of Ray's errors vary
        logger.warning("Ray did not list the nodes of the cluster: %s", error)
        return set(node_ids)
    return {node_id for node_id in node_ids if node_id in nodes and _answers(nodes[node_id])}


def totals() -> dict[str, Amounts]:
    """Return the resources of the nodes that are alive, in use or not, by the node's id."""
    return {node["NodeID"]: node["Resources"] for node in up()}


def with_resource(name: str) -> list[Node]:
    """Return the nodes that Ray reports as alive and that have a resource, such as "CPU"; empty without a cluster."""
    return [node for node in up() if node["Resources"].get(name, 0) > 0] if is_connected() else []


def ask(
    nodes: Sequence[Node], function: Callable[Params, Answer], *args: Params.args, **kwargs: Params.kwargs
) -> list[Answer | None]:
    """Call a function on nodes, at once and concurrently with all other work, and return its results.

    None: the node did not answer within `TASK_SECONDS`, or the function failed there.
    """
    import ray

    if not nodes:
        return []
    task = ray.remote(cast("Any", function))
    placed = [task.options(num_cpus=0, scheduling_strategy=on_node(node["NodeID"])) for node in nodes]
    answers = [task_on_node.remote(*args, **kwargs) for task_on_node in placed]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=TASK_SECONDS)
    return [_result(answer) if answer in ready else None for answer in answers]


def on_node(node_id: str) -> object:
    """Return the scheduling strategy of tasks and actors that run on one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _result(answer: Any) -> Any:  # noqa: ANN401 - a reference of Ray
    import ray

    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        logger.warning("a node did not answer: %s", error)
        return None


def _answers(node: Node) -> bool:
    try:
        place = node["NodeManagerAddress"], node["NodeManagerPort"]
        with socket.create_connection(place, timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


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
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(float(line) for line in output.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def with_gpu_memory(resources: Resources) -> Resources:
    """Return resources with the memory of a GPU: on a cluster, of the smallest GPU that its nodes report.

    It stays None if no node reports it.
    """
    if resources.machine_cpus is not None or resources.gpu_memory is not None:
        return resources
    nodes = with_resource("GPU")
    reported = [memory for memory in ask(nodes, gpu_memory) if memory is not None]
    if nodes and not reported:
        logger.warning("no node reported the memory of its GPU")
    return replace(resources, gpu_memory=min(reported, default=None))


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that this process may use, without a driver library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")])
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
    """Describe the resources missing for `actors` actors; empty if all are up.

    Args:
        actors: number of actors of the model.
        resources: resources that are up.
        cpus: CPUs of each actor.
        gpus: GPUs of each actor.
    """
    required = {"GPU": (actors * gpus, resources.gpus), "CPU": (actors * cpus + 1, resources.cpus)}
    short = [f"{count(needed, name)}, {there:g} found" for name, (needed, there) in required.items() if needed > there]
    if resources.node_cpus is not None and cpus > resources.node_cpus and len(short) == 0:
        short.append(f"{count(cpus, 'CPU')} on one node, {resources.node_cpus:g} on the largest found")
    return "; ".join(short)


@dataclass(frozen=True)
class PoolSize:
    """Bounds of a pool, and the reason if they differ from the request."""

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
    bound, reason = min(bounds, key=lambda limit: limit[0])
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


JOB_PACKAGES = "/runtime_resources/working_dir_files/"
"""Part of the path of a folder into which Ray unpacks the package of a job."""
REMEDY = "Give an object store (s3://...), or an absolute path on a file system that all machines of the cluster mount"


def with_absolute_paths(work: AnyWork) -> AnyWork:
    """Return a pipeline or recipe with its local paths made absolute, relative to this process's working directory.

    Workers have another working directory. Urls are unchanged, and so is a checkpoint that is not a local folder: it
    may be an id of the Hugging Face hub.

    Raises:
        PlanError: the scheme of a url is unknown, or a place is in the package of a Ray job.
    """
    absolute = with_places(work, _absolute, _absolute_checkpoint)
    for (name, before), (_, place) in zip(data_places(work), data_places(absolute), strict=True):
        # A checkpoint may be there: Ray unpacks the package on every machine that runs a worker.
        if JOB_PACKAGES in place:
            raise PlanError(
                f"{name}: {before!r} is the place {place!r} in this Ray job: the folder of its package, which Ray "
                f"removes after the job. {REMEDY}"
            )
    return absolute


def _absolute_checkpoint(name: str) -> str:
    """Return the absolute path of a local folder; other names unchanged, which may be ids of the hub."""
    checkpoint = _absolute(name)
    return checkpoint if scheme_of(name) or Path(checkpoint).is_dir() else name


def data_places(work: Work) -> Iterator[tuple[str, str]]:
    """Yield the field names and values of the places of recordings and results, without ids of the hub."""
    for field, source in work.sources.items():
        if source.split is None:
            yield from ((f"{field}.url", url) for url in source.urls)
        yield from ((f"{field}.{name}", url) for name in SHARD_PLACES if (url := getattr(source, name)))
    yield "sink.url", work.sink.url


def _absolute(url: str) -> str:
    try:
        return url if scheme_of(url) else normalise(url)
    except StoreError as error:
        raise PlanError(str(error)) from error
