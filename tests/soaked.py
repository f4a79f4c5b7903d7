"""Parameters of `make soak` alone: repetitions of what `make test` shows once."""

from collections.abc import Iterable
from typing import Any

import pytest


def soaked(values: Iterable[object]) -> list[Any]:
    """Mark parameters for `make soak`. A tuple holds the values of several arguments."""
    marked = [one if isinstance(one, tuple) else (one,) for one in values]
    return [pytest.param(*one, marks=pytest.mark.soak) for one in marked]


def some(values: Iterable[object], *kept: object) -> list[Any]:
    """Return all parameters in their order, those that are not `kept` marked for `make soak`."""
    return [one if one in kept else soaked([one])[0] for one in values]
