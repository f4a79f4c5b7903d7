"""Whether a run is active on a sink, from its lease."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypedDict

from raysp.sink.lease import Holder


class Running(StrEnum):
    """Whether a run is active on a sink, as far as this machine can determine."""

    YES = "yes"
    NO = "no"
    KILLED = "killed"
    """Its process has ended without releasing the lease."""
    ELSEWHERE = "elsewhere"
    """It runs, or ran, on another machine, and has not released the lease."""


class Activity(TypedDict):
    """Whether runs are active, and the current or last holders of the lease."""

    running: Running
    holder: str


def activity(holders: Sequence[Holder]) -> Activity:
    """Return whether runs are active, from the current or last holder of each share."""
    active = [holder for holder in holders if not holder.is_over]
    killed = [holder for holder in holders if not holder.released and holder.process.is_known_dead()]
    if active:
        running = Running.YES if any(one.process.is_known_alive() for one in active) else Running.ELSEWHERE
    else:
        running = Running.KILLED if killed else Running.NO
    return {"running": running, "holder": "; ".join(one.words for one in active or killed or holders[-1:])}
