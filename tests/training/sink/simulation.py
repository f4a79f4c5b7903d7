"""Trainings in a world of their own: drivers and workers that are suspended, restarted, fail and die at any call.

The world, its scheduler and its store are those of the simulation of labelling. A training here is the protocol's own
functions in the order of the engine, over states of a few bytes that follow from the recipe and the step.
"""

import itertools
import json
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from raysp import ChangedError, PlanError, RayspError, RunError, StoreError
from raysp.sink import layout, lease
from raysp.sink.fencing import FencedStore
from raysp.sink.lease import Process
from raysp.sink.run_record import RunEntry
from raysp.training.sink import committed_steps, exports, training_record
from raysp.training.sink.committed_steps import CommittedStep, Position
from raysp.training.sink.step_log import StepLog, StepRecord, Steps
from tests.sink import simulated_store
from tests.sink.simulated_actors import Actor, ViolationError
from tests.sink.simulated_chances import Chances
from tests.sink.simulated_world import World
from tests.sink.simulation import BEAT_SECONDS

LAST = 5
"""Steps of a training."""
RECIPES = "abc"
ENTRY = replace(RunEntry.now(command=["raysp"]), versions={})
FILES = ("model", "optimizer")
KEPT = 2
ATTEMPTS = 3
SUSPENDED_SECONDS = (60.0, 300.0)


def content(recipe: str, name: str, done: int) -> bytes:
    """Make the state that training computes for a step: the same whoever computes it."""
    return f"{recipe} {name} {done}".encode()


def loss(recipe: str, done: int) -> float:
    return float(RECIPES.index(recipe) * 100 + done)


def checkpoint(recipe: str) -> dict[str, bytes]:
    """Make the files of an exported checkpoint; one recipe has a file more than the others."""
    names = ["config.json", "model.safetensors", "vocab.json", *(["adapter.bin"] if recipe == "b" else [])]
    return {name: content(recipe, name, LAST) for name in names}


class Store(simulated_store.Store):
    """A store whose scratch files are in memory."""

    @contextmanager
    def scratch(self):
        yield _Scratch()


class _Scratch:
    """What the protocol does with a scratch file."""

    data = b""

    def write_bytes(self, data: bytes) -> None:
        self.data = data

    def read_bytes(self) -> bytes:
        return self.data


class Still(Store):
    """The files as they are at a moment: nothing happens at a call."""

    def __init__(self, world: "TrainingWorld") -> None:
        super().__init__(world, Actor("observer", "plain"))

    def _call(self, what: str, effect: Callable[[], object], changes: bool = False) -> object:
        return effect()


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
        self.epochs: dict[Actor, int] = {}
        """Epoch of the lease of each actor's run."""
        self.owners: dict[str, int] = {}
        """Epoch that wrote a file last."""
        self.added: set[str] = set()
        """Files at the root that a run created after another one took over."""
        self.late: dict[Actor, int] = {}
        """Files of a later run that each actor removed: one may be after its last check."""
        self.root_changes = 0
        self.suspension = 0.0

    def call(self, actor: Actor, what: str, effect: Callable[[], object], changes: bool) -> object:
        if self.happens(self.suspension if changes else self.suspension / 4):
            actor.wakes = self.now + self.random.uniform(*SUSPENDED_SECONDS)
        return super().call(actor, what, effect, changes)

    def put(self, actor: Actor, path: str, data: bytes) -> None:
        epoch = self.epochs.get(actor, 0)
        if not path.startswith(layout.LEASE):
            if path in self.files and self.owners.get(path, 0) > epoch:
                self.violations.append(f"{actor.name} replaced {path} of a run that took over")
            self.owners[path] = epoch
            if path not in self.files and not path.startswith(layout.HOME) and epoch < self.highest():
                self.added.add(path)
        self.changes += 1
        self.files[path] = (data, self.changes, self.now)
        if not path.startswith(layout.HOME):
            self.root_changes += 1
            self.check_root(actor)

    def remove(self, actor: Actor, path: str) -> None:
        if path in self.files and self.owners.get(path, 0) > self.epochs.get(actor, 0):
            self.late[actor] = self.late.get(actor, 0) + 1
            if self.late[actor] > 1:
                self.violations.append(f"{actor.name} went on to remove files of a run that took over: {path}")
        self.files.pop(path, None)
        if not path.startswith(layout.HOME):
            self.root_changes += 1
            self.check_root(actor)

    def highest(self) -> int:
        """Return the highest epoch of the lease."""
        return max(layout.parse_lease_path(path) or 0 for path in self.files if path.startswith(layout.LEASE))

    def root(self) -> dict[str, bytes]:
        return {path: found[0] for path, found in self.files.items() if not path.startswith(layout.HOME)}

    def check_root(self, actor: Actor) -> None:
        """A folder with a configuration and weights is the checkpoint of one training."""
        root = self.root()
        config, weights = root.get("config.json"), root.get("model.safetensors")
        if config is None or weights is None or exports.NOTE in (config, weights):
            return
        if not any(self.is_checkpoint(root, recipe) for recipe in RECIPES):
            names = {name: data.decode() for name, data in root.items()}
            self.violations.append(f"{actor.name} showed a checkpoint of several trainings: {names}")

    def is_checkpoint(self, root: dict[str, bytes], recipe: str) -> bool:
        """Return whether a root is the checkpoint of a recipe.

        Two limits of a process that is suspended between its check of the lease and a write: it may remove a file, or
        add one that only its own export has.
        """
        files = checkpoint(recipe)
        lost, more = files.keys() - root.keys(), root.keys() - files.keys()
        same = all(root[name] == files[name] for name in files.keys() & root.keys())
        return same and more <= self.added and (not lost or bool(self.late))

    def damage(self) -> None:
        """Damage a file of a committed step, or its marker."""
        paths = sorted(path for path in self.files if path.startswith(committed_steps.STEPS))
        if paths:
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


