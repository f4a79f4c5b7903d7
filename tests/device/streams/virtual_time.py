"""Virtual time: threads of which one runs at a time, and a device whose copies and kernels take time of their streams.

A thread runs until it waits: for an item of a queue, for an event of the device, or for Python's lock, which work of
the host holds in slices. Then the clock goes on to what happens next. So a simulation of threads has one result.
"""

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

SLICE = 0.5
"""Milliseconds for which a thread holds Python's lock before another one may take it."""


class _Thread:
    def __init__(self) -> None:
        self.wake = threading.Semaphore(0)
        self.item: Any = None
        self.debt = 0.0
        """Milliseconds of work of the host that the clock does not know of yet."""


class Clock:
    """Milliseconds since the start, and the threads that wait for a time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._turns: list[tuple[float, int, _Thread]] = []
        self._paused = threading.Semaphore(0)
        self._of_thread = threading.local()
        self._lock_is_free_at = 0.0
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self.executors: list[Executor] = []

    def start(self, work: Callable[[], object]) -> None:
        """Run work in a thread of its own, from now on."""
        thread = _Thread()

        def run() -> None:
            self._of_thread.thread = thread
            thread.wake.acquire()
            try:
                work()
            except BaseException as error:
                self._errors.append(error)
            self._paused.release()

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        self.wake_at(self.now, thread)

    def run(self) -> float:
        """Run all threads until each has ended or waits for an item, and return the time."""
        while self._turns and not self._errors:
            time, _, thread = heapq.heappop(self._turns)
            self.now = max(self.now, time)
            thread.wake.release()
            self._paused.acquire()
        if self._errors:
            raise self._errors[0]
        return self.now

    def close(self) -> None:
        """End the threads of executors."""
        for executor in self.executors:
            executor.close()
        self.run()
        for thread in self._threads:
            thread.join(10)

    @property
    def thread(self) -> _Thread:
        """The calling thread."""
        thread: _Thread = self._of_thread.thread
        return thread

    def wake_at(self, time: float, thread: _Thread) -> None:
        heapq.heappush(self._turns, (time, next(self._order), thread))

    def pause(self) -> None:
        """Let other threads run until this one is woken."""
        thread = self.thread
        self._paused.release()
        thread.wake.acquire()

    def wait_until(self, time: float) -> None:
        self.settle()
        if time > self.now:
            self.wake_at(time, self.thread)
            self.pause()

    def work(self, milliseconds: float) -> None:
        """Hold Python's lock for some time, in slices."""
        thread = self.thread
        thread.debt += milliseconds
        while thread.debt >= SLICE:
            self._hold(SLICE)

    def settle(self) -> None:
        """Make up for work that is shorter than a slice."""
        while self.thread.debt > 1e-9:
            self._hold(min(SLICE, self.thread.debt))

    def _hold(self, milliseconds: float) -> None:
        self.thread.debt -= milliseconds
        start = max(self.now, self._lock_is_free_at)
        self._lock_is_free_at = start + milliseconds
        self.wake_at(start + milliseconds, self.thread)
        self.pause()


class Queue:
    """`queue.SimpleQueue` in virtual time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.items: deque[Any] = deque()
        self.waiting: deque[_Thread] = deque()

    def put(self, item: Any) -> None:
        if self.waiting:
            thread = self.waiting.popleft()
            thread.item = item
            self.clock.wake_at(self.clock.now, thread)
        else:
            self.items.append(item)

    def get(self) -> Any:
        self.clock.settle()
        if self.items:
            return self.items.popleft()
        thread = self.clock.thread
        self.waiting.append(thread)
        self.clock.pause()
        return thread.item


class Executor:
    """`concurrent.futures.ThreadPoolExecutor` in virtual time, without results."""

    def __init__(self, clock: Clock, number: int) -> None:
        self.tasks = Queue(clock)
        self.number = number
        clock.executors.append(self)
        for _ in range(number):
            clock.start(self._work)

    def submit(self, function: Callable[..., object], *arguments: object) -> None:
        self.tasks.put((function, arguments))

    def close(self) -> None:
        for _ in range(self.number):
            self.tasks.put(None)

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            function, arguments = task
            function(*arguments)


class Costs:
    """What work of a device and its host takes, in milliseconds.

    Args:
        clock: the clock.
        kernel: time of a kernel on the device.
        launch: time of the host for its launch.
        gigabytes: bytes that a byte of a copy stands for, in units of 10**9.
    """

    PINNED, PAGEABLE = 25.0, 6.0
    """Gigabytes a second of copies."""

    def __init__(self, clock: Clock, *, kernel: float, launch: float, gigabytes: float) -> None:
        self.clock, self.kernel, self.launch, self.gigabytes = clock, kernel, launch, gigabytes
        self.busy = 0.0
        """Time in which the device ran kernels."""

    def launched(self, stream: Any) -> None:
        self.clock.work(self.launch)
        stream.ends = max(stream.ends, self.clock.now) + self.kernel
        self.busy += self.kernel

    def copied(self, stream: Any, num_bytes: int, *, is_pinned: bool) -> None:
        rate = self.PINNED if is_pinned else self.PAGEABLE
        stream.ends = max(stream.ends, self.clock.now) + 1e3 * num_bytes * self.gigabytes / rate

    def waited(self, ends: float) -> None:
        self.clock.wait_until(ends)
