"""Several workers: Ray Train places and restarts them; steps, rows and commits are as for one worker."""

import contextlib
import logging
import tempfile
import threading
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from raysp import tracebacks
from raysp.cluster.connection import cluster_resources, local_ray, process_kept
from raysp.cluster.resources import Resources, on_node
from raysp.devices import num_cpus
from raysp.errors import PlanError, RayspError, RunError
from raysp.labelling.engine.piece_reading import process_decoder
from raysp.sink import fault_injection
from raysp.sink.fencing import FencedStore
from raysp.storage.stores import open_store
from raysp.training.data.row_windows import Failures
from raysp.training.loop.not_finite import NotFiniteError
from raysp.training.loop.process_settings import process_settings
from raysp.training.loop.training_steps import WorkerGroup
from raysp.training.loop.worker import new_session
from raysp.training.on_ray.board import Board, News
from raysp.training.on_ray.rank_input import READER_CPUS, Feeder, fed_rows, prepared_of
from raysp.training.preparing import Prepared
from raysp.training.sink import committed_steps
from raysp.training.sink.step_log import StepRecord
from raysp.words import count, megabytes

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
END_SECONDS = 60.0
"""Longest wait for the workers at the end: Ray must not be shut down while Ray Train uses it."""
MOST_LOSSES = 3
"""Losses of Ray Train's own process without a commit between them, after which a training fails."""
TIMEOUT_SECONDS = 120
"""Time that workers wait for each other, in which a step must be done."""
RESIZE_SECONDS = 300.0
"""Seconds between checks for nodes that can take more workers, which restart all workers from the last commit."""
_SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}


def train(
    prepared: Prepared, failures: Failures, should_stop: Callable[[], bool], run_id: str, epoch: int
) -> Generator[tuple[StepRecord, int | None]]:
    """Train on the Ray that is connected, else on a local one; yield each step with the number of steps committed.

    Args:
        prepared: the training.
        failures: receives the rows that could not be decoded.
        should_stop: whether the workers should stop after their current step.
        run_id: id of the run that commits.
        epoch: epoch of the lease that it holds.

    Raises:
        NotFiniteError: a loss is not finite.
        RunError: too many rows cannot be decoded, or the workers cannot go on.
    """
    workers = prepared.plan.workers
    cpus = workers.low * workers.threads
    with contextlib.ExitStack() as stack:
        stack.enter_context(process_kept(_SETTINGS))
        # CPUs for readers too, in addition to the workers, which wait for rows.
        stack.enter_context(local_ray(Resources(cpus=cpus + num_cpus())))
        there, memory = cluster_resources(), workers.low * (prepared.plan.recipe.pool.memory or 0)
        if cpus + READER_CPUS > there.cpus:
            raise PlanError(
                f"pool: {count(workers.low, 'worker')} of {count(workers.threads, 'CPU')} each, and at least "
                f"{READER_CPUS:g} CPUs for reading; found {there.cpus:g} CPUs: lower pool.actors or pool.cpus"
            )
        if there.memory is not None and memory > there.memory:
            raise PlanError(
                f"pool: {count(workers.low, 'worker')} need {megabytes(memory)} of memory; Ray has "
                f"{megabytes(there.memory)}: lower pool.actors or pool.memory"
            )
        board, config = stack.enter_context(_board_and_feeder(prepared, run_id, epoch))
        losses, committed = 0, None
        while True:
            groups = _placement_groups()
            fit = _begun(prepared, config)
            try:
                news = yield from _watched(fit, board, failures, should_stop)
            finally:
                if not fit.done():
                    board.stop.remote()
                    wait([fit], END_SECONDS)
            if news.failure:
                raise news.failure
            if (error := fit.exception()) is None:
                return
            losses, committed = (losses + 1 if news.committed == committed else 1), news.committed
            if losses > MOST_LOSSES:
                raise RunError(f"the workers ended: {error}. Run the same command again to continue") from error
            logger.warning("Ray Train ended (%s); starting the workers again", error)
            for left in _placement_groups() - groups:
                remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(left)))


def _placement_groups() -> set[str]:
    """Return the ids of the placement groups that hold resources; Ray Train's own cleaner needs an API server."""
    return {name for name, group in placement_group_table().items() if group["state"] != "REMOVED"}


def _watched(
    fit: Future[None],
    board: Any,  # noqa: ANN401 - handle of an actor
    failures: Failures,
    should_stop: Callable[[], bool],
) -> Generator[tuple[StepRecord, int | None], None, News]:
    """Yield the steps until Ray Train ends, and return the last news."""
    is_stopping = False
    while True:
        is_over = fit in wait([fit], POLL_SECONDS).done
        news: News = ray.get(board.take.remote())
        failures.by_type, failures.examples = news.errors, news.examples
        failures.leave(news.failed)
        yield from news.steps
        if is_over:
            return news
        if should_stop() and not is_stopping:
            is_stopping = True
            board.stop.remote()


