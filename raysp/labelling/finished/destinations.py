"""Folders that the verbs over finished sinks write to: outside the sinks, with the identity of their contents."""

import hashlib
import json

from raysp.errors import PlanError
from raysp.labelling.finished.labellings import place_of_sink
from raysp.storage.store import Store


def refuse_overlap(sink: Store, destination: Store) -> None:
    """Raise if one of two folders is in the other.

    Raises:
        PlanError: they overlap; the message has both folders.
    """
    ours, theirs = (place_of_sink(one.url).rstrip("/") for one in (sink, destination))
    if f"{ours}/".startswith(f"{theirs}/") or f"{theirs}/".startswith(f"{ours}/"):
        raise PlanError(
            f"{destination.url}: is in the same folder as the sink {sink.url}, whose readers would see its files; "
            "choose a destination outside"
        )


def identity_of(*parts: object) -> str:
    """Return a hash of values that identify what was exported: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
