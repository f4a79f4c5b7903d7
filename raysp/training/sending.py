"""Values of steps on their way to a server: a thread sends them, and a server that is away holds up no step."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

logger = logging.getLogger(__name__)

PAUSE = 30.0
"""Seconds from a failure until values are sent again."""


class Sent(NamedTuple):
    """The values of a step."""

    step: int
    milliseconds: int
    """When they were received, since 1970."""
    values: Mapping[str, float]


class Sender:
    """Thread that sends values in the order of their steps; those that cannot be sent are kept and sent again.

    Args:
        name: name of the receiver, for messages.
        send: sends the values of some steps, all or none of them.
        most: values that are sent at once, unless one step has more.
    """

    def __init__(self, name: str, send: Callable[[Sequence[Sent]], None], most: int) -> None:
        self._name = name
        self._send = send
        self._most = most
        self._waiting: deque[Sent] = deque()
        self._changed = threading.Condition()
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"values for {name}", daemon=True)
        self._thread.start()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step."""
        with self._changed:
            self._waiting.append(Sent(step, time.time_ns() // 1_000_000, dict(values)))
            self._changed.notify()

    def finish(self, seconds: float) -> None:
        """Wait until all values are sent, or one more try has failed; not longer than some seconds."""
        self._is_ending.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            left = [one.step for one in self._waiting]
        if left:
            steps = f"step {left[0]}" if len(left) == 1 else f"{len(left)} steps from {left[0]} to {left[-1]}"
            logger.warning("tracker %r: values of %s are lost there; the sink has them", self._name, steps)

    def _run(self) -> None:
        has_failed = False
        while steps := self._next():
            try:
                self._send(steps)
            except Exception as error:
                if self._is_ending.is_set():
                    return
                if not has_failed:
                    logger.warning(
                        "tracker %r: values from step %d on wait until the server takes them: %s",
                        self._name,
                        steps[0].step,
                        error,
                    )
                has_failed = True
                self._is_ending.wait(PAUSE)
                continue
            has_failed = False
            with self._changed:
                for _ in steps:
                    self._waiting.popleft()

    def _next(self) -> list[Sent]:
        """Return the next steps, once there are any; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending.is_set())
            found: list[Sent] = []
            num_values = 0
            for one in self._waiting:
                num_values += len(one.values)
                if found and num_values > self._most:
                    break
                found.append(one)
            return found
