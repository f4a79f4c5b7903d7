"""Parameters of `make soak` alone: repetitions of what `make test` shows once."""

from collections.abc import Iterable
from typing import Any

import pytest


def soaked(values: Iterable[object]) -> list[Any]:
    """Mark parameters for `make soak`. A tuple holds the values of several arguments."""
    arguments = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*each, marks=pytest.mark.soak) for each in arguments]
