"""Histories of labels: drivers and their tasks run, retry, clean up and are overtaken on one sink of two shards."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import pyarrow as pa

from raysp import ChangedError, PlanError, RayspError, RunError, StoreError
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine import error_rate
from raysp.labelling.engine.error_rate import ErrorRate
from raysp.labelling.engine.job import PieceTodo
from raysp.sink import commit as commit_module
from raysp.sink import footer, layout, lease, orphans, plan_record, receipts, run_record, stage
from raysp.sink.commit import LabelShard, Todo
from raysp.sink.fencing import FencedStore
from raysp.sink.layout import StagedName
from raysp.sink.recommitting import commit_staged, find_error_rows, retry_whole
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry, RunRecord
from tests.sink.simulation.actors import Actor, RefusedError, StoppedError, ViolationError
from tests.sink.simulation.chances import Chances
from tests.sink.simulation.checks import check, check_left_out, check_planned_under, check_refusal
from tests.sink.simulation.store import (
    FINGERPRINTS,
    OUTPUTS,
    ROWS,
    SHARD_NAMES,
    STAGE_ID,
    OneByOne,
    Store,
    has_every_row,
    key_values,
    labelled,
    source_ids,
    steps_behind,
)
from tests.sink.simulation.world import SLEEP_SECONDS, World

ENTRY = replace(RunEntry.now(command=["raysp"]), versions={})
REST_SECONDS = 2 * SLEEP_SECONDS
"""After so long `gc` takes a file for one that no commit will name: those here are held up at one call in between."""
ATTEMPTS = 3


class Driver:
    """A run, step by step as the engine does it; its tasks are actors of their own and may outlive it."""

    def __init__(self, world: World, name: str, kind: str, holds_lease: bool, names: Sequence[str] = ()) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.fingerprint = STAGE_ID
        self.holds_lease = holds_lease
        self.names = names
        """Shards to label again; none: by chance."""
        self.tasks: dict[Actor, tuple[Todo, PieceTodo | None, int]] = {}
        self.waiting: dict[str, set[Piece]] = {}
        """Rows of each shard that are not staged."""
        self.rate = ErrorRate(world.most)
        self.errors: Counter[str] = Counter()
        """Error rows of each shard, as counted."""
        self.failed: list[str] = []
        self.began = self.planned = 0
        self.log: RunLog

    def work(self, actor: Actor) -> None:
        store = Store(self.world, actor)
        if self.kind == "gc":
            self._clean(actor, store)
            return
        own = self.world.take_lease(actor, self.name, store) if self.holds_lease else None
        try:
            actor.began = self.began = self.world.changes
            fresh, todo = self._plan(store)
            self.planned = self.world.changes
            if own:
                check_planned_under(self.world, self, own)
                actor.epoch = own.epoch
                store = FencedStore(store, own.epoch, own)
            self._record(actor, store)
            plan_record.record(store, fresh, supersede=self.kind == "again")
            self.log = RunLog(store, self.name)
            try:
                self._execute(actor, own, {one.shard.name: one for one in todo})
            except RayspError:
                self._flush()
                raise
            self._flush()
            if self.rate.is_exceeded:
                self._stop(actor, store)
            if own:
                own.release()
        except BaseException as error:
            for task in self.tasks:  # Ray ends them, sooner or later
                task.doomed = self.world.random.random() < 0.5
            if own and isinstance(error, RayspError):
                with suppress(StoreError):
                    own.close()
            raise
        if self.failed:
            raise StoreError(f"not committed: {'; '.join(self.failed)}")

    def _flush(self) -> None:
        with suppress(StoreError):
            self.log.flush()

    def _clean(self, actor: Actor, store: Store) -> None:
        own = self.world.take_lease(actor, self.name, store)
        actor.began = self.world.changes
        orphans.remove_orphans(store, own, partial(orphans.find_orphans, rest_seconds=REST_SECONDS))
        own.release()

    def _plan(self, store: Store) -> tuple[list[Shard], list[Todo]]:
        record = run_record.load(store)
        recorded = plan_record.load(store) if record else {}
        if record and self.kind == "plain":
            if record.fingerprint != self.fingerprint and run_record.is_open(store, record, STAGE_ID):
                record = replace(record, fingerprint=self.fingerprint)
            with self._refused(store.actor):
                run_record.check_same("memory", record, self._run_record())
        elif record:  # retries are of the recorded pipeline
            self.fingerprint = record.fingerprint
        if self.kind == "retry":
            return [], list(find_error_rows(store, list(recorded.values()), self.fingerprint))
        found = [one for one in self.world.source() if self.kind != "again" or one.name in recorded]
        if self.names:
            found = [one for one in found if one.name in self.names]
        elif self.kind == "again" and len(found) > 1 and self.world.happens(self.world.chances.one_shard):
            found = [self.world.random.choice(found)]
        shards = [
            recorded[one.name] if one.name in recorded and recorded[one.name].version == one.version else one
            for one in found
        ]
        fresh = [one for one in shards if recorded.get(one.name) != one]
        if self.kind == "again":
            return fresh, [retry_whole(store, one) for one in shards]
        if changed := [one.name for one in fresh if one.name in recorded]:
            raise RefusedError(f"{changed}: the content changed since it was planned")
        _, todo = commit_module.compare(store, shards, self.fingerprint, stage_id=STAGE_ID)
        for one in todo:
            begun = [piece for piece in one.shard.pieces if any(piece.first <= p.first < piece.end for p in one.pieces)]
            if any(has_every_row(store.actor.listed, one.shard, [piece], STAGE_ID) for piece in begun):
                self.world.violations.append(f"{self.name} labels again what is staged of {one.shard.name}")
        return fresh, [one.without_failed(self.world.most) for one in todo]

    def _record(self, actor: Actor, store: Store | FencedStore) -> None:
        with self._refused(actor):
            run_record.begin(store, self._run_record())

    def _run_record(self) -> RunRecord:
        entry = replace(ENTRY, run_id=self.name)
        parts, stage_id = {"behind": self.fingerprint}, "" if self.fingerprint == STAGE_ID else STAGE_ID
        return RunRecord(ENTRY.started, {}, self.fingerprint, parts, {}, (entry,), stage_id=stage_id)

    @contextmanager
    def _refused(self, actor: Actor) -> Iterator[None]:
        try:
            yield
        except ChangedError:
            check_refusal(self.world, actor)
            self.world.story.append(f"{self.world.now:.1f} {self.name} is refused with {self.fingerprint}")
            raise

    def _execute(self, actor: Actor, own: lease.Lease | None, todo: dict[str, Todo]) -> None:
        self.waiting = {name: set(one.pieces) for name, one in todo.items()}
        for one in todo.values():
            self.rate.rows += one.shard.num_rows - one.num_rows if one.keeps_rows else 0
            for staged in one.staged:
                self._count(one, staged.rows.num_rows, staged.name.errors)
            for part in one.pieces:
                piece = next(piece for piece in one.shard.pieces if piece.first <= part.first and part.end <= piece.end)
                self._label(one, PieceTodo(one.shard, piece, part, one.retry))
        for one in todo.values():
            if not one.pieces:
                self._release(todo, self.rate.release(one, self.errors[one.shard.name]))
        self._watch(actor, own, todo)
        if not self.rate.is_exceeded:
            self._release(todo, self.rate.released(at_end=True))
            self._watch(actor, own, todo)

    def _watch(self, actor: Actor, own: lease.Lease | None, todo: dict[str, Todo]) -> None:
        """Wait for the tasks, and start those that follow from their ends."""
        while self.tasks and not self.rate.is_exceeded:
            self.world.wait(actor, self._has_news)
            if own:
                with suppress(StoreError):
                    own.beat()
                own.check()
            for task, (one, part, attempt) in list(self.tasks.items()):
                if task.ended and task.outcome is None:
                    del self.tasks[task]
                    if task.receipt is not None:
                        self.log.add(task.receipt)
                        if self.world.random.random() < 0.3:
                            self.log.flush()
                    if part is not None:
                        self._count(one, len(part.rows), task.errors)
                        self.waiting[one.shard.name].discard(part.part)
                        if not self.waiting[one.shard.name]:
                            self._release(todo, self.rate.release(one, self.errors[one.shard.name]))
                elif task.ended or self.world.random.random() < self.world.theme.impatience:  # dead, or only held to be
                    if task.wakes <= self.world.now and not task.ended:
                        continue
                    del self.tasks[task]
                    if attempt < ATTEMPTS and not isinstance(task.outcome, RayspError):
                        self._start(one, part, attempt + 1)
                    else:
                        self.failed.append(f"{one.shard.name}: {task.outcome}")
                else:
                    self.world.pause(actor)
            if not self.rate.is_exceeded:
                self._release(todo, self.rate.released())

    def _count(self, todo: Todo, rows: int, errors: int) -> None:
        self.rate.rows += rows
        self.rate.num_errors += errors
        self.errors[todo.shard.name] += errors

    def _release(self, todo: dict[str, Todo], shards: Sequence[Shard]) -> None:
        for shard in shards:
            self._start(todo[shard.name], None)

    def _stop(self, actor: Actor, store: Store | FencedStore) -> None:
        """End because too many rows failed, and remove the results of those rows."""
        for task in self.tasks:
            task.doomed = self.world.random.random() < 0.8
        self.world.story.append(f"{self.world.now:.1f} {self.name} stops")
        staged = {path: layout.parse_stage_path(path) for path in self.world.files}
        failed = {path for path, one in staged.items() if one and one.errors and one.shard in self.waiting}
        before = {path: self.world.files[path] for path in failed}
        actor.is_stopping = True
        for name in self.waiting:
            stage.discard(store, name, only_errors=True)
        if left := [path for path in failed if self.world.files.get(path) is before[path]]:
            self.world.violations.append(f"{self.name} stopped and left {left}")
        raise StoppedError("too many rows failed")

    def _has_news(self) -> bool:
        """Return whether a task ended or is held up."""
        now = self.world.now
        for task in self.tasks:  # noqa: SIM110 - asked at every turn, so written to be quick
            if task.ended or task.wakes > now:
                return True
        return False

    def _label(self, todo: Todo, part: PieceTodo, attempt: int = 1) -> None:
        """Start to label a part of a piece, or its halves; a task with all of it may be at work beside those."""
        if len(part.rows) > 1 and self.world.happens(self.world.chances.halved):
            if self.world.happens(0.5):
                self._start(todo, part, attempt)
                self.tasks.popitem()  # held to be dead
            self.waiting[todo.shard.name].discard(part.part)
            for half in part.halves():
                self.waiting[todo.shard.name].add(half.part)
                self._label(todo, half, attempt)
        else:
            self._start(todo, part, attempt)

    def _start(self, todo: Todo, part: PieceTodo | None, attempt: int = 1) -> None:
        what = "commit" if part is None else f"label {part.part.first}-{part.part.end}"
        work = (lambda actor: self._commit(actor, todo)) if part is None else (lambda actor: self._stage(actor, part))
        task = self.world.spawn(f"{self.name} {what} {todo.shard.name}", self.kind, work)
        task.began, task.planned = self.began, self.planned
        if part is None and not todo.keeps_rows:
            task.errors = self.errors[todo.shard.name]
        self.tasks[task] = (todo, part, attempt)

    def _stage(self, actor: Actor, part: PieceTodo) -> None:
        failed = tuple(row for row in part.rows if self.world.happens(self.world.chances.error_row))
        table = labelled(part.name, part.shard.input_id, tuple(part.rows), failed)
        attempt = part.retry.stage_id if part.retry else STAGE_ID
        name = StagedName(part.name, part.part, part.shard.input_id, attempt, len(failed))
        stage.write(Store(self.world, actor), [table], lambda: name)
        actor.errors = len(failed)

    def _commit(self, actor: Actor, todo: Todo) -> None:
        def ids(piece: Piece) -> pa.Table:
            return source_ids(todo.shard.input_id, piece.first, piece.end)

        store = Store(self.world, actor)
        label_shard = LabelShard(
            todo.shard,
            self.fingerprint,
            ids,
            OUTPUTS,
            rows=self.world.rows,
            compression="none",
            stage_id=todo.retry.stage_id if todo.retry else STAGE_ID,
            finish=steps_behind(self.fingerprint),
        )
        try:
            actor.receipt = commit_staged(store, label_shard, todo.retry)
        except RunError as error:
            attempt = todo.retry.stage_id if todo.retry else STAGE_ID
            pieces = [piece for piece in todo.shard.pieces if not todo.keeps_rows or todo.retry.of(piece)]
            if "are missing" in str(error) and has_every_row(actor.listed, todo.shard, pieces, attempt):
                self.world.violations.append(f"{actor.name} misses what is there: {error}")
            raise


def drive(
    world: World,
    name: str,
    kind: str = "plain",
    *,
    holds_lease: bool = True,
    names: Sequence[str] = (),
    behind: float = 0,
) -> Actor:
    """Start a driver: what `raysp run`, `retry` or `gc` does with a sink, by the same functions.

    `behind` is the chance that it comes with any steps behind the last `Label`, not those that are recorded.
    """
    driver = Driver(world, name, kind, holds_lease, names)
    if world.fingerprint is None or world.happens(behind):
        driver.fingerprint = world.random.choice(FINGERPRINTS)
    else:
        driver.fingerprint = world.fingerprint
    return world.spawn(name, kind, driver.work)


def stand_ins() -> list[tuple[object, str, object]]:
    """Return what is replaced while a history happens, as (object, name, stand-in)."""
    ids = itertools.count(1)
    return [
        (footer, "_key_values", lambda file: key_values(file.read())),
        (error_rate, "MIN_ROWS", ROWS - 1),
        (error_rate, "FIRST_ROWS", ROWS - 1),
        (footer, "new_id", lambda: f"{next(ids):016x}"),
        (receipts, "ThreadPoolExecutor", OneByOne),
    ]


def happen(world: World) -> None:
    """Run a history of labels, and check its result."""
    draw = world.random
    theme = world.theme
    world.chances, world.most = theme.draw(draw), draw.choice(theme.most)
    changes = draw.random() < theme.changes
    has_again = False
    for number in range(draw.randint(*theme.runs)):
        kind = "plain"
        if number and changes and draw.random() < theme.again:
            kind, has_again = "again", True
            if draw.random() < 0.7:
                world.change_input(draw.choice(SHARD_NAMES))
        elif number and draw.random() < theme.retry:
            kind = "retry"
        if number and draw.random() < 0.15:
            world.vanished = {draw.choice(SHARD_NAMES)}
            world.story.append(f"{world.now:.1f} somebody takes away the input of {world.vanished}")
        holds_lease = draw.random() < theme.lease
        drive(world, f"run{number}", kind, holds_lease=holds_lease, behind=theme.behind)
        if draw.random() < theme.gc:
            drive(world, f"gc{number}", "gc")
        if draw.random() < theme.overlap:  # the next one comes while this one is at work
            goal = world.steps + draw.randint(1, theme.steps)
            world.run(until=lambda goal=goal: world.steps >= goal)
        else:
            world.run(until=lambda: not any(one.name.startswith("run") and " " not in one.name for one in world.actors))
        for again in range(theme.cleanings if draw.random() < theme.gc else 0):
            drive(world, f"gc{number} later{again}", "gc")
            if theme.cleanings > 1:
                goal = world.steps + draw.randint(1, 40)
                world.run(until=lambda goal=goal: world.steps >= goal)
        if draw.random() < 0.1:  # somebody removes a label shard by hand, to have it made again
            name = draw.choice(SHARD_NAMES)
            if not world.actors and name in world.files:
                world.files.pop(name)
                world.made_of.pop(name)
                world.story.append(f"{world.now:.1f} somebody removes {name}")
        if not world.actors and draw.random() < 0.5:
            world.now += 2 * REST_SECONDS
    only_plain = not has_again and all(actor.kind == "plain" for actor in world.actors)
    if not only_plain:  # what replaces may come late and do harm, which the next run mends: it has to be there by then
        world.run()
    world.chances = Chances()
    _finish(world)
    world.run()  # those who come late
    # Without a lease a late run may record its steps, which the next one mends.
    if any(fingerprint != world.fingerprint for _, fingerprint in world.made_of.values()):
        _finish(world)
        world.run()
    check(world, errors=True)
    for _ in range(2):  # the first one may go on with what an interrupted one staged: errors again
        last = drive(world, "retry", "retry")
        world.run()
        if last.outcome is not None:
            raise ViolationError(f"the retry does not end: {last.outcome}")
    check(world, errors=False)
    world.now += 2 * REST_SECONDS
    drive(world, "gc", "gc")
    world.run()
    check(world, errors=False)
    check_left_out(world)


def _finish(world: World) -> None:
    """Run until a run ends well, and label shards again that it refuses by name; nothing fails any more."""
    refused: list[str] = []
    for attempt in range(8):
        behind = 0 if attempt else world.theme.behind
        last = drive(world, f"last{attempt}", "again" if refused else "plain", names=refused, behind=behind)
        world.run(until=lambda last=last: last.ended)
        end, was_again = last.outcome, bool(refused)
        if end is None and not was_again:
            return
        is_refusal = isinstance(end, (ChangedError, RefusedError)) and not was_again
        refused = [name for name in SHARD_NAMES if name in str(end)] if is_refusal else []
        if isinstance(end, PlanError) and not isinstance(end, ChangedError):
            world.run()  # another one is still at work
    raise ViolationError(f"the last run does not end: {end}")
