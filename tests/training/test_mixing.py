"""Mixtures of corpora: shares, every row before any again, and the same order after a stop and on any workers."""

import pickle
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, PlanError, Schedule, SpecError, finetune
from raysp.training.data.mixed_epochs import mixture_of, seconds_an_epoch
from raysp.training.objectives.task import Criterion
from raysp.training.planning.ordering import Epoch, Index, Sizes
from raysp.training.sink.corpus_index import CorpusIndex
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table
from tests.training.criteria import planned_training
from tests.training.runs.test_finetuning import steps_until

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
    "mix",
    [
        raysp.Mix({"en/*": 2, "fi/*": 1, "tr/*": 1}),
        raysp.Mix({"en/*": 0.1, "[ft]*": 0.9}),
        raysp.Mix(["en/*", "fi/*", "tr/*"], temperature=5),
    ],
)
def test_durations_of_shards_give_the_seconds_of_an_epoch_without_an_index(mix):
    found, _ = corpus()
    mixture = mixture_of(mix, found, seed=0)
    declared = {
        shard.name: float(found.seconds[first:end].sum(dtype=np.float64))
        for shard, first, end in zip(found.shards, found.first_rows, found.first_rows[1:], strict=False)
    }
    expected = sum(part.seconds_an_epoch for part in mixture.parts.values())
    assert seconds_an_epoch(mix, declared) == pytest.approx(expected)
    assert expected < 0.9 * sum(declared.values())


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        (raysp.Mix({"en/*": 2, "fi/*": 1, "tr/*": 1}), {"en": 0.5, "fi": 0.25, "tr": 0.25}),
        (raysp.Mix({"en/*": 0.1, "fi/*": 0.2, "tr/*": 0.7}), {"en": 0.1, "fi": 0.2, "tr": 0.7}),
        (raysp.Mix({"[ef]*": 1, "tr/*": 1}), None),
        (raysp.Mix(["en/*", "fi/*", "tr/*"], temperature=1), None),
        (raysp.Mix(["en/*", "fi/*", "tr/*"], temperature=3), None),
        (raysp.Mix(["en/*", "fi/*", "tr/*"], temperature=1e9), {"en": 1 / 3, "fi": 1 / 3, "tr": 1 / 3}),
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


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
def test_workers_share_the_rows_of_mixed_epochs(num_workers):
    found, index = corpus()
    mixture = mixture_of(raysp.Mix({"en/*": 1, "fi/*": 3, "tr/*": 2}), found, seed=5)
    sizes = Sizes(micro_seconds=20.0, micro_batches=4, window_seconds=100.0)
    for epoch in range(5):
        order = Epoch(mixture.index(index, epoch), sizes, seed=0, epoch=epoch)
        windows = [*order.windows_from(0)]
        rows = [row for window in windows for own in range(num_workers) for row in window.rows_of(own, num_workers)]
        assert sorted(rows) == sorted(row for part in mixture.parts.values() for row in part.of(epoch).tolist())


def test_epochs_depend_on_the_seed_and_not_on_the_order_of_weights():
    found, index = corpus()
    one, other = ({"en/*": 1, "fi/*": 1, "tr/*": 1}, {"tr/*": 1, "en/*": 1, "fi/*": 1})
    made = [rows_of(mixture_of(raysp.Mix(parts), found, seed=5), index, 3) for parts in (one, other)]
    assert made[0] == made[1]
    assert made[0] != rows_of(mixture_of(raysp.Mix(one), found, seed=6), index, 3)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"en/*": 1, "tr/*": 1},
            r"the shard 'fi/0.parquet' is in none of 'en/\*', 'tr/\*'; expected each shard in one",
        ),
        ({"*": 1, "tr/*": 1}, r"the shard 'tr/0.parquet' is in '\*' and 'tr/\*'"),
        ({"*": 1, "de/*": 1}, r"'de/\*' has no row to train on; the corpus has the shards en/0.parquet, en/1.parquet"),
    ],
)
def test_shards_in_no_part_or_in_two_and_empty_parts_are_refused(parts, message):
    with pytest.raises(PlanError, match=rf"mix.parts: {message}"):
        mixture_of(raysp.Mix(parts), corpus()[0], seed=0)


