"""Result of a merge."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysp.words import brief, brief_html

INCOMPLETE = 3
"""Exit code if shards are not merged."""


@dataclass(frozen=True, repr=False)
class Merge:
    """Labellings merged into a sink."""

    sink: str
    fingerprint: str
    by: str
    shards: int
    """Label shards that are merged."""
    shards_before: int
    """Those that earlier calls merged, from the same labels."""
    rows: int
    """Rows of the shards that this call merged."""
    chosen: Mapping[str, int]
    """Rows of them by the url of the labelling whose label they have."""
    not_merged: Mapping[str, str]
    """Shards that are not merged, with the reason."""

    def __repr__(self) -> str:
        """Return a text that fits on a screen."""
        return brief(self)

    def _repr_html_(self) -> str:
        """Return the fields as a table for notebooks."""
        return brief_html(self)

    @property
    def exit_code(self) -> int:
        """Exit code: 3 if shards are not merged, else 0."""
        return INCOMPLETE if self.not_merged else 0
