from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from raysp.backends.hugging_face.recogniser_families import FAMILIES
from tests.backends.recognisers import tiny_ctc
from tests.backends.recognisers.builders import BUILDERS


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory) -> Callable[[str], Path]:
    """Return the function that returns the folder of a random checkpoint of a model type."""

    @cache
    def built(name: str) -> Path:
        if name in tiny_ctc.BUILDERS:
            return tiny_ctc.BUILDERS[name](tmp_path_factory.mktemp(name))
        if package := FAMILIES[name].package:
            pytest.importorskip(package.replace("-", "_"), reason=f"{package} is not installed: it asks for numpy<2.4")
        return BUILDERS[name](tmp_path_factory.mktemp(name))

    return built
