"""The commit protocol in a world of its own: drivers and workers that are delayed, fail and die at any call.

Each actor runs the protocol's own functions in a thread; only one runs at a time, and at every call to the store a
seeded scheduler decides which one goes on, whether the call fails before or after its effect, and whether its actor
dies there or falls asleep to come back late. So a history follows from its seed alone. The store keeps its files in
memory and is honest: what one call wrote, the next one reads.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import pyarrow as pa

from raysp import ChangedError, PlanError, RayspError, RunError, StoreError
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine import error_rate
from raysp.labelling.engine.error_rate import ErrorRate
from raysp.labelling.engine.job import PieceTodo
from raysp.sink import commit as commit_module
from raysp.sink import footer, layout, lease, orphans, plan_record, receipts, run_record, stage
from raysp.sink import todo as work_left
from raysp.sink.commit import commit
from raysp.sink.layout import StagedName
from raysp.sink.lease import Process
from raysp.sink.recommitting import find_error_rows, recommit, retry_whole
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.sink.todo import Todo
from tests.sink.simulated_actors import Actor, RefusedError, SimulatedCrash, StoppedError, Thread, ViolationError
from tests.sink.simulated_chances import THEMES, Chances
from tests.sink.simulated_checks import check, check_left_out, check_planned_under, check_receipts, check_visible
from tests.sink.simulated_store import (
    FINGERPRINT,
    OUTPUTS,
    ROWS,
    SHARD_NAMES,
    OneByOne,
    Store,
    has_every_row,
    key_values,
    labelled,
    read_parquet,
    rest_path,
    source_ids,
)
from tests.sink.sinks import rows_of_streams

CUTS = ((0, 4), (0, 1, 4), (0, 2, 4))
ENTRY = replace(RunEntry.now(command=["raysp"]), versions={})
STEP_SECONDS = 0.1
SLEEP_SECONDS = 60.0
"""Longest time that an actor is held up at one call."""
REST_SECONDS = 2 * SLEEP_SECONDS
"""After so long `gc` takes a file for one that no commit will name: those here are held up at one call in between."""
BEAT_SECONDS = 5.0
MOST_STEPS = 20_000
ATTEMPTS = 3


class World:
    """Files, actors, and who goes on."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = Random(seed)
        self.most = 1.0
        """Largest share of rows that may fail."""
        self.removed = -1
        """Number of changes when a run that stops, or `gc`, last removed staged results."""
        self.recorded = (0, 0)
        """Number of changes when a holder of the lease last wrote a record, and its epoch."""
        self.seed = seed
        self.folder = folder
        self.files: dict[str, tuple[bytes, int, float]] = {}
        """What each holds, a number that every write changes, and when it was written."""
        self.made_of: dict[str, tuple[str, str]] = {}
        """Of each label shard that can be seen, the (input id, fingerprint)."""
        self.published: dict[tuple[str, str], tuple[object, ...]] = {}
        """What a true receipt says of each label shard that was ever seen, by its path and version."""
        self.versions = dict.fromkeys(SHARD_NAMES, 1)
        self.vanished: set[str] = set()
        self.chances = Chances()
        self.theme = self.random.choice(THEMES)
        self.rows = self.random.choice(self.theme.rows)
        self.now = 0.0
        self.steps = 0
        self.changes = 0
        self.actors: list[Actor] = []
        self.story: list[str] = []
        self.violations: list[str] = []
        self._idle = threading.Lock()
        self._idle.acquire()

    # -- actors ---------------------------------------------------------------------------------------------------

    def spawn(self, name: str, kind: str, work: Callable[[Actor], None]) -> Actor:
        """Make an actor that goes on from now."""
        actor = Actor(name, kind)
        actor.turn.acquire()
        self.actors.append(actor)
        Thread.do(self._live, actor, work)
        return actor

    def _live(self, actor: Actor, work: Callable[[Actor], None]) -> None:
        actor.turn.acquire()
        try:
            if actor.doomed:
                raise SimulatedCrash
            work(actor)
        except (RayspError, SimulatedCrash) as end:
            actor.outcome = end
        except BaseException as bug:
            actor.outcome = bug
            self.violations.append(f"{actor.name}: {type(bug).__name__}: {bug}")
        actor.ended = True
        self.actors.remove(actor)
        self._hand_on()

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Let the actors go on until all have ended, or until something is true."""
        self._until = until
        if self.actors:
            self._hand_on()
            self._idle.acquire()
        if self.violations:
            raise ViolationError("; ".join(self.violations))

    def pause(self, actor: Actor) -> None:
        """Hand on; comes back when it is the actor's turn again."""
        self.steps += 1
        self.now += STEP_SECONDS
        if actor.doomed:
            raise SimulatedCrash
        if self.steps > MOST_STEPS:
            self.violations.append(f"{actor.name} goes on for ever")
            raise SimulatedCrash
        chosen = self._choose()
        if chosen is not actor:
            self._let(chosen)
            actor.turn.acquire()
        if actor.doomed:
            raise SimulatedCrash

    def sleep(self, actor: Actor, seconds: float) -> None:
        actor.wakes = self.now + seconds
        self.pause(actor)

    def wait(self, actor: Actor, until: Callable[[], bool]) -> None:
        """Come back when it is true, and no sooner."""
        actor.waits_for = until
        self.pause(actor)
        actor.waits_for = None

    def _choose(self) -> Actor | None:
        if self._until is not None and self._until():
            return None
        now = self.now
        asleep, awake = [], []
        for one in self.actors:
            if one.waits_for is None or one.doomed or one.waits_for():
                (awake if one.wakes <= now else asleep).append(one)
        if awake:
            return awake[int(self.random.random() * len(awake))]
        if not asleep:
            return None
        first = min(asleep, key=lambda one: one.wakes)
        self.now = first.wakes
        return first

    def _hand_on(self) -> None:
        self._let(self._choose())

    def _let(self, actor: Actor | None) -> None:
        (self._idle if actor is None else actor.turn).release()

    # -- what happens at a call -------------------------------------------------------------------------------------

    def happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance

    def call(self, actor: Actor, what: str, effect: Callable[[], object], changes: bool) -> object:
        """Do one call to the store, or not."""
        chances, random = self.chances, self.random.random
        if chances.sleep and random() < chances.sleep:
            actor.wakes = self.now + self.random.uniform(1, SLEEP_SECONDS)
        self.pause(actor)
        crashes = chances.crash > 0 and random() < chances.crash
        fails = chances.failure > 0 and random() < chances.failure
        before = (crashes or fails) and random() < 0.5
        if not before:
            result = effect()
            if changes:
                self.story.append(f"{self.now:.1f} {actor.name} {what}")
        if crashes:
            self.story.append(f"{self.now:.1f} {actor.name} crashes {'before' if before else 'after'} {what}")
            raise SimulatedCrash
        if fails:
            raise StoreError(f"{what}: 503 SlowDown ({'not done' if before else 'done'})")
        return result

    def put(self, actor: Actor, path: str, data: bytes) -> None:
        self.changes += 1
        if not path.startswith(layout.HOME):
            check_visible(self, actor, path, data)
        elif path.startswith(layout.LOG):
            check_receipts(self, actor, data)
        self.files[path] = (data, self.changes, self.now)

    def remove(self, actor: Actor, path: str) -> None:
        rest = layout.parse_errors_path(path)
        if rest and rest[0] in self.files and path == rest_path(rest[0], read_parquet(self.files[rest[0]][0])[1]):
            self.violations.append(f"{actor.name} removed {path}, the left-out rows of a label shard")
        staged = layout.parse_stage_path(path)
        if staged and (actor.is_stopping or actor.kind == "gc"):
            self.removed = self.changes
        is_needed = staged and not (actor.is_stopping and staged.errors)
        if is_needed and actor.kind == "plain" and path in self.files and self.made_of.get(staged.shard) is None:
            self.violations.append(f"{actor.name} removed {path} before its shard was committed")
        self.files.pop(path, None)
        self.made_of.pop(path, None)

    def with_rest(self, name: str, labels: list[dict], metadata: dict[bytes, bytes]) -> list[dict]:
        """Put to a label shard's rows those beside it."""
        rest = self.files.get(rest_path(name, metadata))
        return labels + (rows_of_streams(rest[0]) if rest else [])

    # -- drivers ----------------------------------------------------------------------------------------------------

    def drive(self, name: str, kind: str = "plain", *, holds_lease: bool = True, names: Sequence[str] = ()) -> Actor:
        """Start a driver: what `raysp run`, `retry` or `gc` does with a sink, by the same functions."""
        driver = Driver(self, name, kind, holds_lease, names)
        return self.spawn(name, kind, driver.work)

    def change_input(self, name: str) -> None:
        """Give a shard other content, or what it held before."""
        self.versions[name] = self.random.choice([one for one in (1, 1, 2, 2, 3) if one != self.versions[name]])

    def source(self) -> list[Shard]:
        return [self.shard(name) for name in SHARD_NAMES if name not in self.vanished]

    def shard(self, name: str) -> Shard:
        cuts = self.random.choice(CUTS)
        pieces = tuple(Piece(a, b) for a, b in pairwise(cuts))
        version = self.versions[name]
        return Shard(name, f"/in/{name}", 10, str(version), ROWS, f"{version:x}", pieces)