class Driver:
    """A run of `raysp finetune`, by the functions that it calls; a worker of it is an actor of its own."""

    def __init__(self, world: TrainingWorld, name: str, recipe: str, *, restart: bool, by_worker: bool) -> None:
        self.world = world
        self.name = name
        self.recipe = recipe
        self.restart = restart
        self.by_worker = by_worker
        self.run_id = f"{next(world.numbers):04}-run"
        self.workers: list[Actor] = []

    def work(self, actor: Actor) -> None:
        store = Store(self.world, actor)
        own = self._take_lease(actor, store)
        self.epoch = self.world.epochs[actor] = own.epoch
        try:
            self._run(actor, own, FencedStore(store, own.epoch))
        except BaseException:
            for worker in self.workers:  # Ray ends them, sooner or later
                worker.doomed = worker.doomed or self.world.random.random() < 0.5
            with suppress(StoreError):
                self._release(actor, own)
            raise
        own.release()

    def _release(self, actor: Actor, own: lease.Lease) -> None:
        if not actor.doomed and isinstance(actor.outcome, RayspError):
            own.release()

    def _run(self, actor: Actor, own: lease.Lease, store: FencedStore) -> None:
        if self.restart or training_record.TrainingRecord.load(store) is None:
            training_record.remove(store)
        facts = {"fingerprint": self.recipe, "parts": {"fingerprint": self.recipe}, "epoch": self.epoch}
        training_record.begin(store, replace(ENTRY, run_id=self.run_id), recipe={}, **facts)
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
        self.world.epochs[actor] = self.epoch
        self._train(FencedStore(Store(self.world, actor), self.epoch), lambda: None)

    def _beat(self, own: lease.Lease) -> None:
        with suppress(StoreError):
            own.beat()

    def _take_lease(self, actor: Actor, store: Store) -> lease.Lease:
        return lease.acquire(
            store,
            beat_seconds=BEAT_SECONDS,
            clock=lambda: self.world.now,
            sleep=lambda seconds: self.world.sleep(actor, seconds),
            holder=lease.Holder(self.name, Process("elsewhere", "", 1, ""), "then"),
        )

    def _resume(self, store: FencedStore) -> CommittedStep | None:
        """Load the last step, as `Session.resume` does, and check what it is."""
        step = committed_steps.latest(store, checks=True)
        if step is None:
            return None
        if step.fingerprint != self.recipe:
            raise PlanError("committed with another recipe")
        self._check_curve(step.position.done)
        for name, file in step.files.items():
            data = store.read(file.path)
            if committed_steps.hashlib.sha256(data).hexdigest() != file.sha256:
                raise RunError(f"{file.path} was changed")  # as `steps.local_file`
            if data != content(self.recipe, name, step.position.done):
                self.world.violations.append(f"{self.name} goes on from {data!r} at step {step.position.done}")
        return step

    def _check_curve(self, committed: int) -> None:
        """Every committed step has its record, and no other training has any, while nobody took over."""
        if self.epoch < self.world.highest() or self.world.late:
            return
        curve = [(one.done, one.loss) for one in Steps(Still(self.world)).last()]
        is_right = all(value == loss(self.recipe, done) for done, value in curve)
        if not is_right or not {*range(1, committed + 1)} <= {done for done, _ in curve}:
            self.world.violations.append(f"{self.name} goes on from step {committed} with the curve {curve}")

    def _train(self, store: FencedStore, beat: Callable[[], None]) -> None:
        step = self._resume(store)
        done = step.position.done if step else 0
        log = StepLog(store, self.run_id)
        while done < LAST:
            beat()
            done += 1
            log.add(StepRecord(done, 0, done, loss(self.recipe, done), 1, 1, 1, 1, 1, 0, 0))
            is_late = self.world.random.random() < 0.2  # as commits because of the time
            if is_late or done % self.every == 0 or done == LAST:
                self._commit(store, log, done)

    every = 2

    def _commit(self, store: FencedStore, log: StepLog, done: int) -> None:
        log.take()()
        writers = {name: (lambda path, name=name: path.write_bytes(content(self.recipe, name, done))) for name in FILES}
        facts = {"fingerprint": self.recipe, "index": "i", "num_workers": 1, "metrics": {}, "epoch": self.epoch}
        committed_steps.commit(store, Position(done, 0, done), writers, **facts)
        self._check_curve(done)
        committed_steps.remove_others(store, committed_steps.newest(store, KEPT, until=done), before=done)

    def _export(self, store: FencedStore) -> None:
        step = self._resume(store)
        if step is None or step.position.done != LAST:
            raise StoreError("the last commit was damaged or lost; run again")
        state = exports.state_of({name: file.sha256 for name, file in step.files.items()})
        if exports.is_exported(store, self.recipe, state):
            return
        files = checkpoint(self.recipe)
        sizes = {name: len(data) for name, data in files.items()}
        facts = {"fingerprint": self.recipe, "state": state, "epoch": self.epoch}
        exports.publish(store, sizes, lambda name: store.replace(name, files[name]), **facts)


