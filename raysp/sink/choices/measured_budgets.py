"""Sizes of passes that runs chose on their devices by measurement: files of `.raysp/budgets/`, one for each device.

Later runs over the sink use them on devices of the same name, and do not measure again. They are not part of a label or
of the fingerprint. A file that cannot be read is left out: the next run measures.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from raysp.ops.passes.measured_budget import MeasuredBudget
from raysp.sink import layout, records
from raysp.storage.store import Store

MOST_SECONDS = 24 * 3600.0
"""Longest pass that is believed of a record."""


def record(store: Store, measured: MeasuredBudget, *, dtype: str, checkpoint_digest: str) -> bool:
    """Record the choice of a run; return False if another run has recorded one for the device before."""
    of = {"card": measured.card, "dtype": dtype, "checkpoint_digest": checkpoint_digest}
    name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
    content = {**of, "measured": asdict(measured)}
    return store.create(f"{layout.BUDGETS}{name}.json", json.dumps(content, indent=1).encode())


def load(store: Store, *, dtype: str, checkpoint_digest: str) -> dict[str, MeasuredBudget]:
    """Return the choices for a checkpoint in a dtype, by the name of the device."""
    found = {}
    for entry in store.list(layout.BUDGETS):
        one = _parsed(store.read(entry.path), {"dtype": dtype, "checkpoint_digest": checkpoint_digest})
        if one is not None:
            found[one.card] = one
    return found


def _parsed(data: bytes, of: Mapping[str, str]) -> MeasuredBudget | None:
    """Return a choice; None if it is of another checkpoint or dtype, or the data are not a record."""
    try:
        fields = records.parse(data, dict[str, object])
        if any(fields[name] != value for name, value in of.items()):
            return None
        found = records.checked(fields["measured"], MeasuredBudget)
        is_size = all(0 < one.seconds <= MOST_SECONDS and one.rate > 0 for one in found.passes)
        return found if is_size and found.chosen else None
    except (ValueError, KeyError, StopIteration):
        return None
