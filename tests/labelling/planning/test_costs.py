"""Time and money of an amount of audio at a speed."""

import pytest

from raysp import SpecError
from raysp.labelling.planning.costs import Amount, Cost, Speed, check_speed
from raysp.work import EstimateOptions

AUDIO = Amount(7200.0, 720.0)
FIELDS = {"actors": 2, "devices": 4, "device": "CPU", "price": 0.5}


def test_time_is_shared_by_actors_and_devices_are_paid_for_all_of_it():
    cost = Cost.of(AUDIO, Speed(10.0, "as stated"), **FIELDS)
    assert cost.wall_seconds == Amount(360.0, 36.0)
    assert cost.device_hours == Amount(pytest.approx(0.8), pytest.approx(0.08))
    assert cost.money == Amount(pytest.approx(0.4), pytest.approx(0.04))


def test_actors_that_wait_for_the_slowest_are_paid_too():
    cost = Cost.of(AUDIO, Speed(10.0, "as stated"), **FIELDS, imbalance=1.5)
    assert (cost.wall_seconds.value, cost.device_hours.value) == (540.0, pytest.approx(1.2))


def test_without_a_price_there_is_no_money():
    assert Cost.of(AUDIO, Speed(10.0, ""), **{**FIELDS, "price": None}).money is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rtfx": 0}, "rtfx: found 0, expected a number above 0"),
        ({"price": float("inf")}, "price: found inf"),
        ({"rtfx": 2.0, "calibrate": True}, "found rtfx and calibrate, expected one of them"),
    ],
)
def test_arguments_that_fit_no_data_are_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        check_speed(EstimateOptions(**arguments))
