"""Accelerators of this machine or of nodes: name, memory, and the releases that decide which kernels they run."""

import importlib.util
import logging
import runpy
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from raysp.cluster.nodes import TASK_SECONDS, ask, with_resource
from raysp.cluster.resources import Resources, gpu_memory
from raysp.devices import is_accelerator, kind_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Card:
    """An accelerator with the releases beside it."""

    card: str
    """Name, as its driver reports it; of another device than a GPU of NVIDIA the name of the device."""
    driver: str | None
    torch: str
    cuda: str | None

    def __str__(self) -> str:
        """Return the names in one line."""
        driver, cuda = (f", driver {self.driver}" if self.driver else ""), (f", CUDA {self.cuda}" if self.cuda else "")
        return f"{self.card}{driver}, torch {self.torch}{cuda}"


def card_of(device: str) -> Card | None:
    """Return the card that runs a device here, found without importing torch; None for a CPU, or if it is unknown.

    That of a machine with several kinds of cards of NVIDIA is unknown.
    """
    if not is_accelerator(device) or (releases := _releases()) is None:
        return None
    if kind_of(device) != "cuda":
        return Card(kind_of(device), None, *releases)
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        [one] = {*found.strip().splitlines()}  # of each card; actors may have any of them
        name, driver = (part.strip() for part in one.split(","))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Card(name, driver, *releases)


def cards_of_nodes(device: str) -> list[tuple[str, Card | str]]:
    """Return the addresses of the nodes with a device, and their cards, or a text on why a card is not known.

    The nodes are asked, all at once. Empty: no such node is up, or no cluster is connected.
    """
    # Ray counts GPUs of "cuda" alone.
    nodes = with_resource("GPU" if kind_of(device) == "cuda" else "CPU")
    return [
        (node["NodeManagerAddress"], _card_or_reason(answer))
        for node, answer in zip(nodes, ask(nodes, _card_here, device), strict=True)
    ]


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


def _card_here(device: str) -> tuple[Card | None]:
    return (card_of(device),)


def _card_or_reason(answer: tuple[Card | None] | None) -> Card | str:
    if answer is None:
        return f"did not answer within {TASK_SECONDS:g} s"
    return answer[0] or "has no card that nvidia-smi names, cards of several names, or no torch"


def _releases() -> tuple[str, str | None] | None:
    """Return the releases of torch and of its CUDA; None without torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    version = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return str(version["__version__"]), version.get("cuda")
