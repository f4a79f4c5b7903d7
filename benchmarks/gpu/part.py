"""The protocol of a part, and what it is given: each case of a part is run, recorded and printed by itself."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

Figures = Mapping[str, object]
"""Results by name. Numbers, texts and truth values are printed; lists and mappings are only written."""


@dataclass(frozen=True)
class Setting:
    """What all parts are given."""

    device: str
    """Name for torch: "cuda", "cpu" or "standin"."""
    out: Path
    """Folder of the results: a file for each part, which later parts may read."""
    few: bool = False
    """Whether to run the fewest cases, to test this command."""
    checkpoints: tuple[str, ...] = ()
    """Folders of checkpoints whose packs are measured as well."""

    @property
    def is_gpu(self) -> bool:
        """Whether times mean anything, and models have their published size."""
        return self.device == "cuda"


class Case(NamedTuple):
    """One measurement of a part."""

    name: str
    run: Callable[[], Figures]
    needs: tuple[str, ...] = ()
    """Packages without which it is dropped."""


class Part(Protocol):
    """A module of this package."""

    SECONDS: float
    """Time limit on a GPU; the limits of all parts fit into ten minutes."""

    def cases(self, setting: Setting) -> Iterator[Case]:
        """Yield the measurements in order. An error in one of them is recorded, and the others still run."""
        ...


def line(row: Figures) -> str:
    """Return the printed line of a case."""
    shown = [f"{key} {_short(value)}" for key, value in row.items() if key != "case" and not _is_nested(value)]
    return f"  {row['case']}: {', '.join(shown)}"


def _is_nested(value: object) -> bool:
    return isinstance(value, list | tuple | dict)


def _short(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
