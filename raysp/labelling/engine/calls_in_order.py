"""Calls at once over items, whose results come in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_order(call: Callable[[Item], Answer], items: Iterable[Item], at_once: int) -> Iterator[Answer]:
    """Yield the results of calls in order, with at most `at_once` running."""
    with ThreadPoolExecutor(at_once) as threads:
        begun: deque[Future[Answer]] = deque()
        for item in items:
            begun.append(threads.submit(call, item))
            if len(begun) == at_once:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
