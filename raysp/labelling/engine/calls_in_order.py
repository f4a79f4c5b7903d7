"""Calls at once over items, and items produced in advance, in the order of the items."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_order(call: Callable[[Item], Answer], items: Iterable[Item], at_once: int) -> Iterator[Answer]:
    """Yield the results of calls in order, with at most `at_once` running; one at a time runs in this thread."""
    if at_once == 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(at_once) as threads:
        begun: deque[Future[Answer]] = deque()
        for item in items:
            begun.append(threads.submit(call, item))
            if len(begun) == at_once:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def ahead(items: Iterable[Item], most: int) -> Generator[Item]:
    """Yield items that another thread produces, at most `most` of them in advance.

    Raises:
        BaseException: the error that ended the other thread.
    """
    taken = queue.Queue[tuple[Item | None, BaseException | None]](most)
    is_closed = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not is_closed.is_set():
            with contextlib.suppress(queue.Full):
                taken.put((item, error), timeout=0.1)
                return

    def take() -> None:
        try:
            for item in items:
                put(item, None)
                if is_closed.is_set():
                    return
            put(None, None)
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=take, name="raysp-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = taken.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        is_closed.set()
        thread.join()
