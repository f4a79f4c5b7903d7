"""Results printed as a table and written as JSON."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path


def show(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table in Markdown; a row may lack columns."""
    if not rows:
        return
    print(f"\n{title}\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    print("\n".join(lines), flush=True)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median of values, and the least and most of several."""
    median = f"{statistics.median(values):.{digits}f}"
    return median if len(values) < 2 else f"{median} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def write_json(path: Path, figures: object) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, default=str) + "\n")
