"""What a run may use: this machine's processors, memory and GPUs, or a cluster's."""

import os
import subprocess
from dataclasses import dataclass

from raysp.planning.machine import memory_bytes, num_cpus
from raysp.planning.pools import actor_cpus, most_actors
from raysp.specs.pipeline import Pipeline
from raysp.words import count


@dataclass(frozen=True)
class Resources:
    """What a run may use."""

    cpus: float
    gpus: float = 0
    memory: float | None = None
    """Bytes of main memory; None: unknown."""
    gpu_memory: float | None = None
    """Bytes of one GPU; None: unknown."""
    machine_cpus: int | None = None
    """CPUs of this machine, where a run starts a Ray of its own on it; None: a cluster."""
    node_cpus: float | None = None
    """CPUs of the cluster's largest node; None: unknown, or no cluster."""
    can_grow: bool = False
    """More may come up than is up now: a cluster, which may start nodes that are asked for."""


def local_resources(pipeline: Pipeline) -> Resources:
    """Return what a local Ray is started with: every CPU, and at least one to decode with beside the actors.

    It has no more actors than the machine has CPUs, but always one.
    """
    label = pipeline.label
    gpus, machine_cpus = count_gpus(), num_cpus()
    each = actor_cpus(label.pool, machine_cpus=machine_cpus, on_gpu=gpus > 0 and label.device != "cpu").number
    actors = max(1, min(label.pool.low, machine_cpus // each))
    return Resources(
        cpus=max(machine_cpus, actors * each + 1),
        gpus=gpus,
        machine_cpus=machine_cpus,
        memory=memory_bytes(),
        gpu_memory=gpu_memory() if gpus else None,
    )


def gpu_memory() -> float | None:
    """Ask the driver for the bytes of this machine's smallest GPU; None where it does not say."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(float(line) for line in said.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def count_gpus() -> int:
    """Count the NVIDIA GPUs that this process may use, without asking a driver library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    try:
        return sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))  # noqa: PTH208
    except OSError:
        return 0


def actors_that_fit(resources: Resources, cpus: int, gpus: float) -> int | None:
    """Return how many actors the machine bears; None: more machines may come up."""
    if resources.can_grow:
        return None
    return most_actors(cpus=resources.cpus, cpus_per_actor=cpus, gpus=resources.gpus, gpus_per_actor=gpus)


def shortage_of(actors: int, resources: Resources, cpus: int, gpus: float) -> str:
    """Describe what so many actors ask for beyond what is up; empty when all is."""
    wanted = {"GPU": (actors * gpus, resources.gpus), "CPU": (actors * cpus + 1, resources.cpus)}
    short = [f"{count(asked, name)}, {there:g} found" for name, (asked, there) in wanted.items() if asked > there]
    if resources.node_cpus is not None and cpus > resources.node_cpus and len(short) == 0:
        short.append(f"{count(cpus, 'CPU')} on one node, {resources.node_cpus:g} on the largest found")
    return "; ".join(short)
