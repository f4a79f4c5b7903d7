"""Calls of a function for many items, by processes of this machine or tasks of a cluster, as they are finished.

Results do not depend on the process that makes them. Items of a process that ended early, and those over which code of
a user failed, are called in this process, which raises the error.

As a main program this file is such a process: it reads a line with the user's code and the function, then an item per
line from stdin, and writes an answer per item to stdout. It ends with its standard input, hence with this process.
"""

import base64
import functools
import io
import os
import pickle
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Generic, TypeVar, cast

import cloudpickle

from raysp import tracebacks
from raysp.corpus.surveys import LineProcess
from raysp.errors import ProgramError, RayspError, RunError, SpecError
from raysp.specs.code import UserCode

MAIN = "raysp.cluster.spreading"
AHEAD = 16
"""Tasks that wait besides those that run: an autoscaler starts nodes for them."""
WAIT_SECONDS = 0.2
"""Longest wait for Ray: no signal handler runs meanwhile."""
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Spread(Generic[Item, Result]):
    """A function of items that other processes can call.

    Args:
        here: the function in this process.
        elsewhere: the function in other processes.
        code: code of users that it needs.
        work: predicate for messages, such as "reads footers".
    """

    here: Callable[[Item], Result]
    elsewhere: Callable[[Item], Result]
    code: UserCode = field(default_factory=UserCode)
    work: str = "works"

    def in_processes(self, items: Sequence[Item], processes: int) -> Generator[tuple[Item, Result]]:
        """Yield items with their results; if there is one process, by this one.

        Raises:
            SpecError: the function cannot be sent.
        """
        if processes == 1 or len(items) < 2:
            yield from ((item, self.here(item)) for item in items)
            return
        data, waiting = self._data(), deque(items)
        answers: queue.SimpleQueue[tuple[Item, bytes | None]] = queue.SimpleQueue()
        with ExitStack() as stack:
            stack.callback(waiting.clear)
            alive = min(processes, len(items))
            for _ in range(alive):
                process = stack.enter_context(LineProcess(MAIN, b"", self.work))
                threading.Thread(target=_serve, args=(process, data, waiting, answers), daemon=True).start()
            for _ in items:
                item, line = answers.get() if alive else (waiting.popleft(), None)
                alive -= line is None
                yield item, self._result(item, None if line is None else pickle.loads(base64.b64decode(line)))

    def by_tasks(self, items: Sequence[Item], address: str | None = None) -> Generator[tuple[Item, Result]]:
        """Yield items with their results, by tasks of the connected cluster, or else of the one at an address.

        Raises:
            PlanError: no cluster answers at the address.
            RunError: Ray failed, or a task's process ended several times.
            SpecError: the function cannot be sent.
        """
        from raysp.cluster.connection import connected

        with connected(address):
            yield from self._by_tasks(items)

    def _by_tasks(self, items: Sequence[Item]) -> Generator[tuple[Item, Result]]:
        import ray

        from raysp.cluster.resources import totals

        task = ray.remote(cast("Any", answer_of)).options(num_cpus=1, scheduling_strategy="SPREAD")
        data, waiting = ray.put(self._data()), deque(items)  # each node receives the data once
        in_flight: dict[Any, Item] = {}
        try:
            while waiting or in_flight:
                cpus = sum(total.get("CPU", 0.0) for total in totals().values())
                while waiting and len(in_flight) < cpus + AHEAD:
                    item = waiting.popleft()
                    in_flight[task.remote(data, item)] = item
                for ref in ray.wait([*in_flight], timeout=WAIT_SECONDS)[0]:
                    answer = ray.get(ref)
                    item = in_flight.pop(ref)
                    yield item, self._result(item, answer)
        except ray.exceptions.RayError as error:
            reason = tracebacks.described(error)
            raise RunError(f"a task of the cluster failed: {reason}; run the same command again to go on") from error
        finally:
            for ref in in_flight:
                ray.cancel(ref, force=True)

    def _data(self) -> bytes:
        """Return the bytes that `_function_of` reads."""
        try:
            return pickle.dumps(self.code) + cast("bytes", cloudpickle.dumps(self.elsewhere))
        except (TypeError, pickle.PicklingError) as error:
            raise SpecError(
                f"no other process {self.work}: a value cannot be sent ({error}); use one process"
            ) from error

    def _result(self, item: Item, answer: "Answer") -> Result:
        """Return the result of another process, or of this one if there is none."""
        if isinstance(answer, RayspError):
            raise answer
        return self.here(item) if answer is None else cast("Result", answer[0])


Answer = tuple[Any] | RayspError | None
"""A result, or its error; None for an error of other code, which this process meets again."""


def _serve(
    process: LineProcess, data: bytes, waiting: "deque[Item]", answers: "queue.SimpleQueue[tuple[Item, bytes | None]]"
) -> None:
    """Send a function and then items to a process, one after the other, and collect its answers."""
    process.send(base64.b64encode(data) + b"\n")
    line: bytes | None = b""
    while line is not None:
        try:
            item = waiting.popleft()
        except IndexError:
            return
        process.send(base64.b64encode(pickle.dumps(item)) + b"\n")
        line = process.receive()
        answers.put((item, line))


@functools.lru_cache(maxsize=1)
def _function_of(data: bytes) -> Callable[[object], object]:
    """Read a function, after the user's code that it is made of."""
    tracebacks.refuse_debuggers()
    file = io.BytesIO(data)
    code: UserCode = pickle.load(file)
    code.install()
    function: Callable[[object], object] = pickle.load(file)
    return function


def answer_of(data: bytes, item: object) -> Answer:
    """Return the answer for an item in another process, which may be a task of a cluster."""
    function = _function_of(data)
    try:
        return (function(item),)
    except RayspError as error:
        return None if isinstance(error, ProgramError) else error
    except Exception:
        return None


def main() -> None:
    """Call the function, and write the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries is no answer
    data = base64.b64decode(sys.stdin.buffer.readline())
    items: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, items.put), daemon=True).start()
    while True:
        answers.write(base64.b64encode(pickle.dumps(answer_of(data, items.get()))) + b"\n")
        answers.flush()


def _read(requests: BinaryIO, put: Callable[[object], None]) -> None:
    """Read each item as soon as it arrives, and end the process at the end of them."""
    for line in requests:
        put(pickle.loads(base64.b64decode(line)))
    os._exit(0)


if __name__ == "__main__":
    main()
