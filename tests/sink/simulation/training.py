"""Histories of one training: drivers and workers train, are suspended, restarted, overtaken and killed on one sink.

A training here is the protocol's own functions in the order of the engine, over states of a few bytes that follow from
the recipe and the step.
"""

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from raysp import ChangedError, PlanError, RayspError, RunError, StoreError
from raysp.sink import layout, lease
from raysp.sink.fencing import FencedStore
from raysp.sink.orphans import remove_orphans
from raysp.sink.run_record import RunEntry
from raysp.training.loop.best_evaluation import Best
from raysp.training.sink import committed_steps, exports, training_record
from raysp.training.sink.committed_steps import CommittedStep, Position
from raysp.training.sink.step_log import StepLog, StepRecord, Steps
from raysp.training.sink.training_record import TrainingRecord
from tests.sink.simulation.actors import Actor, ViolationError
from tests.sink.simulation.chances import Chances
from tests.sink.simulation.store import MemoryStore
from tests.sink.simulation.world import World

LAST = 5
"""Steps of a training."""
VALUES = {"a": {2: 0.3, 4: 0.5, 5: 0.4}, "b": {2: 0.9, 4: 0.5, 5: 0.1}, "c": {2: 0.5, 4: 0.2, 5: 0.2}}
"""Value of each evaluation of the recipes; lower is better."""
MEASURES = ("wer, rows 1", "wer, rows 2")
"""How evaluations are measured: by the second one, the order of the values is turned around."""
ENTRY = replace(RunEntry.now(command=["raysp"]), versions={})
FILES = ("model", "optimizer")
ATTEMPTS = 3
SUSPENDED_SECONDS = (60.0, 300.0)


def content(recipe: str, name: str, done: int) -> bytes:
    """Make the state that training computes for a step: the same whoever computes it."""
    return f"{recipe} {name} {done}".encode()


def loss(recipe: str, done: int) -> float:
    return float([*VALUES].index(recipe) * 100 + done)


def evaluate(recipe: str, done: int, measure: str) -> Best:
    value = VALUES[recipe][done]
    return Best(value if measure == MEASURES[0] else 1 - value, done, measure)


def checkpoint(recipe: str, done: int) -> dict[str, bytes]:
    """Make the files of an exported checkpoint; one recipe has a file more than the others."""
    names = ["config.json", "vocab.json", *(["adapter.bin"] if recipe == "b" else [])]
    return {"model.safetensors": content(recipe, "model", done)} | {name: content(recipe, name, done) for name in names}


@dataclass(frozen=True)
class Theme:
    """Profile of a history."""

    crash: tuple[float, ...] = (0, 0.01, 0.03)
    failure: tuple[float, ...] = (0, 0.01, 0.02)
    sleep: tuple[float, ...] = (0, 0.02, 0.1)
    suspension: tuple[float, ...] = (0,)
    """Chance that an actor is suspended at a write for longer than it takes to take over its lease and train."""
    runs: tuple[int, int] = (1, 4)
    restart: float = 0.3
    damage: float = 0.3
    overlap: float = 0.6
    ahead: int = 150
    """Most steps of the scheduler that a run is ahead of one that overlaps it."""
    other_rows: float = 0.2
    """Chance that evaluations of a run are measured otherwise than before."""
    gc: float = 0.2


SUSPENDED = Theme(crash=(0,), failure=(0,), sleep=(0.05, 0.1), runs=(2, 4), restart=0.7, damage=0.1, overlap=0.9)
DAMAGED = Theme(sleep=(0, 0.02), runs=(2, 4), restart=0.1, damage=0.9, overlap=0.2)
WOKEN = Theme(
    crash=(0,), failure=(0,), sleep=(0, 0.02), suspension=(0.02, 0.05), runs=(2, 4), restart=0.7, damage=0, overlap=1,
    ahead=400,
)  # fmt: skip
KILLED = Theme(
    crash=(0.003, 0.01, 0.03), failure=(0, 0.01), sleep=(0,), runs=(3, 5), restart=0.6, damage=0, overlap=0.1
)
THEMES = (Theme(), SUSPENDED, WOKEN, WOKEN, DAMAGED, KILLED)


