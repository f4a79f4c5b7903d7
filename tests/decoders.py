"""Decoder processes that are kept from test to test: thousands of tests decode, and a process takes 0.15 s to start."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import pytest

from raysp.audio import isolation

OWN = "tests/audio/"
"""Tests of decoder processes, which start their own."""


Child = isolation._Child
"""Of the product: it ends with its `Decoder`."""


class KeptChild(Child):
    """A child that outlives its `Decoder` if it answered all that it was sent."""

    idle: ClassVar[list[Self]] = []

    def __init__(self, on_wait: Callable[[], None]) -> None:
        self.setting = _setting()
        super().__init__(on_wait)

    def end(self) -> None:
        """Keep the child, or end it if it is at work, had a failure, or another is kept."""
        is_idle = self._num_written == 2 * self._num_answered and not self._outgoing and not self._held
        if is_idle and not self.idle and self._process.poll() is None:
            self.idle.append(self)
        else:
            super().end()


def _setting() -> Any:
    """Return what a child takes over when it starts."""
    environment = {name: os.environ.get(name) for name in (*isolation._KEPT_ENVIRONMENT, "PYTHONPATH")}
    return os.getpid(), os.getcwd(), isolation.MEMORY_BYTES, environment


def _child(on_wait: Callable[[], None]) -> KeptChild:
    while KeptChild.idle:
        kept = KeptChild.idle.pop()
        if kept.setting == _setting() and kept._process.poll() is None:
            kept.on_wait = on_wait
            return kept
        super(KeptChild, kept).end()
    return KeptChild(on_wait)


@contextmanager
def kept() -> Iterator[None]:
    """Keep an idle decoder process of this process for the next `Decoder`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(isolation, "_Child", _child)
        yield
