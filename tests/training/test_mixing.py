"""Mixtures of corpora: shares, every row before any again, and the same order after a stop and on any workers."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, Schedule, finetune
from raysp.training.data.mixed_epochs import mixture_of
from raysp.training.planning.ordering import Epoch, Index, Sizes
from raysp.training.sink.corpus_index import CorpusIndex
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table
from tests.training.trained import planned, steps_of, stopping_after

SIZES = {"en/0": 120, "en/1": 80, "fi/0": 37, "tr/0": 15, "tr/1": 2}


def corpus(seed: int = 0) -> tuple[CorpusIndex, Index]:
    """Make the index of five shards with pieces of ten rows; a tenth of the rows are left out."""
    drawn = np.random.default_rng(seed)
    first_rows = np.cumsum([0, *SIZES.values()])
    seconds = drawn.uniform(0.5, 9.0, first_rows[-1]).astype(np.float32)
    seconds[drawn.random(len(seconds)) < 0.1] = 0
    edges = sorted({*first_rows.tolist(), *range(0, int(first_rows[-1]), 10)})
    shards = [SimpleNamespace(name=f"{name}.parquet") for name in SIZES]
    found = CorpusIndex(shards, first_rows, np.array(edges), seconds, seconds.astype(np.uint16), {}, {})
    return found, Index(seconds, found.piece_rows)


def rows_of(mixture, index: Index, epoch: int) -> list[int]:
    """Return the rows of an epoch, as its windows have them."""
    sizes = Sizes(micro_seconds=20.0, micro_batches=2, window_seconds=100.0)
    found = Epoch(mixture.index(index, epoch), sizes, seed=0, epoch=epoch)
    return [row for window in found.windows_from(0) for row in window.rows.tolist()]


def seconds_of(index: Index, rows: list[int]) -> dict[str, float]:
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
        (raysp.Mix({"[ef]*": 1, "tr/*": 1}), None),
        (raysp.Mix(["en/*", "fi/*", "tr/*"], temperature=3), None),
    ],
)
def test_the_shares_of_many_epochs_are_those_of_the_weights(mix, expected):
    found, index = corpus()
    mixture = mixture_of(mix, found, seed=5)
    of_all = seconds_of(index, [*np.flatnonzero(index.seconds)])
    if mix.temperature is not None:
        powers = {name: seconds ** (1 / mix.temperature) for name, seconds in of_all.items()}
        expected = {name: power / sum(powers.values()) for name, power in powers.items()}
    counts = Counter(row for epoch in range(400) for row in rows_of(mixture, index, epoch))
    heard = Counter()
    for row, times in counts.items():
        heard += Counter({name: times * seconds for name, seconds in seconds_of(index, [row]).items()})
    shares = {name: seconds / heard.total() for name, seconds in heard.items()}
    if expected is None:
        assert shares["tr"] == pytest.approx(0.5, abs=0.005)
        assert shares["en"] / shares["fi"] == pytest.approx(of_all["en"] / of_all["fi"], rel=0.01)
    else:
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


@pytest.fixture(scope="module")
def languages(tmp_path_factory) -> list[str]:
    """Two corpora of 24 and 8 rows."""
    folder = tmp_path_factory.mktemp("languages")
    for number, (name, size) in enumerate({"en": 24, "tr": 8}.items()):
        table = words_table(size, seed=100 * number)
        write_shard(folder / name / "0.parquet", table=table, row_group_size=5)
    return [f"{folder}/en/*.parquet", f"{folder}/tr/*.parquet"]


def mixed(languages, tiny, sink, **fields) -> raysp.Finetune:
    given = {
        "source": raysp.Shards(languages, text="text"),
        "mix": raysp.Mix({"en/*": 1, "tr/*": 1}),
        "schedule": Schedule(epochs=5, learning_rate=1e-3),
        **fields,
    }
    return a_recipe("", tiny, sink, **given)


@pytest.mark.slow
def test_a_stopped_training_of_mixed_epochs_goes_on_bit_for_bit(languages, tiny, tmp_path):
    augment = [raysp.Speed((0.9, 1.1))]
    whole = finetune(mixed(languages, tiny, tmp_path / "whole", augment=augment))
    recipe = mixed(languages, tiny, tmp_path / "stopped", augment=augment)
    for number in (2, 1):
        assert not finetune(recipe, should_stop=stopping_after(number)).is_done
    assert finetune(recipe).is_done
    figures = [[(step["loss"], step["rows"]) for step in steps_of(tmp_path / name)] for name in ("whole", "stopped")]
    assert figures[0] == figures[1]
    assert sum(rows for _, rows in figures[0]) == pytest.approx(
        5 * 16, abs=15
    )  # all of one, about as many of the other
    assert whole.epochs == 5
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    with pytest.raises(ChangedError, match=r"mix"):
        finetune(mixed(languages, tiny, tmp_path / "stopped", augment=augment, mix=raysp.Mix({"en/*": 1, "tr/*": 2})))


def test_a_plan_shows_the_shares_and_counts_the_steps_of_mixed_epochs(languages, tiny, tmp_path):
    mixture, plain = (planned(mixed(languages, tiny, tmp_path / "out", **one)) for one in ({}, {"mix": None}))
    assert "tr/*: 8 of 8 rows an epoch, 50.0% of 0:0" in mixture.facts["mix"]
    assert mixture["steps_per_epoch"] < plain["steps_per_epoch"]
    assert "mix" not in plain.facts