class TrainingWorld(World):
    """Files of one sink, and the trainings that write them."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self.theme = self.random.choice(THEMES)
        self.numbers = itertools.count(1)
        self.measure = MEASURES[0]
        self.measured: dict[tuple[str, int], set[str]] = {}
        """How each step of each recipe was evaluated."""
        self.owners: dict[str, int] = {}
        """Epoch that wrote a file last."""
        self.added: set[str] = set()
        """Files at the root that a run created after another one took over."""
        self.late: dict[Actor, int] = {}
        """Files of a later run that each actor removed: one may be after its last check."""
        self.is_damaged = False
        self.root_changes = 0
        self.suspension = 0.0

    def call(self, actor: Actor, what: str, effect: Callable[[], object], changes: bool) -> object:
        if self.happens(self.suspension if changes else self.suspension / 4):
            actor.wakes = self.now + self.random.uniform(*SUSPENDED_SECONDS)
        return super().call(actor, what, effect, changes)

    def put(self, actor: Actor, path: str, data: bytes) -> None:
        if not path.startswith(layout.LEASE):
            if path in self.files and self.owners.get(path, 0) > actor.epoch:
                self.violations.append(f"{actor.name} replaced {path} of a run that took over")
            self.owners[path] = actor.epoch
            if path not in self.files and not path.startswith(layout.HOME) and actor.epoch < self.highest():
                self.added.add(path)
        self.changes += 1
        self.files[path] = (data, self.changes, self.now)
        if path.startswith(committed_steps.STEPS) and path.endswith(".json"):
            self.check_marker(actor, path)
        if not path.startswith(layout.HOME):
            self.root_changes += 1
            self.check_root(actor)

    def remove(self, actor: Actor, path: str) -> None:
        if path in self.files and self.owners.get(path, 0) > actor.epoch:
            self.late[actor] = self.late.get(actor, 0) + 1
            if self.late[actor] > 1:
                self.violations.append(f"{actor.name} went on to remove files of a run that took over: {path}")
        self.files.pop(path, None)
        if not path.startswith(layout.HOME):
            self.root_changes += 1
            self.check_root(actor)
        known = [marker for marker in self.markers() if self.files[marker][1] <= actor.began]
        if actor.kind == "gc" and path in {file for marker in known for file in self.files_of(marker)}:
            self.violations.append(f"{actor.name} removed {path}, which a marker names")

    def highest(self) -> int:
        """Return the highest epoch of the lease."""
        return max(
            (layout.parse_lease_path(path) or 0 for path in self.files if path.startswith(layout.LEASE)), default=0
        )

    @property
    def is_disturbed(self) -> bool:
        """Whether files are missing or changed for which no run is at fault."""
        return self.is_damaged or bool(self.late)

    def markers(self) -> list[str]:
        return [path for path in self.files if path.startswith(committed_steps.STEPS) and path.endswith(".json")]

    def files_of(self, marker: str) -> dict[str, str]:
        """Return the files of a marker with their digests; none if it is damaged."""
        try:
            return {file["path"]: file["sha256"] for file in json.loads(self.files[marker][0])["files"].values()}
        except ValueError:
            return {}

    def check_marker(self, actor: Actor, path: str) -> None:
        """A marker names files that are whole, unless another run has taken over and removes them."""
        for file, digest in self.files_of(path).items():
            is_whole = file in self.files and sha256(self.files[file][0]).hexdigest() == digest
            if not is_whole and not self.is_damaged and actor.epoch == self.highest():
                self.violations.append(f"{actor.name} marked a step of which {file} is not whole")

    def root(self) -> dict[str, bytes]:
        return {path: found[0] for path, found in self.files.items() if not path.startswith(layout.HOME)}

    def check_root(self, actor: Actor) -> None:
        """A folder with a configuration and weights is the checkpoint of one training."""
        root = self.root()
        config, weights = root.get("config.json"), root.get("model.safetensors")
        if config is None or weights is None or exports.NOTE in (config, weights):
            return
        if not any(self.is_checkpoint(root, recipe, done) for recipe, values in VALUES.items() for done in values):
            names = {name: data.decode() for name, data in root.items()}
            self.violations.append(f"{actor.name} showed a checkpoint of several trainings: {names}")

    def is_checkpoint(self, root: dict[str, bytes], recipe: str, done: int) -> bool:
        """Return whether a root is the checkpoint of a recipe with the weights of a step.

        Two limits of a process that is suspended between its check of the lease and a write: it may remove a file, or
        add one that only its own export has.
        """
        files = checkpoint(recipe, done)
        lost, more = files.keys() - root.keys(), root.keys() - files.keys()
        same = all(root[name] == files[name] for name in files.keys() & root.keys())
        return same and more <= self.added and (not lost or bool(self.late))

    def damage(self) -> None:
        """Damage a file of a committed step, or its marker."""
        paths = sorted(path for path in self.files if path.startswith(committed_steps.STEPS))
        if paths:
            self.is_damaged = True
            path = self.random.choice(paths)
            data = self.files[path][0]
            what = self.random.choice(["removes", "cuts", "changes"])
            self.story.append(f"{self.now:.1f} somebody {what} {path}")
            if what == "removes":
                self.files.pop(path)
            else:
                self.changes += 1
                changed = data[: len(data) // 2] if what == "cuts" else b"x" * len(data)
                self.files[path] = (changed, self.changes, self.now)


class Still(MemoryStore):
    """The files as they are at a moment: nothing happens at a call."""

    def __init__(self, world: TrainingWorld) -> None:
        super().__init__(world, Actor("observer", "plain"))

    def _call(self, what: str, effect: Callable[[], object], changes: bool = False) -> object:
        return effect()


class LostBestError(RayspError):
    """The commit of the best evaluation cannot be read: the training has to be started over."""


class Driver:
    """A run of `raysp finetune`, by the functions that it calls; a worker of it is an actor of its own."""

    def __init__(self, world: TrainingWorld, name: str, recipe: str, *, restart: bool, by_worker: bool) -> None:
        self.world = world
        self.name = name
        self.recipe = recipe
        self.restart = restart
        self.by_worker = by_worker
        self.measure = world.measure
        self.run_id = f"{next(world.numbers):04}-run"
        self.every = 2
        self.workers: list[Actor] = []

    def work(self, actor: Actor) -> None:
        store = MemoryStore(self.world, actor)
        own = self.world.take_lease(actor, self.name, store)
        self.epoch = actor.epoch = own.epoch
        try:
            self._run(actor, own, FencedStore(store, own.epoch))
        except BaseException as error:
            for worker in self.workers:  # Ray ends them, sooner or later
                worker.doomed = worker.doomed or self.world.random.random() < 0.5
            if isinstance(error, RayspError):
                with suppress(StoreError):
                    own.release()
            raise
        own.release()

    def _run(self, actor: Actor, own: lease.Lease, store: FencedStore) -> None:
        is_new = self.restart or TrainingRecord.load(store) is None
        if is_new:
            training_record.remove(store)
        run = replace(ENTRY, run_id=self.run_id)
        made = TrainingRecord(run.started, {}, self.recipe, {"fingerprint": self.recipe}, (run,))
        training_record.begin(store, made, is_new=is_new)
        step = self._resume(store)
        if self.by_worker and not (step and step.position.done == LAST):
            self._by_worker(actor, own)
        else:
            self._train(store, lambda: self._beat(own))
        self._export(store)

    def _by_worker(self, actor: Actor, own: lease.Lease) -> None:
        """Wait for a worker, and start another one if it ended, or is held to have ended."""
        for _ in range(ATTEMPTS):
            worker = self.world.spawn(f"{self.name} worker", "plain", self._work)
            self.workers.append(worker)
            while not worker.ended:
                self.world.wait(actor, lambda worker=worker: worker.ended or worker.wakes > self.world.now)
                self._beat(own)
                if not worker.ended and self.world.random.random() < 0.1:
                    break
            if worker.ended and worker.outcome is None:
                return
            if worker.ended and isinstance(worker.outcome, RayspError):
                raise worker.outcome
        raise StoreError("the workers ended")

    def _work(self, actor: Actor) -> None:
        actor.epoch = self.epoch
        self._train(FencedStore(MemoryStore(self.world, actor), self.epoch), lambda: None)

    def _beat(self, own: lease.Lease) -> None:
        with suppress(StoreError):
            own.beat()

    def _resume(self, store: FencedStore) -> CommittedStep | None:
        """Load the last step, as `Session.resume` does, and check what it is."""
        step = committed_steps.latest(store, checks=True)
        if step is None:
            return None
        if step.fingerprint != self.recipe:
            raise PlanError("committed with another recipe")
        self._check_curve(step.position.done)
        for name in step.files:
            with committed_steps.local_file(store, step, name) as file:
                data = file.read_bytes()
            if data != content(self.recipe, name, step.position.done):
                self.world.violations.append(f"{self.name} goes on from {data!r} at step {step.position.done}")
        return step

    def _check_curve(self, committed: int) -> None:
        """Every committed step has its record, and no other training has any, while nobody took over."""
        if self.epoch < self.world.highest() or self.world.late:
            return
        curve = [(step.done, step.loss) for step in Steps(Still(self.world)).last()]
        is_right = all(value == loss(self.recipe, done) for done, value in curve)
        if not is_right or not {*range(1, committed + 1)} <= {done for done, _ in curve}:
            self.world.violations.append(f"{self.name} goes on from step {committed} with the curve {curve}")

    def _train(self, store: FencedStore, beat: Callable[[], None]) -> None:
        step = self._resume(store)
        done = step.position.done if step else 0
        best = Best.read(step) if step else None
        log = StepLog(store, self.run_id)
        while done < LAST:
            beat()
            done += 1
            log.add(StepRecord(done, 0, done, loss(self.recipe, done), 1, 1, 1, 1, 1, 0, 0))
            if done in VALUES[self.recipe]:
                best = self._evaluate(best, done)
            is_late = self.world.random.random() < 0.2  # as commits because of the time
            is_best = best is not None and best.done == done
            if is_late or is_best or done % self.every == 0 or done == LAST:
                self._commit(store, log, done, best)

    def _evaluate(self, best: Best | None, done: int) -> Best:
        evaluated = evaluate(self.recipe, done, self.measure)
        self.world.measured.setdefault((self.recipe, done), set()).add(self.measure)
        return best.and_then(evaluated) if best else evaluated

    def _commit(self, store: FencedStore, log: StepLog, done: int, best: Best | None) -> None:
        log.take()()
        writers = {name: (lambda path, name=name: path.write_bytes(content(self.recipe, name, done))) for name in FILES}
        metrics, measure = (best.metrics, best.measure) if best else ({}, "")
        step = CommittedStep(Position(done, 0, done), self.recipe, "i", 1, {}, metrics, measure=measure)
        committed_steps.commit(store, step, writers)
        self._check_curve(done)
        committed_steps.remove_earlier(store, done, [best.done] if best else [])

    def _export(self, store: FencedStore) -> None:
        step = self._resume(store)
        if step is None or step.position.done != LAST:
            raise StoreError("the last commit was damaged or lost; run again")
        best = Best.read(step)
        state = exports.state_of(store, LAST, best.done)
        if state and exports.is_exported(store, self.recipe, state):
            return
        files = checkpoint(self.recipe, best.done) | {"model.safetensors": self._weights(store, best.done)}
        sizes = {name: len(data) for name, data in files.items()}
        facts = {"fingerprint": self.recipe, "state": state}
        exports.publish(store, sizes, lambda name: store.replace(name, files[name]), **facts)

    def _weights(self, store: FencedStore, done: int) -> bytes:
        """Return the weights of a step, as `Session.load_result` loads them."""
        try:
            with committed_steps.local_file(store, committed_steps.load(store, done), "model") as file:
                return file.read_bytes()
        except (RunError, StoreError) as error:
            raise LostBestError(f"step {done} is the best one, and cannot be read: {error}") from error


def stand_ins() -> list[tuple[object, str, object]]:
    """Return what is replaced while a history happens, as (object, name, stand-in)."""
    return [(committed_steps, "uuid", _Ids())]


class _Ids:
    """Ids of folders that follow from the history."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)

    def uuid4(self) -> "_Ids":
        self.hex = f"{next(self.numbers):032x}"
        return self


