"""Names that benchmarks and pipelines import exist, in functions too: mypy does not check them all."""

from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.test_architecture import imports_of, sources

pytestmark = pytest.mark.slow  # `make check` runs this file
ROOT = Path(__file__).parents[2]


def test_every_imported_name_of_raysp_exists():
    files = [path for folder in ("benchmarks", "pipelines") for path in sources(ROOT / folder)]
    names = {one.module for path in files for one in imports_of(path) if one.module.partition(".")[0] == "raysp"}
    assert len(names) > 50
    for name in sorted(names):
        resolve_name(name)
