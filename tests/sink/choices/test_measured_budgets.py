"""The size of passes that is chosen from measured ones, and its record in a sink."""

import json
from dataclasses import asdict, replace

import pytest

from raysp.ops.passes.measured_budget import MeasuredBudget, MeasuredPass, best, fits
from raysp.sink import layout
from raysp.sink.choices import measured_budgets
from raysp.storage.store import LocalStore

MB = 2**20


def measured(*rates: float) -> list[MeasuredPass]:
    return [
        MeasuredPass(75.0 * 2**place, rate, 100 * MB << place, 10 * MB << place) for place, rate in enumerate(rates)
    ]


def budget(card: str = "card", **fields: object) -> MeasuredBudget:
    return replace(MeasuredBudget(card, 150.0, 7500, True, tuple(measured(900.0, 1000.0))), **fields)


@pytest.mark.parametrize(
    ("rates", "seconds"),
    [
        ((900.0, 1000.0, 1100.0), 300.0),
        ((900.0, 1090.0, 1100.0), 150.0),  # as fast but for a hundredth
        ((1100.0, 1090.0, 1100.0), 75.0),
        ((1100.0, 1000.0, 900.0), 75.0),
        ((500.0,), 75.0),
    ],
)
def test_the_shortest_of_the_fastest_passes_is_chosen(rates, seconds):
    assert best(measured(*rates)).seconds == seconds


def test_passes_in_hand_fit_beside_the_weights():
    [one] = measured(1.0)
    needs = 100 * MB + 3 * 10 * MB  # one runs, and three have results
    assert fits(one, weights=0, in_hand=4, memory=None)
    assert fits(one, weights=230 * MB, in_hand=4, memory=400 * MB)
    assert not fits(one, weights=231 * MB, in_hand=4, memory=400 * MB)
    assert one.all_bytes(4) == needs
    assert one.times(2).all_bytes(4) == 2 * needs


def test_the_first_choice_for_a_device_stays(tmp_path):
    store, of = LocalStore(tmp_path), {"dtype": "float32", "checkpoint_digest": "abc"}
    assert measured_budgets.load(store, **of) == {}
    assert measured_budgets.record(store, budget(), **of)
    assert not measured_budgets.record(store, budget(seconds=75.0), **of)
    assert measured_budgets.record(store, budget("other", seconds=75.0), **of)
    assert measured_budgets.load(store, **of) == {"card": budget(), "other": budget("other", seconds=75.0)}
    assert measured_budgets.load(store, **{**of, "dtype": "bfloat16"}) == {}
    assert measured_budgets.load(store, **{**of, "checkpoint_digest": "abd"}) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("passes"),
        lambda fields: fields.update(seconds=3.0),
        lambda fields: fields.update(more=1),
        lambda fields: fields["passes"][1].update(rate=0.0),
        lambda fields: fields["passes"][0].update(seconds=1e9),
        lambda fields: fields["passes"][0].update(seconds="150"),
        lambda fields: fields.update(passes=7),
        lambda fields: fields.update(card=["card"]),
    ],
)
def test_a_record_that_is_none_is_measured_again(tmp_path, change):
    store, of = LocalStore(tmp_path), {"dtype": "float32", "checkpoint_digest": "abc"}
    fields = json.loads(json.dumps(asdict(budget())))
    change(fields)
    store.create(f"{layout.BUDGETS}1.json", json.dumps({**of, "measured": fields}).encode())
    store.create(f"{layout.BUDGETS}2.json", b"{")
    store.create(f"{layout.BUDGETS}3.json", b"[]")
    assert measured_budgets.load(store, **of) == {}
