"""What raysp imports is a requirement, or an extra that is imported only where its feature is used."""

import re
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_architecture import imports_of, sources

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
REQUIRED = {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {
    canonicalize_name(one.name): extra
    for extra, lines in PROJECT["optional-dependencies"].items()
    if extra not in ("dev", "docs", "audit")
    for one in map(Requirement, lines)
}
ROOMS = re.compile(r"backends/\w+/|models/flax/")
"""Folders that are imported only if a checkpoint is run by the libraries of an extra."""
COMES_ALONG = {"aiohttp": "gcsfs", "azure": "azure-storage-blob", "botocore": "boto3"}
"""Packages that belong to a requirement."""
BY_NAME = {
    "gcsfs": "gcs",
    "silero-vad": "silero_vad",
    "whisper-normalizer": "whisper_normalizer",
}
"""Extras whose module is imported by its name."""


@pytest.fixture(scope="module")
def used() -> dict[str, set[tuple[str, bool]]]:
    """Return the distributions of the modules that raysp imports, with the files, and whether at their top."""
    owners = packages_distributions()
    found: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for path in sources(CHECKOUT / "raysp"):
        for one in imports_of(path):
            module = one.module.partition(".")[0].rstrip("*")
            # No name at all: a module beside the one that imports it.
            if module not in sys.stdlib_module_names and module not in ("raysp", "") and not one.typing:
                module = COMES_ALONG.get(module, module)
                names = {canonicalize_name(name) for name in owners.get(module, [module])}
                name = next((name for name in names if name in REQUIRED or name in EXTRAS), module)
                found[name].add((str(path.relative_to(CHECKOUT / "raysp")), not one.lazy))
    return found


@pytest.mark.slow
def test_each_library_that_raysp_imports_is_required_or_an_extra_that_is_imported_where_it_is_used(used):
    assert len(used) > 20
    assert used.keys() - REQUIRED.keys() - EXTRAS.keys() == set()
    at_the_top = {(name, file) for name in EXTRAS for file, is_at_top in used.get(name, ()) if is_at_top}
    assert {(name, file) for name, file in at_the_top if not ROOMS.match(file)} == set()


@pytest.mark.slow
def test_each_requirement_and_each_extra_is_used(used):
    assert REQUIRED.keys() - used.keys() == set()
    texts = "\n".join(path.read_text() for path in sources(CHECKOUT / "raysp"))
    for name in EXTRAS.keys() - used.keys():
        module = BY_NAME.get(name, name)
        assert re.search(rf"\"{module}|{module}\b", texts), name