@contextlib.contextmanager
def _board_and_feeder(prepared: Prepared, run_id: str, epoch: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Start the actors that outlive workers, on the node of this process, and end them afterwards."""
    shared = ray.put(prepared.plan.code), ray.put(prepared)
    here: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": on_node(ray.get_runtime_context().get_node_id())}
    board: Any = ray.remote(Board).options(max_concurrency=1, **here).remote()
    feeder: Any = ray.remote(Feeder).options(max_restarts=-1, max_task_retries=-1, **here).remote(shared)
    config = {
        "shared": shared,
        "board": board,
        "feeder": feeder,
        "faults": fault_injection.arm(),
        "run_id": run_id,
        "epoch": epoch,
    }
    try:
        yield board, config
    finally:
        for actor in (feeder, board):
            with contextlib.suppress(Exception):
                ray.kill(actor)


def _begun(prepared: Prepared, config: dict[str, Any]) -> Future[None]:
    """Call Ray Train in a thread: in the main thread it would take over the handling of signals."""
    future: Future[None] = Future()

    def call() -> None:
        try:
            _fit(prepared, config)
            future.set_result(None)
        except BaseException as error:  # whatever ends the thread ends the wait for it
            future.set_exception(error)

    threading.Thread(target=call, name="raysp-fit", daemon=True).start()
    return future


def _fit(prepared: Prepared, config: dict[str, Any]) -> None:
    from ray.train import FailureConfig, RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import ScalingConfig

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    plan = prepared.plan
    low, high, on_gpu = plan.workers.low, plan.workers.high, plan.workers.device == "cuda"
    with tempfile.TemporaryDirectory(prefix="raysp-train-") as folder, _short_end():
        TorchTrainer(
            _work,
            train_loop_config=config,
            scaling_config=ScalingConfig(
                num_workers=low if low == high else (low, high),
                use_gpu=on_gpu,
                resources_per_worker={"CPU": plan.workers.threads, "memory": plan.recipe.pool.memory or 0},
                elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            ),
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=TIMEOUT_SECONDS),
            run_config=RunConfig(
                name=f"raysp-{uuid.uuid4().hex[:8]}",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=-1),
            ),
        ).fit()


@contextlib.contextmanager
def _short_end() -> Iterator[None]:
    """Wait two seconds, not ten, for an actor that asks an API server, which a local Ray of a run does not have."""
    from ray.train.v2.api import data_parallel_trainer

    name = "PlacementGroupCleanerCallback"
    own = getattr(data_parallel_trainer, name, None)
    if own is None:
        yield
        return
    setattr(data_parallel_trainer, name, partial(own, get_actor_timeout_s=1, stop_timeout=2.0))
    try:
        yield
    finally:
        setattr(data_parallel_trainer, name, own)


def _work(config: Mapping[str, Any]) -> None:
    """Train as one of the workers; Ray Train calls it in each of them, again after any of them ended."""
    import ray.train

    context = ray.train.get_context()
    number, num_workers, board = context.get_world_rank(), context.get_world_size(), config["board"]
    fault_injection.adopt(config["faults"])
    prepared = prepared_of(config["shared"])
    plan = prepared.plan
    recipe = plan.recipe
    try:
        prepared = replace(prepared, plan=plan.located())
        with process_settings(plan.workers.threads, deterministic=plan.is_deterministic):
            store = FencedStore(open_store(recipe.sink.url, recipe.sink.storage_options), config["epoch"])
            committed = committed_steps.latest(store)
            if not ray.get(board.begin.remote(number, num_workers, committed and committed.position.done)):
                return
            workers = WorkerGroup(number, num_workers)
            failures = Failures(recipe.max_error_rate)
            session = new_session(
                prepared,
                partial(fed_rows, config["feeder"], failures, number, num_workers),
                failures,
                store,
                workers=workers,
                decoder=process_decoder(),
                run_id=config["run_id"],
            )
            if len({*workers.gather(session.position.done)}) > 1:  # a process that counted as lost committed a step
                raise RuntimeError("the workers began at different steps")
            answers: deque[Any] = deque(maxlen=2)  # whether to stop: of the step before the last, not waited for
            try:
                for step, done in session.run(lambda: len(answers) == 2 and ray.get(answers[0])):
                    if number == 0:
                        counts = failures.by_type.copy(), failures.examples.copy()
                        answers.append(board.add.remote(step, done, *counts))
            finally:
                if number == 0:
                    ray.get(board.leave.remote(session.committed, failures.by_type, failures.examples, failures.take()))
    except RayspError as error:
        ray.get(board.fail.remote(error))
        if not isinstance(error, NotFiniteError):  # which all workers raise at the same step
            raise  # ends the other workers too
    except Exception as error:
        if tracebacks.is_of_users_code(error):  # no repetition helps
            failure = RunError(f"the training failed: {tracebacks.described(error)}")
            failure.add_note("".join(traceback.format_exception(error)))
            ray.get(board.fail.remote(failure))
        raise