class Driver:
    """A run, step by step as the engine does it; its tasks are actors of their own and may outlive it."""

    def __init__(self, world: World, name: str, kind: str, holds_lease: bool, names: Sequence[str] = ()) -> None:
        self.world = world
        self.name = name
        self.kind = kind
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
        own = self._take_lease(actor, store) if self.holds_lease else None
        try:
            self.began = self.world.changes
            fresh, todo = self._plan(store)
            self.planned = self.world.changes
            if own:
                check_planned_under(self.world, self, own)
            run_record.begin(
                store, ENTRY, pipeline={}, fingerprint=FINGERPRINT, parts={"fingerprint": FINGERPRINT}, file_parts={}
            )
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
        own = self._take_lease(actor, store)
        orphans.remove_orphans(store, own, partial(orphans.find_orphans, rest_seconds=REST_SECONDS))
        own.release()

    def _plan(self, store: Store) -> tuple[list[Shard], list[Todo]]:
        record = run_record.load(store)
        recorded = {shard.name: shard for shard in plan_record.load(store)} if record else {}
        if record:
            parts = {"fingerprint": FINGERPRINT}
            run_record.check_same("memory", record, fingerprint=FINGERPRINT, parts=parts, file_parts={})
        if self.kind == "retry":
            return [], list(find_error_rows(store, list(recorded.values()), FINGERPRINT))
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
        _, todo = work_left.compare(store, shards, FINGERPRINT)
        for one in todo:
            begun = [piece for piece in one.shard.pieces if any(piece.first <= p.first < piece.end for p in one.pieces)]
            if any(has_every_row(store.actor.listed, one.shard, [piece], FINGERPRINT) for piece in begun):
                self.world.violations.append(f"{self.name} labels again what is staged of {one.shard.name}")
        return fresh, [one.without_failed(self.world.most) for one in todo]

    def _take_lease(self, actor: Actor, store: Store) -> lease.Lease:
        return lease.acquire(
            store,
            beat_seconds=BEAT_SECONDS,
            clock=lambda: self.world.now,
            sleep=lambda seconds: self.world.sleep(actor, seconds),
            holder=lease.Holder(self.name, Process("elsewhere", "", 1, ""), "then"),
        )

    def _execute(self, actor: Actor, own: lease.Lease | None, todo: dict[str, Todo]) -> None:
        self.waiting = {name: set(one.pieces) for name, one in todo.items()}
        for one in todo.values():
            self.rate.add(one.shard.name, one.shard.num_rows - one.num_rows if one.keeps_rows else 0, 0)
            for staged in one.staged:
                self._count(one, staged.rows.num_rows, staged.name.errors)
            for part in one.pieces:
                piece = next(piece for piece in one.shard.pieces if piece.first <= part.first and part.end <= piece.end)
                self._label(one, PieceTodo(one.shard, piece, part, one.retry))
        for one in todo.values():
            if not one.pieces:
                self._release(todo, self.rate.release(one))
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
                            self._release(todo, self.rate.release(one))
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
        self.rate.add(todo.shard.name, rows, errors)
        self.errors[todo.shard.name] += errors

    def _release(self, todo: dict[str, Todo], shards: Sequence[Shard]) -> None:
        for shard in shards:
            self._start(todo[shard.name], None)

    def _stop(self, actor: Actor, store: Store) -> None:
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
        table = labelled(part.name, part.shard.input_id, FINGERPRINT, tuple(part.rows), failed)
        attempt = part.retry.stage_id if part.retry else FINGERPRINT
        name = StagedName(part.name, part.part, part.shard.input_id, attempt, len(failed))
        stage.write(Store(self.world, actor), [table], lambda: name)
        actor.errors = len(failed)

    def _commit(self, actor: Actor, todo: Todo) -> None:
        def ids(piece: Piece) -> pa.Table:
            return source_ids(todo.shard.input_id, piece.first, piece.end)

        store = Store(self.world, actor)
        asked = {
            "fingerprint": FINGERPRINT,
            "source_columns": ids,
            "output_schema": OUTPUTS,
            "rows": self.world.rows,
            "compression": "none",
        }
        try:
            if todo.retry:
                actor.receipt = recommit(store, todo.shard, todo.retry, **asked)
            else:
                actor.receipt = commit(store, todo.shard, **asked)
        except RunError as error:
            attempt = todo.retry.stage_id if todo.retry else FINGERPRINT
            pieces = [piece for piece in todo.shard.pieces if not todo.keeps_rows or todo.retry.of(piece)]
            if "are missing" in str(error) and has_every_row(actor.listed, todo.shard, pieces, attempt):
                self.world.violations.append(f"{actor.name} misses what is there: {error}")
            raise


