"""Mixtures of corpora: shares, every row before any again, and the same order after a stop and on any workers."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import raysp
from raysp import Schedule
from raysp.training.data.mixed_epochs import mixture_of
from raysp.training.planning.corpus_index import CorpusIndex
from raysp.training.planning.ordering import Durations, Epoch, Sizes
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table
from tests.training.trained import planned

SIZES = {"en/0": 120, "en/1": 80, "fi/0": 37, "tr/0": 15, "tr/1": 2}


def corpus(seed: int = 0) -> tuple[CorpusIndex, Durations]:
    """Make the index of five shards with pieces of ten rows; a tenth of the rows are left out."""
    drawn = np.random.default_rng(seed)
    first_rows = np.cumsum([0, *SIZES.values()])
    seconds = drawn.uniform(0.5, 9.0, first_rows[-1]).astype(np.float32)
    seconds[drawn.random(len(seconds)) < 0.1] = 0
    edges = sorted({*first_rows.tolist(), *range(0, int(first_rows[-1]), 10)})
    shards = [SimpleNamespace(name=f"{name}.parquet") for name in SIZES]
    index = Durations(seconds, np.array(edges))
    return CorpusIndex(shards, first_rows, index, seconds.astype(np.uint16), {}, {}), index


def rows_of(mixture, index: Durations, epoch: int) -> list[int]:
    """Return the rows of an epoch, as its windows have them."""
    sizes = Sizes(micro_seconds=20.0, micro_batches=2, window_seconds=100.0)
    found = Epoch(mixture.of_epoch(index, epoch), sizes, seed=0, epoch=epoch)
    return [row for window in found.windows_from(0) for row in window.rows.tolist()]


def seconds_of(index: Durations, rows: list[int]) -> dict[str, float]:
    """Return the seconds of rows by the first folder of their shards."""
    edges, found = np.cumsum([*SIZES.values()]), Counter()
    for row in rows:
        name = [*SIZES][int(np.searchsorted(edges, row, side="right"))]
        found[name.partition("/")[0]] += float(index.seconds[row])
    return found


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        (raysp.Mix({"en/*": 0.1, "fi/*": 0.2, "tr/*": 0.7}), {"en": 0.1, "fi": 0.2, "tr": 0.7}),
        (raysp.Mix(["en/*", "fi/*", "tr/*"], temperature=3), None),
    ],
)
def test_the_shares_of_many_epochs_are_those_of_the_weights(mix, expected):
    found, index = corpus()
    mixture = mixture_of(mix, found, seed=5)
    if mix.temperature is not None:
        of_all = seconds_of(index, [*np.flatnonzero(index.seconds)])
        powers = {name: seconds ** (1 / mix.temperature) for name, seconds in of_all.items()}
        expected = {name: power / sum(powers.values()) for name, power in powers.items()}
    counts = Counter(row for epoch in range(400) for row in rows_of(mixture, index, epoch))
    heard = Counter()
    for row, times in counts.items():
        heard += Counter({name: times * seconds for name, seconds in seconds_of(index, [row]).items()})
    shares = {name: seconds / heard.total() for name, seconds in heard.items()}
    assert shares == pytest.approx(expected, abs=0.005)


def test_every_row_of_a_part_comes_before_any_comes_again():
    found, index = corpus()
    mixture = mixture_of(raysp.Mix({"en/*": 1, "fi/*": 3, "tr/*": 3}), found, seed=5)
    counts, whole = Counter(), 0
    for epoch in range(60):
        rows = rows_of(mixture, index, epoch)
        assert len(rows) == len({*rows})
        counts.update(rows)
        for part in mixture.parts.values():
            times = {counts[row] for row in part.rows.tolist()}
            assert max(times) - min(times) <= 1
        whole += any({*part.rows.tolist()} <= {*rows} for part in mixture.parts.values())
    assert whole >= 60  # each epoch has all rows of one part
    assert counts.keys() == {*np.flatnonzero(index.seconds).tolist()}


def test_a_plan_shows_the_shares_and_counts_the_steps_of_mixed_epochs(tiny, tmp_path):
    for name, size in {"en": 24, "tr": 8}.items():
        write_shard(tmp_path / name / "0.parquet", table=words_table(size), row_group_size=5)
    source = raysp.Shards([f"{tmp_path}/en/*.parquet", f"{tmp_path}/tr/*.parquet"], text="text")
    mixture, plain = (
        planned(a_recipe("", tiny, tmp_path / "out", source=source, mix=mix, schedule=Schedule(epochs=5)))
        for mix in (raysp.Mix({"en/*": 1, "tr/*": 1}), None)
    )
    assert "tr/*: 8 of 8 rows an epoch, 50.0% of 0:0" in mixture.facts["mix"]
    assert mixture["steps_per_epoch"] < plain["steps_per_epoch"]
    assert "mix" not in plain.facts
    assert mixture["fingerprint"] != plain["fingerprint"]