def _clean(world: TrainingWorld, actor: Actor) -> None:
    """Do as `raysp gc`."""
    store = MemoryStore(world, actor)
    own = world.take_lease(actor, actor.name, store)
    actor.epoch, actor.began = own.epoch, world.changes
    remove_orphans(store, own, committed_steps.leftovers)
    own.release()


def happen(world: TrainingWorld) -> None:
    """Run a history of a training, and check its result."""
    theme, draw = world.theme, world.random
    world.chances = Chances(*(draw.choice(getattr(theme, name)) for name in ("crash", "failure", "sleep")))
    world.suspension = draw.choice(theme.suspension)
    recipe = "a"
    for number in range(draw.randint(*theme.runs)):
        restart = number > 0 and draw.random() < theme.restart
        if restart:
            recipe = draw.choice([*VALUES])
        if draw.random() < theme.other_rows:
            world.measure = draw.choice(MEASURES)
        driver = Driver(world, f"run{number}", recipe, restart=restart, by_worker=draw.random() < 0.4)
        driver.every = draw.choice([1, 2, 3])
        actor = world.spawn(driver.name, "plain", driver.work)
        if draw.random() < theme.gc:
            world.spawn("gc", "gc", lambda actor: _clean(world, actor))
        if draw.random() < theme.overlap:
            goal = world.steps + draw.randint(1, theme.ahead)
            world.run(until=lambda goal=goal: world.steps >= goal)
        else:
            world.run(until=lambda actor=actor: actor.ended)
        if draw.random() < theme.damage:
            world.damage()
    world.chances, world.suspension = Chances(), 0.0
    _end(world, recipe)
    world.run()  # those who come late
    _end(world, recipe)  # a late one that found the lease free began its training anew
    _check(world, recipe)
    before = world.root_changes
    _end(world, recipe)
    _check(world, recipe)
    if world.root_changes != before:
        raise ViolationError("a finished training was exported again")


