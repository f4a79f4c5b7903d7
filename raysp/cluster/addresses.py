"""Engine and address of a run, the job that it belongs to, and the operating systems that it supports."""

import os
import sys
from collections.abc import Collection
from typing import Literal, cast, get_args

from raysp.devices import system
from raysp.errors import PlanError, SpecError

Engine = Literal["auto", "here", "ray"]
ENGINE_VARIABLE = "RAYSP_ENGINE"
"""Environment variable with the engine of runs that leave it at "auto" and name no address."""
LOCAL = "local"
"""Address of a local Ray that ends with the run."""
SUBMITTED_BY = "RAYSP_SUBMITTED_BY"
"""Environment variable of a job: the version of raysp that submitted it."""


def is_cluster(address: str | None) -> bool:
    """Return whether a run uses an existing Ray: at an address, or connected by this process."""
    return is_named(address) or is_connected()


def is_connected() -> bool:
    """Return whether this process is connected to a Ray."""
    ray = sys.modules.get("ray")
    return bool(ray and ray.is_initialized())


def is_named(address: str | None) -> bool:
    """Return whether an address, or RAY_ADDRESS, names an existing Ray."""
    return _named(address) not in ("", LOCAL)


def requested_engine(engine: str, address: str | None) -> Engine:
    """Return the engine that the caller or RAYSP_ENGINE names.

    Args:
        engine: engine that the caller names; RAYSP_ENGINE replaces "auto" if there is no address.
        address: address that the caller names; not RAY_ADDRESS.

    Raises:
        SpecError: the engine is unknown, or is "here" and there is an address.
    """
    if engine == "here" and address is not None:
        raise SpecError(
            f"engine: found 'here' with the address {address!r}, expected one of the two: 'here' uses no Ray; "
            "leave out the address, or use the engine 'ray'"
        )
    name, value = "engine", engine
    if engine == "auto" and address is None:
        name, value = ENGINE_VARIABLE, os.environ.get(ENGINE_VARIABLE) or engine
    if value not in get_args(Engine):
        raise SpecError(f"{name}: found {value!r}, expected 'auto', 'here' or 'ray'")
    return cast("Engine", value)


def resolve_engine(engine: str, address: str | None) -> Engine:
    """Return "ray" instead of "auto" if an address or a connection names a Ray; else the requested engine.

    "auto" remains where the amount of audio decides.

    Raises:
        SpecError: as `requested_engine`.
    """
    requested = requested_engine(engine, address)
    return "ray" if requested == "auto" and (is_cluster(address) or _named(address) == LOCAL) else requested


def uses_cluster(engine: str, address: str | None) -> bool:
    """Return whether a run with this engine and address uses an existing Ray.

    Raises:
        SpecError: as `requested_engine`.
    """
    return requested_engine(engine, address) != "here" and is_cluster(address)


def _named(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS", "")


def is_submitted() -> bool:
    """Return whether this process belongs to a job that `raysp submit` started."""
    return SUBMITTED_BY in os.environ


def check_submitted_version() -> None:
    """Check that this process, if it belongs to a job, has the raysp that submitted it.

    Raises:
        PlanError: another version of raysp is installed here.
    """
    from raysp import __version__

    if (submitted_by := os.environ.get(SUBMITTED_BY, __version__)) != __version__:
        raise PlanError(
            f"submitted by raysp {submitted_by}, but the cluster has raysp {__version__}; install the same version "
            f"here or there, or bring it along: raysp submit --with-raysp raysp=={submitted_by}"
        )


def refuse_on(systems: Collection[str], reason: str) -> None:
    """Raise PlanError if this operating system is one of `systems`.

    Args:
        systems: names as of `devices.system`.
        reason: clause that names the unsupported feature and the alternative.
    """
    if (name := system()) in systems:
        raise PlanError(f"{name}: {reason}")
