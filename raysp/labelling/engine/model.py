"""The model of a `Label` step in a process that labels blocks with it, and calls and items in order."""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Self, TypeVar

import pyarrow as pa

from raysp.labelling import assembly
from raysp.labelling.engine.watchdog import watched
from raysp.labelling.planning.run_plan import Pass
from raysp.ops.blocks import BlockOp, Figures
from raysp.ops.decoding import seconds_left

if TYPE_CHECKING:
    from raysp.labelling.engine.job import Job


P = ParamSpec("P")
T = TypeVar("T")


class LabelledBlock(NamedTuple):
    """Windows of a block with their labels."""

    labels: pa.Table
    figures: Figures
    waited: float
    """Seconds that the model was idle before the block."""
    seconds_left: float
    """Seconds of audio in its piece after the block, by headers."""


class Model:
    """The model of a `Label` step.

    Calls may overlap. The model runs in threads of its own, one for each block in flight (`blocks_in_flight` of its
    op), so that it runs over the next block while columns are made of a result, and while it is staged.

    Args:
        step: the `Label` step with its settings.
        hang_seconds: time after which a block counts as hung, which ends the process; 0: no limit.
        threads: torch threads on CPUs; None: as the settings have it.
        in_this_thread: run the model in the calling thread.
    """

    def __init__(
        self, step: Pass, hang_seconds: float = 0.0, *, threads: int | None = None, in_this_thread: bool = False
    ) -> None:
        self._hang_seconds = hang_seconds
        self._threads = None if in_this_thread else ThreadPoolExecutor(1)
        # In the thread that runs the model if it takes one block at a time: torch's threads are set per thread.
        self.op = self._in_thread(_load, step, threads or step.settings.cpus_per_actor.number)
        self.slots = Slots(self.op.blocks_in_flight)
        self.at_once = 1 if self.op.blocks_in_flight == 1 else 1 + self.op.blocks_in_flight
        """Blocks of a piece that overlap: on a device, those in the model and one that is prepared."""
        if self.op.blocks_in_flight > 1 and self._threads is not None:
            self.close()
            self._threads = ThreadPoolExecutor(self.op.blocks_in_flight)

    def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of a call in a thread of the model."""
        return call(*args, **kwargs) if self._threads is None else self._threads.submit(call, *args, **kwargs).result()

    @classmethod
    def of(cls, job: "Job", *, in_this_thread: bool = False) -> list[Self]:
        """Return the models of a run, one for each `Label` step.

        Args:
            job: job of the run.
            in_this_thread: do all work in the calling thread, one block after another.
        """
        models = [cls(step, job.hang_seconds, in_this_thread=in_this_thread) for step in job.passes]
        for model in models if in_this_thread else ():
            model.at_once = 1
        return models

    def close(self) -> None:
        """End the model's threads."""
        if self._threads is not None:
            self._threads.shutdown()

    def __call__(self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None) -> LabelledBlock:
        """Label a decoded block.

        Args:
            block: the block.
            shard: name of its shard, which with the number of a row seeds random sampling.
            names: names of rows by their numbers, which seed random sampling in their place.

        Raises:
            DeviceLostError: the device of the model failed.
        """
        prepared = self.op.prepare(block, shard, names=names)
        table, figures, waited = self._in_thread(self._run, prepared)
        labels = self.op.table(prepared) if table is None else table
        return LabelledBlock(labels, figures, waited, seconds_left(block))

    def _run(self, block: Any) -> tuple[pa.Table | None, Figures, float]:  # noqa: ANN401 - the value of `prepare`
        """Run the model; make the table here only if the user's code, which may hang or crash, takes part in it."""
        with self.slots.occupied() as waited, watched(self._hang_seconds * self.op.blocks_in_flight):
            figures = self.op.run(block)
            table = self.op.table(block) if self.op.has_users_code else None
        return table, figures, waited


@contextmanager
def threads_kept() -> Iterator[int]:
    """Yield the number of torch threads of the calling thread, and restore it, which new threads would take over."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _load(step: Pass, threads: int) -> BlockOp:
    """Load the model, and set the number of torch threads of this thread."""
    if step.pipeline.reads_audio:
        import torch

        torch.set_num_threads(threads)
    return assembly.labelling(step, threads=threads)


class Slots:
    """Slots for the blocks that a model runs at once, and the time that all were free."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._changed = threading.Condition()
        self._num_taken = 0
        self._idle_since: float | None = None

    @contextmanager
    def occupied(self) -> Iterator[float]:
        """Wait for a slot and hold it; yields the seconds that the model was idle before."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_taken < self.number)
            waited = time.monotonic() - self._idle_since if self._num_taken == 0 and self._idle_since else 0.0
            self._num_taken += 1
        try:
            yield waited
        finally:
            with self._changed:
                self._num_taken -= 1
                self._idle_since = time.monotonic()
                self._changed.notify_all()


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
    """Yield items that another thread produces, at most `most` of them in advance; 0: any number.

    Raises:
        BaseException: the error that ended the other thread.
    """
    ready = queue.Queue[tuple[Item | None, BaseException | None]](most)
    is_closed = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not is_closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, error), timeout=0.1)
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
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        is_closed.set()
        thread.join()
