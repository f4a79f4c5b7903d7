"""What may happen to the actors of a simulated world, and how often."""

from dataclasses import dataclass
from random import Random


@dataclass
class Chances:
    """How often something happens at a call to the store."""

    crash: float = 0.0
    failure: float = 0.0
    sleep: float = 0.0
    error_row: float = 0.0
    halved: float = 0.0
    """How often halves of a piece are labelled and staged apart, as after crashes."""
    one_shard: float = 0.0
    """Chance that a retry of whole shards names one of two."""


@dataclass(frozen=True)
class Theme:
    """Profile of a history: the probability of each event, or the choice of a value."""

    rows: tuple[str, ...] = ("all", "all", "ok")
    crash: tuple[float, ...] = (0, 0.01, 0.04)
    failure: tuple[float, ...] = (0, 0.01, 0.03)
    sleep: tuple[float, ...] = (0, 0.02, 0.1)
    error_row: tuple[float, ...] = (0, 0, 0.2)
    halved: tuple[float, ...] = (0, 0.2, 0.5)
    most: tuple[float, ...] = (1.0, 1.0, 0.3)
    """Largest share of rows that may fail."""
    runs: tuple[int, int] = (1, 4)
    changes: float = 0.5
    again: float = 0.6
    retry: float = 0.2
    behind: float = 0.1
    """Chance that a run comes with other steps behind the last `Label`."""
    gc: float = 0.2
    cleanings: int = 1
    """Runs of `gc` one after the other while a run is at work."""
    overlap: float = 0.5
    steps: int = 60
    """Most of them that a run is ahead of one that overlaps it."""
    lease: float = 0.5
    impatience: float = 0.3
    """Chance, at every look, that a driver gives up a task that is held up."""

    def draw(self, random: Random) -> Chances:
        chances = (random.choice(getattr(self, name)) for name in ("crash", "failure", "sleep", "error_row", "halved"))
        return Chances(*chances, one_shard=0.3)


LEFT_OUT = Theme(
    rows=("ok",), crash=(0, 0.005), failure=(0, 0.005), sleep=(0.1, 0.2), error_row=(0.5,), halved=(0,),
    runs=(3, 4), changes=1.0, again=0.8, retry=0.1, gc=0.5, overlap=0.9, steps=150, lease=0.1,
)  # fmt: skip
"""Retries of whole shards that overlap, with rows that are left out of label shards, and `gc`."""


RETRIES = Theme(
    crash=(0, 0.005), failure=(0, 0.005), sleep=(0.1, 0.2), error_row=(0.5,), runs=(3, 4), changes=0.1, retry=0.9,
    gc=0.2, overlap=0.8, steps=150, lease=0.1, impatience=0.004,
)  # fmt: skip
"""Retries that overlap, are interrupted and come late."""


LATE = Theme(
    rows=("ok",), crash=(0,), failure=(0,), sleep=(0.2,), error_row=(0.5,), runs=(2, 2), changes=0.8, again=0.8,
    retry=0.1, gc=1.0, cleanings=5, overlap=0.9, steps=60, lease=0.1,
)  # fmt: skip
"""Commits that are held up between the rows that they leave out and their label shard, while `gc` is at work."""


STOPS = Theme(
    crash=(0.01, 0.04), failure=(0, 0.01), sleep=(0.05, 0.2), error_row=(0, 0.2, 0.5), halved=(0.3, 0.6),
    most=(0.2, 0.4), runs=(3, 5), changes=0.2, again=0.3, retry=0.1, gc=0.1, overlap=0.7, steps=40, lease=0.3,
)  # fmt: skip
"""Runs that stop because too many rows fail, are killed while they do, and come late with halves of pieces."""


BEHIND = Theme(
    crash=(0.04, 0.1), failure=(0, 0.01), sleep=(0, 0.05, 0.2), runs=(3, 5), changes=0.1, retry=0.1, behind=0.8,
    overlap=0.6, steps=60, lease=0.5,
)  # fmt: skip
"""Steps behind the last `Label` that change after runs that were killed before or after their first commit."""


THEMES = (Theme(), BEHIND, LEFT_OUT, RETRIES, LATE, STOPS)
