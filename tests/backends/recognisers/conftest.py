from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.backends.recognisers.tiny_ctc import BUILDERS as CTC_BUILDERS
from tests.backends.recognisers.tiny_omni import BUILDERS


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory) -> Callable[[str], Path]:
    """Return the function that returns the folder of a random checkpoint of a model type."""

    @cache
    def built(name: str) -> Path:
        if "voxtral" in name:
            pytest.importorskip("mistral_common", reason="mistral-common is not installed: it asks for numpy<2.4")
        return {**BUILDERS, **CTC_BUILDERS}[name](tmp_path_factory.mktemp(name))

    return built
