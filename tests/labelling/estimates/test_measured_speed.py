"""Parts of an estimate: speed by the passes that a run measured, bounded samples, and bars of durations."""

from dataclasses import replace

import pytest

import raysp
from raysp import PlanError
from raysp.corpus import sources
from raysp.labelling.estimates import row_sampling
from raysp.labelling.estimates.actor_speed import of_measured_passes, of_receipts
from raysp.labelling.estimates.durations import histogram
from raysp.labelling.estimates.row_sampling import read_sample
from raysp.labelling.estimates.simulation import simulate
from raysp.labelling.planning.pack_use import PackUse
from raysp.ops.passes.measured_budget import MeasuredBudget, MeasuredPass
from tests.corpora import a_pipeline, wav
from tests.labelling.estimates.test_estimating import RATE, twelve_shards, write_rows

PASSES = (MeasuredPass(2.0, 9000.0, 7, 5), MeasuredPass(4.0, 10_000.0, 14, 10))


@pytest.fixture
def plan(tmp_path):
    write_rows(tmp_path / "in" / "a.parquet", [1.0] * 9)
    return raysp.plan(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label={"outputs": [raysp.Transcript()]}))


def of(plan, *measured: MeasuredBudget):
    found = {one.card: one for one in measured}
    return replace(plan, settings=replace(plan.settings, batch_seconds=4.0, measured=found))


def test_the_rate_of_the_chosen_pass_is_an_upper_bound_of_the_speed(plan):
    measured = of(plan, MeasuredBudget("a card", 2.0, 100, True, PASSES))
    simulation = simulate(measured, read_sample(measured, 9))
    speed = of_measured_passes(measured, simulation)
    assert speed.rtfx == pytest.approx(9000.0 * simulation.padding_efficiency)
    assert speed.origin == "passes measured on a card, if it never waits for input"
    assert simulation.largest_pass == 2.0
    assert simulate(of(plan), read_sample(plan, 9)).largest_pass > 2.0


def test_passes_that_are_not_used_or_of_one_of_two_cards_are_no_speed(plan):
    used, other = MeasuredBudget("a card", 2.0, 100, True, PASSES), MeasuredBudget("another", 4.0, 200, True, PASSES)
    simulation = simulate(plan, read_sample(plan, 9))
    assert of_measured_passes(of(plan), simulation) is None
    assert of_measured_passes(of(plan, used, other), simulation) is None
    assert of_measured_passes(of(plan, replace(used, is_used=False)), simulation) is None
    assert of_measured_passes(of(plan, used), None) is None


def test_runs_in_batches_tell_no_speed_of_packs(plan, tmp_path):
    raysp.run(plan.pipeline, engine="here", progress=False)
    in_packs = PackUse("a certificate shows it", frames=512, seconds=10.24)
    packed = replace(plan, settings=replace(plan.settings, packs=in_packs))
    with pytest.raises(
        PlanError, match=r"no run with receipts has float32 on cpu, \d+ CPUs an actor, in packs as this"
    ):
        of_receipts(packed, f"{tmp_path}/out")


def test_a_plan_names_the_size_of_each_device(plan):
    used = MeasuredBudget("a card", 2.0, 100, True, PASSES)
    assert "4 padded seconds a pass, to be measured" in of(plan).facts["model"]
    assert (
        "2 padded seconds a pass (measured as fastest: a card 2 s, 9,000 times real time)"
        in of(plan, used).facts["model"]
    )
    both = of(plan, used, replace(used, card="another", seconds=4.0)).facts["model"]
    assert "4 padded seconds a pass (measured as fastest: a card 2 s, 9,000" in both
    assert "; another 4 s, 10,000 times real time)" in both


def test_rows_bytes_and_places_are_bounded(tmp_path, monkeypatch):
    pipeline = twelve_shards(tmp_path)
    read: list[int] = []
    table = sources.read_table

    def counted(shard, piece, *others, **options):
        read.append(piece.num_rows)
        return table(shard, piece, *others, **options)

    monkeypatch.setattr(sources, "read_table", counted)
    row_bytes = len(wav(round(0.4 * RATE)))
    monkeypatch.setattr(row_sampling, "PLACE_BYTES", 3 * row_bytes)
    found = raysp.estimate(pipeline, sample=200)
    assert found.places == len(read) == row_sampling.MOST_PLACES
    assert found.sampled_bytes < 1.5 * row_sampling.MOST_PLACES * row_sampling.PLACE_BYTES
    assert max(read) < 10


def test_bars_reach_from_the_shortest_to_the_longest_duration():
    bars = histogram([(0.5, 1.0), (12.0, 2.0), (4.0, 1.0)])
    assert [(bar.low, bar.high, bar.share) for bar in bars] == [
        (0, 1, 0.25),
        (1, 2, 0),
        (2, 5, 0.25),
        (5, 10, 0),
        (10, 15, 0.5),
    ]
    assert histogram([(9000.0, 1.0)])[0].high is None
    assert histogram([]) == ()