@pytest.mark.parametrize(
    ("parts", "temperature", "message"),
    [
        ({"en/*": 1}, None, r"found parts \['en/\*'\]; expected at least two patterns, each once"),
        (["en/*", "en/*"], 2, r"expected at least two patterns, each once"),
        (["en/*", "tr/*"], None, r"found neither weights nor temperature; give weights"),
        ({"en/*": 1, "tr/*": 2}, 2, r"found weights and temperature; give weights"),
        ({"en/*": 0, "tr/*": 2}, None, r"greater than 0"),
        (["en/*", "tr/*"], 0.5, r"greater than or equal to 1"),
    ],
)
def test_mixtures_without_a_meaning_are_refused(parts, temperature, message):
    with pytest.raises(SpecError, match=message):
        raysp.Mix(parts, temperature=temperature)


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


@pytest.fixture
def seen(monkeypatch) -> list[list[int]]:
    """Rows of each micro-batch, in the order in which the model saw them."""
    found: list[list[int]] = []
    original = Criterion.__call__

    def recorded(self, batch):
        found.append([*batch.rows])
        return original(self, batch)

    monkeypatch.setattr(Criterion, "__call__", recorded)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("augment", [[], [raysp.Speed((0.9, 1.1))]], ids=["plain", "speed"])
def test_a_stopped_training_sees_the_same_rows_and_has_the_same_weights(languages, tiny, tmp_path, seen, augment):
    whole = finetune(mixed(languages, tiny, tmp_path / "whole", augment=augment))
    expected = [*seen]
    seen.clear()
    recipe = mixed(languages, tiny, tmp_path / "stopped", augment=augment)
    for number in (2, 1):
        assert not finetune(recipe, should_stop=steps_until(number)).is_done
    assert finetune(recipe).is_done
    assert seen == expected
    counts = Counter(row for batch in seen for row in batch)
    assert all(counts[row] == 5 for row in range(24, 32))
    of_en = [counts[row] for row in range(24)]
    assert max(of_en) - min(of_en) == 1  # a third of the rows in each of five epochs
    assert sum(of_en) / sum(counts.values()) == pytest.approx(0.5, abs=0.1)
    assert whole.epochs == 5
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    with pytest.raises(ChangedError, match=r"mix"):
        finetune(mixed(languages, tiny, tmp_path / "stopped", augment=augment, mix=raysp.Mix({"en/*": 1, "tr/*": 2})))


def test_a_mixture_travels_to_workers(languages, tiny, tmp_path):
    _, prepared = planned_training(mixed(languages, tiny, tmp_path / "out"))
    travelled = pickle.loads(pickle.dumps(prepared))
    for epoch in range(4):
        one, other = (found.order.mixture.index(found.index, epoch) for found in (prepared, travelled))
        assert np.array_equal(one.seconds, other.seconds)
        assert 13 <= one.num_rows <= 19  # all eight of one part, and about as many of the other


@pytest.mark.slow
def test_a_plan_shows_the_shares_and_counts_the_steps_of_mixed_epochs(languages, tiny, tmp_path):
    _, mixture = planned_training(mixed(languages, tiny, tmp_path / "out"))
    _, plain = planned_training(mixed(languages, tiny, tmp_path / "out", mix=None))
    assert "tr/*: 8 of 8 rows an epoch, 50.0% of 0:0" in mixture.facts["mix"]
    assert mixture.order.first_epoch.num_steps < plain.order.first_epoch.num_steps
    assert "mix" not in plain.facts
    assert mixture.index.digest == plain.index.digest
    found = raysp.estimate(mixed(languages, tiny, tmp_path / "out"))
    assert found is not None
