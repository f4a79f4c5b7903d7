"""Where work is done: on the Ray at an address, on a local one, or in a job of `raysp submit`; and on which systems."""

import os
import sys
from collections.abc import Collection

from raysp.errors import PlanError
from raysp.machine import system

LOCAL = "local"
"""Address of a local Ray that ends with the run."""
SUBMITTED_BY = "RAYSP_SUBMITTED_BY"
"""Environment variable of a job: the version of raysp that submitted it."""


def is_cluster(address: str | None) -> bool:
    """Return whether a run uses an existing Ray: at an address, or connected by this process."""
    ray = sys.modules.get("ray")
    return is_named(address) or bool(ray and ray.is_initialized())


def is_named(address: str | None) -> bool:
    """Return whether an address, or RAY_ADDRESS, names an existing Ray."""
    return _named(address) not in ("", LOCAL)


def requires_ray(address: str | None) -> bool:
    """Return whether a run uses Ray even for little work: an existing one, or a local one by the address "local"."""
    return is_cluster(address) or _named(address) == LOCAL


def _named(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS", "")


def is_submitted() -> bool:
    """Return whether this process belongs to a job that `raysp submit` started."""
    return SUBMITTED_BY in os.environ


def refuse_on(systems: Collection[str], what: str) -> None:
    """Raise PlanError on one of some operating systems (`machine.system`).

    Args:
        systems: the systems.
        what: clause on the limit there, with a remedy.
    """
    if (found := system()) in systems:
        raise PlanError(f"{found}: {what}")


def refuse_without_processes(work: str) -> None:
    """Raise PlanError where no process can be given pipes, so that a damaged recording would end the work: Windows.

    Args:
        work: the work.
    """
    here = "models, plan, status, report, diff, merge and export work here"
    refuse_on(["Windows"], f"{work} needs Linux or macOS, for instance in WSL 2; {here}")
