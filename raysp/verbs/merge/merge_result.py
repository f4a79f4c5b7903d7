"""Result of a merge."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysp.words import Brief

INCOMPLETE = 3
"""Exit code if shards are not merged."""


@dataclass(frozen=True, repr=False)
class Merge(Brief):
    """Labellings merged into a sink."""

    sink: str
    fingerprint: str
    by: str
    shards: int
    """Label shards that are merged."""
    shards_before: int
    """Shards that earlier calls merged, from the same labels."""
    rows: int
    """Rows of the shards that this call merged."""
    chosen: Mapping[str, int]
    """Rows of them by the url of the labelling whose label they have."""
    elected: int
    """Rows of them whose text was elected by vote and is in no labelling."""
    not_merged: Mapping[str, str]
    """Shards that are not merged, with the reason."""

    @property
    def exit_code(self) -> int:
        """Exit code: 3 if shards are not merged, else 0."""
        return INCOMPLETE if self.not_merged else 0
