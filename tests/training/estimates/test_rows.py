"""What an estimate knows of the rows of a training, with and without its index."""

from dataclasses import replace

import pytest

import raysp
from raysp import Speakers
from raysp.storage.store import LocalStore
from raysp.training.estimates.training_rows import Left, RowFacts, assumed_batch, largest_batches
from raysp.training.finetuning import plan_recipe
from raysp.training.planning.training_plan import plan_training
from tests.corpora import rows_table, wav, write_shard
from tests.recipes import a_recipe


@pytest.fixture(scope="module")
def prepared(words, tiny, tmp_path_factory):
    return plan_recipe(a_recipe(words, tiny, tmp_path_factory.mktemp("sink") / "out"))[1]


def test_the_largest_micro_batches_are_those_of_the_first_window(prepared):
    window, seconds = prepared.first_window, prepared.index.seconds
    found = largest_batches(prepared)
    sizes = []
    for step in range(window.num_steps):
        for number in range(window.micro_batches):
            rows = window.micro_batch(step, number)
            labels = prepared.corpus.num_labels[rows]
            sizes.append((len(rows), float(seconds[rows].max(initial=0)), int(labels.max(initial=0))))
    assert {(one.rows, one.seconds, one.labels) for one in found} <= {*sizes}
    assert max(one.rows * one.seconds for one in found) == max(rows * longest for rows, longest, _ in sizes)
    assert max(one.rows * one.labels for one in found) >= max(rows * labels for rows, _, labels in sizes) * 0.8


def test_windows_are_counted_in_the_type_of_decoded_samples(prepared, tiny, tmp_path):
    found = RowFacts.of(prepared, LocalStore(tmp_path))
    seconds = prepared.index.seconds[prepared.first_window.rows].sum()
    assert found.window_bytes == pytest.approx(2 * 16_000 * max(float(seconds), 10.0))


@pytest.mark.parametrize("kind", ["resampled", "augmented", "damaged"])
def test_windows_of_rows_that_become_float_have_four_bytes_a_sample(tiny, tmp_path, kind):
    audio = wav(6400, rate=8_000 if kind == "resampled" else 16_000)
    write_shard(tmp_path / "in" / "0.parquet", table=rows_table(12, audio=audio))
    augment = [raysp.Gain((-6, 6))] if kind == "augmented" else []
    prepared = plan_recipe(a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", augment=augment))[1]
    if kind == "damaged":
        (tmp_path / "in" / "0.parquet").write_bytes(b"gone")
    total = float(prepared.index.seconds.sum())
    assert RowFacts.of(prepared, LocalStore(tmp_path)).window_bytes == pytest.approx(4 * 16_000 * total)


def test_what_is_left_is_the_whole_training_at_first(prepared, tmp_path):
    found = RowFacts.of(prepared, LocalStore(tmp_path))
    epoch = float(prepared.index.seconds.sum()) / prepared.first_epoch.num_steps
    assert found.left == Left(4, pytest.approx(4 * epoch), 1.0)
    assert not found.has_begun


def test_rows_are_cut_as_the_objective_cuts_them(words, listener, tmp_path):
    objective = Speakers(listener, column="speaker", crop_seconds=0.5)
    source = raysp.Shards(words, text="text")
    prepared = plan_recipe(a_recipe(words, tmp_path, tmp_path / "out", objective=objective, source=source))[1]
    assert max(one.seconds for one in largest_batches(prepared)) == 0.5
    assert prepared.index.seconds.max() > 0.5


@pytest.mark.parametrize(
    ("schedule", "seconds", "expected"),
    [
        (raysp.Schedule(steps=7), None, Left(7, 7 * 6.0, 1.0)),
        (raysp.Schedule(epochs=3), 50.0, Left(None, 150.0, 1.0)),
        (raysp.Schedule(epochs=3), None, None),
    ],
)
def test_without_an_index_the_budget_or_the_durations_of_the_source_count(
    words, tiny, tmp_path, schedule, seconds, expected
):
    batching = raysp.Batching(seconds=6, micro_batches=3)
    plan = plan_training(a_recipe(words, tiny, tmp_path / "out", schedule=schedule, batching=batching))
    shards = tuple(replace(shard, seconds=seconds and seconds / 2) for shard in plan.corpus.shards)
    found = RowFacts.assumed(replace(plan, corpus=replace(plan.corpus, shards=shards)))
    assert found.left == expected
    assert found.imbalance_of(2) == pytest.approx(4 / 3)
    assert found.note.startswith("30 rows are not indexed yet: ")
    assert found.parts["objective.type"] == "CTC"


@pytest.mark.parametrize(("mix", "expected"), [({"*1*": 1, "*0*": 1}, 60.0), ({"*1*": 1, "*0*": 4}, 37.5)])
def test_without_an_index_a_mixture_has_the_seconds_of_its_epochs(words, tiny, tmp_path, mix, expected):
    plan = plan_training(a_recipe(words, tiny, tmp_path / "out", schedule=raysp.Schedule(epochs=1), mix=raysp.Mix(mix)))
    shards = tuple(
        replace(shard, name=f"{number}", seconds=30.0 * (number + 1)) for number, shard in enumerate(plan.corpus.shards)
    )
    assert len(shards) == 2
    found = RowFacts.assumed(replace(plan, corpus=replace(plan.corpus, shards=shards)))
    assert found.left == Left(None, expected, 1.0)


def test_without_an_index_rows_are_as_long_as_the_steps_let_them_be(words, tiny, tmp_path):
    steps = [raysp.Decode(), raysp.Keep(max_seconds=1.5)]
    found = assumed_batch(plan_training(a_recipe(words, tiny, tmp_path / "out", steps=steps)))
    assert (found.rows, found.seconds, found.labels) == (1, 1.5, 15)
    assert assumed_batch(plan_training(a_recipe(words, tiny, tmp_path / "out"))).seconds == 30.0
