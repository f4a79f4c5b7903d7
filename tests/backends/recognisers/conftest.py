from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.backends.recognisers.builders import BUILDERS


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory) -> Callable[[str], Path]:
    """Return the function that returns the folder of a random checkpoint of a model type."""
    return cache(lambda name: BUILDERS[name](tmp_path_factory.mktemp(name)))