def simulate(seed: int, folder: Path) -> TrainingWorld:
    """Run a history and check its result.

    Raises:
        ViolationError: something was wrong at any time.
    """
    world = TrainingWorld(seed, folder)
    world.numbers = itertools.count(1)
    written, committed_steps._write = committed_steps._write, _write
    new_id, committed_steps.uuid = committed_steps.uuid, _Ids()
    try:
        _happen(world)
    finally:
        committed_steps._write, committed_steps.uuid = written, new_id
        for actor in list(world.actors):
            actor.doomed = True
        world.violations.clear()
        world.run()
    return world


class _Ids:
    """Ids of folders that follow from the history."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)

    def uuid4(self) -> "_Ids":
        self.hex = f"{next(self.numbers):032x}"
        return self


def _write(store: FencedStore, path: str, write: committed_steps.Writer) -> committed_steps.StateFile:
    """Do as `steps._write`, with a file in memory."""
    with store.scratch() as scratch:
        write(scratch)
        data = scratch.read_bytes()
        store.publish(scratch, path)
    return committed_steps.StateFile(path, len(data), committed_steps.hashlib.sha256(data).hexdigest())


def _happen(world: TrainingWorld) -> None:
    theme, draw = world.theme, world.random
    world.chances = Chances(*(draw.choice(getattr(theme, name)) for name in ("crash", "failure", "sleep")))
    world.suspension = draw.choice(theme.suspension)
    recipe = "a"
    for number in range(draw.randint(*theme.runs)):
        restart = number > 0 and draw.random() < theme.restart
        if restart:
            recipe = draw.choice(RECIPES)
        driver = Driver(world, f"run{number}", recipe, restart=restart, by_worker=draw.random() < 0.4)
        driver.every = draw.choice([1, 2, 3])
        actor = world.spawn(driver.name, "plain", driver.work)
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
    """Run the command again until it succeeds, with --restart if it is refused for another recipe."""
    restart = False
    for attempt in range(6):
        driver = Driver(world, f"last{attempt}", recipe, restart=restart, by_worker=False)
        last = world.spawn(driver.name, "plain", driver.work)
        world.run(until=lambda last=last: last.ended)
        if last.outcome is None:
            return
        restart = isinstance(last.outcome, ChangedError)
        if isinstance(last.outcome, PlanError) and not restart:  # another one is still at work: its end is waited for
            world.run()
    raise ViolationError(f"the last run does not end: {last.outcome}")


def _check(world: TrainingWorld, recipe: str) -> None:
    """The checkpoint, the record, the last commit and the curve are those of the recipe."""
    if not world.is_checkpoint(world.root(), recipe) or not checkpoint(recipe).keys() <= world.root().keys():
        raise ViolationError(f"the checkpoint is {world.root()}, not of {recipe}")
    store = Still(world)
    found = json.loads(world.files[training_record.RECIPE][0])
    step, curve = committed_steps.latest(store, checks=True), Steps(store).last()
    if found["fingerprint"] != recipe:
        raise ViolationError(f"the record is of {found['fingerprint']}, not of {recipe}")
    if step is None or (step.fingerprint, step.position.done) != (recipe, LAST):
        raise ViolationError(f"the last commit is {step}")
    if [(one.done, one.loss) for one in curve] != [(done, loss(recipe, done)) for done in range(1, LAST + 1)]:
        raise ViolationError(f"the curve is {[(one.done, one.loss) for one in curve]}")
