"""Fixtures of the stores' tests."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def constants(monkeypatch) -> Callable[..., None]:
    """Replace constants of a module by name: waits of minutes, and sizes of gigabytes, of which a test takes less."""

    def replace(module: ModuleType, **values: object) -> None:
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)

    return replace
