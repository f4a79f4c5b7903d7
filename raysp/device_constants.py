"""Tensors that code keeps on a device: made once for their arguments, and held by the graphs that read them.

A graph of a device reads memory at the addresses of its capture, so its owner holds all tensors from outside. Those
that functions keep for a while could be made anew in between, at other addresses.
"""

import functools
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeAlias, TypeVar

Value = TypeVar("Value")
Given = ParamSpec("Given")
Held: TypeAlias = "dict[tuple[Hashable, ...], Any]"
"""Values by function and arguments."""

_of_thread = threading.local()


def kept_on_device(maxsize: int) -> Callable[[Callable[Given, Value]], Callable[Given, Value]]:
    """Keep the values of a function for so many last arguments, which are hashable and given by position.

    `cache_clear` forgets them, as for functions of `functools`.
    """

    def keeping(make: Callable[Given, Value]) -> Callable[Given, Value]:
        cached = functools.lru_cache(maxsize)(make)
        kept: Callable[..., Value] = cached

        @functools.wraps(make)
        def found(*args: Given.args, **kwargs: Given.kwargs) -> Value:
            held: Held | None = getattr(_of_thread, "held", None)
            if held is None:
                return kept(*args, **kwargs)
            if (make, *args) not in held:
                held[make, *args] = kept(*args, **kwargs)
            value: Value = held[make, *args]
            return value

        found.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
        return found

    return keeping


@contextmanager
def holding(held: Held) -> Iterator[None]:
    """Add what functions keep, and this thread takes within the block, to `held`; take what is there already."""
    _of_thread.held = held
    try:
        yield
    finally:
        _of_thread.held = None
