"""Commands of raysp run in the test's own process, and a pipeline file for them."""

import re
from pathlib import Path

from tests.corpora import CHECKPOINT

RECIPE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({source!r}),
    steps=[raysp.Decode(), raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()])],
    sink=raysp.Parquet({sink!r}),
)
"""


class Ran:
    """Result of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def complaints(self) -> list[str]:
        """Lines on stderr without the "looking at" line, and without progress, which a slow run prints."""
        return [line for line in self.err.splitlines() if not re.match(r"raysp: (looking at |\d+% · )", line)]


def write_recipe(folder: Path, text: str = RECIPE, **changes: object) -> Path:
    values = {"source": f"{folder}/in/*.parquet", "sink": f"{folder}/out", "checkpoint": str(CHECKPOINT), **changes}
    path = folder / "recipe_for_the_cli.py"
    path.write_text(text.format(**values))
    return path