def simulate(seed: int, folder: Path) -> World:
    """Run a history and check its result.

    Raises:
        ViolationError: something was wrong at any time.
    """
    world = World(seed, folder)
    draw = world.random
    read_footer, footer._key_values = footer._key_values, lambda file: key_values(file.read())
    least = error_rate.MIN_ROWS, error_rate.FIRST_ROWS
    error_rate.MIN_ROWS = error_rate.FIRST_ROWS = ROWS - 1
    ids = itertools.count(1)
    new_id, commit_module.new_id = commit_module.new_id, lambda: f"{next(ids):016x}"
    pool, receipts.ThreadPoolExecutor = receipts.ThreadPoolExecutor, OneByOne
    try:
        _happen(world, draw)
    finally:
        footer._key_values, commit_module.new_id, receipts.ThreadPoolExecutor = read_footer, new_id, pool
        error_rate.MIN_ROWS, error_rate.FIRST_ROWS = least
        for actor in list(world.actors):
            actor.doomed = True
        world.violations.clear()
        world.run()
    return world


def _happen(world: World, draw: Random) -> None:
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
        world.drive(f"run{number}", kind, holds_lease=holds_lease)
        if draw.random() < theme.gc:
            world.drive(f"gc{number}", "gc")
        if draw.random() < theme.overlap:  # the next one comes while this one is at work
            goal = world.steps + draw.randint(1, theme.steps)
            world.run(until=lambda goal=goal: world.steps >= goal)
        else:
            world.run(until=lambda: not any(one.name.startswith("run") and " " not in one.name for one in world.actors))
        for again in range(theme.cleanings if draw.random() < theme.gc else 0):
            world.drive(f"gc{number} later{again}", "gc")
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
    check(world, errors=True)
    for _ in range(2):  # the first one may go on with what an interrupted one staged: errors again
        last = world.drive("retry", "retry")
        world.run()
        if last.outcome is not None:
            raise ViolationError(f"the retry does not end: {last.outcome}")
    check(world, errors=False)
    world.now += 2 * REST_SECONDS
    world.drive("gc", "gc")
    world.run()
    check(world, errors=False)
    check_left_out(world)


def _finish(world: World) -> None:
    """Run until a run ends well, and label shards again that it refuses by name; nothing fails any more."""
    refused: list[str] = []
    for attempt in range(8):
        last = world.drive(f"last{attempt}", "again" if refused else "plain", names=refused)
        world.run(until=lambda last=last: last.ended)
        end, was_again = last.outcome, bool(refused)
        if end is None and not was_again:
            return
        is_refusal = isinstance(end, (ChangedError, RefusedError)) and not was_again
        refused = [name for name in SHARD_NAMES if name in str(end)] if is_refusal else []
        if isinstance(end, PlanError) and not isinstance(end, ChangedError):
            world.run()  # another one is still at work
    raise ViolationError(f"the last run does not end: {end}")
