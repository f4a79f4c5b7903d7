"""Incremental input of one Ray Data plan, with bounded memory in the driver.

Ray Data takes all inputs of a plan at its start and keeps statistics of every block to its end: kilobytes per block,
too much for millions of blocks. Its executor calls `Feeding` after every step, which submits more tasks as earlier ones
are read, drops the submitted inputs, and clears the statistics. One plan thus serves a whole run, and its actors load
their model once.

Ray passes small objects by value. A task below `MAX_TASK_BYTES` therefore does not need the object of its input again,
even if a node is lost and the task is repeated.
"""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.interfaces.ref_bundle import BlockEntry, RefBundle
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
from ray.data._internal.execution.operators.input_data_buffer import InputDataBuffer
from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.data.block import BlockAccessor

from raysp.cluster.waiting import Waiting
from raysp.labelling.engine.on_ray.actor_watch import Actor, ActorWatch
from raysp.labelling.engine.on_ray.model_loads import FailedNodes, watch_loads
from raysp.labelling.engine.run_events import RunEvents

if TYPE_CHECKING:
    from ray.data import DataContext
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

MAX_TASK_BYTES = 64_000
"""Largest table of a task; Ray passes objects of up to 100 kB by value."""
SETTING = "raysp.feed"
"""Key of a feed's number in the context of its dataset: contexts are sent to workers, feeds stay in the driver."""

_feeds: dict[int, "Feed"] = {}
_numbers = itertools.count()


class Feed:
    """Tasks not yet submitted to Ray Data.

    Args:
        tasks: serialised pieces; consumed on demand, by another thread.
        ahead: largest number of tasks submitted and not completely read.
        waiting: check for room in the cluster.
        nodes: nodes on which model actors could not load their model.
        events: event log of the run.
    """

    def __init__(
        self,
        tasks: Iterator[list[str]],
        ahead: int,
        waiting: Waiting | None = None,
        nodes: FailedNodes | None = None,
        events: RunEvents | None = None,
    ) -> None:
        self.tasks = tasks
        self.ahead = ahead
        self.waiting = waiting
        self.nodes = nodes
        self.events = events
        self.error: Exception | None = None
        """Exception raised by `tasks`; the plan ends after the tasks submitted before it."""
        self._number = next(_numbers)

    def attach(self, context: "DataContext") -> None:
        """Feed the plan of the dataset with this context."""
        _feeds[self._number] = self
        context.set_config(SETTING, self._number)
        context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, Feeding]

    def detach(self) -> None:
        """Submit no more tasks."""
        _feeds.pop(self._number, None)

    def take(self) -> pa.Table | None:
        """Return the next task; None after the last one."""
        try:
            task = next(self.tasks, None)
        except Exception as error:
            self.error = error
            return None
        return None if task is None else pa.table({"piece": ["\n".join(task)]})


class Feeding(ExecutionCallback):
    """Callback that submits tasks to the input of a plan and clears its operators' statistics of blocks."""

    feed: Feed | None = None
    actors: ActorWatch | None = None
    waiting: Waiting | None = None

    def before_execution_starts(self, executor: "StreamingExecutor") -> None:
        """Find the input operator, and keep it open."""
        self.feed = _feeds.get(executor._data_context.get_config(SETTING))
        operators = executor._topology or {}
        self.input = next(one for one in operators if isinstance(one, InputDataBuffer))
        self.maps = [one for one in operators if isinstance(one, MapOperator)]
        self.submitted = len(self.input._input_data)
        self.waiting = self.feed.waiting if self.feed else None
        events = self.feed.events if self.feed else None
        self.actors = ActorWatch(events) if events else None
        self.model_pool = next(one for one in self.maps if isinstance(one, ActorPoolMapOperator))
        watch_loads(self.model_pool, self.feed.nodes if self.feed else None, events.actor_failed if events else None)
        if self.feed:
            self.input._is_execution_marked_finished = self.input._inputs_complete = False
            operators[self.input].inputs_done_called = True  # without inputs it would count as complete

    def on_execution_step(self, executor: "StreamingExecutor") -> None:
        """Submit tasks until `ahead` of them are in progress."""
        for one in self.maps:
            one._output_blocks_stats.clear()
        if self.actors:
            self.actors.look(_actors(self.model_pool))
        if self.waiting:
            self.waiting.look(self.model_pool._actor_pool.num_running_actors())
        if self.feed is None:
            return
        self._drop_submitted()
        while self.submitted - self.maps[0].metrics.num_tasks_finished < self.feed.ahead:
            if (task := self.feed.take()) is None:
                self.feed = None
                self.input._inputs_complete = True
                self.input.mark_execution_finished()  # type: ignore[no-untyped-call]
                return
            bundle = _bundle(task)
            self.input._input_data.append(bundle)
            self.input.metrics.on_input_received(bundle)
            self.submitted += 1

    def _drop_submitted(self) -> None:
        del self.input._input_data[: self.input._input_data_index]
        self.input._input_data_index = 0


def _actors(pool: ActorPoolMapOperator) -> dict[str, Actor]:
    """Return the actors that have loaded their model, by id, those that are being restarted included."""
    running = cast("Any", pool._actor_pool)._running_actors
    return {
        handle._actor_id.hex(): Actor(state.actor_location, state.is_restarting) for handle, state in running.items()
    }


def _bundle(task: pa.Table) -> RefBundle:
    metadata = BlockAccessor.for_block(task).get_metadata()
    entry = BlockEntry(cast("Any", ray.put(task)), metadata)
    return RefBundle((entry,), schema=task.schema, owns_blocks=True)
