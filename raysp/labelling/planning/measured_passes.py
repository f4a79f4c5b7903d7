"""Sizes of passes that earlier runs over a sink chose on their devices."""

from collections.abc import Mapping
from dataclasses import replace

from raysp.labelling.planning.run_plan import Settings
from raysp.sink.choices import measured_budgets
from raysp.specs.values import JsonValue
from raysp.storage.store import Store


def with_measured(settings: Settings, store: Store, parts: Mapping[str, JsonValue]) -> Settings:
    """Return settings with the recorded sizes of passes.

    Args:
        settings: settings of a plan whose size of passes is to be measured.
        store: the sink.
        parts: parts of the fingerprint, with the digest of the checkpoint.
    """
    digest = next(str(value) for key, value in parts.items() if key.endswith(".checkpoint_digest"))
    return replace(settings, measured=measured_budgets.load(store, dtype=settings.dtype, checkpoint_digest=digest))
