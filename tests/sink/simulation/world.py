"""Files of a simulated sink, the actors that write them, and who of them goes on."""

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

from raysp import RayspError, StoreError
from raysp.corpus.shards import Piece, Shard
from raysp.sink import layout, lease
from raysp.sink.lease import Holder, Lease, Process
from tests.sink.simulation.actors import Actor, SimulatedCrash, Thread, ViolationError
from tests.sink.simulation.chances import THEMES, Chances
from tests.sink.simulation.checks import check_receipts, check_record, check_removed, check_visible
from tests.sink.simulation.store import ROWS, SHARD_NAMES, Store, recorded_fingerprint, rest_path
from tests.sink.sinks import rows_of_streams

CUTS = ((0, 4), (0, 1, 4), (0, 2, 4))
STEP_SECONDS = 0.1
BEAT_SECONDS = 5.0
SLEEP_SECONDS = 60.0
"""Longest time that an actor is held up at one call."""
MOST_STEPS = 20_000


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
        self.replaced = 0
        """Number of changes when the steps behind the last `Label` last changed in the record."""
        self.shown = 0
        """Number of changes when a label shard was last put in place."""
        self.seed = seed
        self.folder = folder
        self.files: dict[str, tuple[bytes, int, float]] = {}
        """What each holds, a number that every write changes, and when it was written."""
        self.made_of: dict[str, tuple[str, str]] = {}
        """Of each label shard that can be seen, the (input id, fingerprint)."""
        self.published: dict[tuple[str, str], tuple[object, ...]] = {}
        """What a true receipt says of each label shard that was ever seen, by its path and version."""
        self.versions = dict.fromkeys(SHARD_NAMES, 1)
        self.has_other_input = False
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

    def take_lease(self, actor: Actor, owner: str, store: Store) -> Lease:
        return lease.acquire(
            store,
            beat_seconds=BEAT_SECONDS,
            clock=lambda: self.now,
            sleep=lambda seconds: self.sleep(actor, seconds),
            holder=Holder(owner, Process("elsewhere", "", 1, ""), "then"),
        )

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
        elif path == layout.RUN:
            check_record(self, actor, data)
        self.files[path] = (data, self.changes, self.now)

    def remove(self, actor: Actor, path: str) -> None:
        check_removed(self, actor, path)
        self.files.pop(path, None)
        self.made_of.pop(path, None)

    def with_rest(self, name: str, labels: list[dict], metadata: dict[bytes, bytes]) -> list[dict]:
        """Put to a label shard's rows those beside it."""
        rest = self.files.get(rest_path(name, metadata))
        return labels + (rows_of_streams(rest[0]) if rest else [])

    # -- the source and the record ------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint in the record, if there is one."""
        return recorded_fingerprint(self.files[layout.RUN][0]) if layout.RUN in self.files else None

    def change_input(self, name: str) -> None:
        """Give a shard other content, or what it held before."""
        self.has_other_input = True
        self.versions[name] = self.random.choice([one for one in (1, 1, 2, 2, 3) if one != self.versions[name]])

    def source(self) -> list[Shard]:
        return [self.shard(name) for name in SHARD_NAMES if name not in self.vanished]

    def shard(self, name: str) -> Shard:
        cuts = self.random.choice(CUTS)
        pieces = tuple(Piece(a, b) for a, b in pairwise(cuts))
        version = self.versions[name]
        return Shard(name, f"/in/{name}", 10, str(version), ROWS, f"{version:x}", pieces)
