"""Parameters of `make soak` or of `make test-drivers` alone: repetitions of what `make test` shows once."""

from collections.abc import Iterable
from typing import Any

import pytest


def soaked(values: Iterable[object]) -> list[Any]:
    """Mark parameters for `make soak`. A tuple holds the values of several arguments."""
    return _marked(values, pytest.mark.soak)


def by_drivers(*values: object) -> list[Any]:
    """Mark parameters for `make test-drivers`. A tuple holds the values of several arguments."""
    return _marked(values, pytest.mark.drivers)


def _marked(values: Iterable[object], mark: pytest.MarkDecorator) -> list[Any]:
    arguments = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*each, marks=mark) for each in arguments]