def _end(world: TrainingWorld, recipe: str) -> None:
    """Run the command again until it succeeds; with --restart after a refusal, or where the best commit is damaged."""
    restart = False
    for attempt in range(6):
        driver = Driver(world, f"last{attempt}", recipe, restart=restart, by_worker=False)
        last = world.spawn(driver.name, "plain", driver.work)
        world.run(until=lambda last=last: last.ended)
        if last.outcome is None:
            return
        if isinstance(last.outcome, LostBestError) and not world.is_disturbed:
            raise ViolationError(str(last.outcome))
        restart = isinstance(last.outcome, (ChangedError, LostBestError))
        if isinstance(last.outcome, PlanError) and not restart:  # another one is still at work: its end is waited for
            world.run()
    raise ViolationError(f"the last run does not end: {last.outcome}")


def _check(world: TrainingWorld, recipe: str) -> None:
    """The checkpoint, the record, the last commit and the curve are those of the recipe."""
    store = Still(world)
    record = TrainingRecord.existing(store)
    step, curve = committed_steps.latest(store, checks=True), Steps(store).last()
    if record.fingerprint != recipe:
        raise ViolationError(f"the record is of {record.fingerprint}, not of {recipe}")
    if step is None or (step.fingerprint, step.position.done) != (recipe, LAST):
        raise ViolationError(f"the last commit is {step}")
    if [(step.done, step.loss) for step in curve] != [(done, loss(recipe, done)) for done in range(1, LAST + 1)]:
        raise ViolationError(f"the curve is {[(step.done, step.loss) for step in curve]}")
    best, measured = Best.read(step), [world.measured[recipe, done] for done in VALUES[recipe]]
    if best.measure not in measured[-1] or best.value != evaluate(recipe, best.done, best.measure).value:
        raise ViolationError(f"the best evaluation is {best}, and the last step was evaluated by {measured[-1]}")
    if set().union(*measured) == {MEASURES[0]} and best.value != min(VALUES[recipe].values()):
        raise ViolationError(f"the best evaluation is {best} of {VALUES[recipe]}")
    root = world.root()
    if not world.is_checkpoint(root, recipe, best.done) or not checkpoint(recipe, best.done).keys() <= root.keys():
        raise ViolationError(f"the checkpoint is {root}, not of {recipe} at step {best.done}")
