"""What batches cost a device, counted without one, and the simulation of its streams."""

import pytest

from benchmarks.studies.costs import Batch, Host, batch_costs, pack_costs, simulated

STREAMS = {"copy_in": 0.8e-3, "copy_out": 0.1e-3, "in_hand": 3, "processes": 0}
MODEL_315M, FAST_CONFORMER, SEW_D = 79e-3, 12e-3, 16e-3
"""Seconds of the device for a batch of 600 s in rows of 30 s."""


def test_a_device_works_without_gaps_while_the_host_is_faster():
    for device in (MODEL_315M, FAST_CONFORMER):
        share = 1000 * device / simulated(device, Host(launches=4.8e-3), **STREAMS)
        assert 0.97 <= share <= 1


def test_one_batch_in_hand_leaves_gaps():
    assert 1000 * FAST_CONFORMER / simulated(FAST_CONFORMER, Host(launches=4.8e-3), **{**STREAMS, "in_hand": 1}) < 0.7


def test_a_host_that_launches_for_longer_than_the_device_works_bounds_it():
    seconds = simulated(5e-3, Host(pad=1e-3, launches=20e-3, texts=1e-3), **STREAMS)
    assert seconds == pytest.approx(1000 * 22e-3, rel=0.05)


@pytest.mark.parametrize("device", [MODEL_315M, FAST_CONFORMER])
def test_texts_of_beams_take_no_longer_than_greedy_ones_with_enough_processes(device):
    greedy = simulated(device, Host(launches=2.4e-3), **STREAMS)
    search = 0.4 if device == MODEL_315M else 0.1  # a fourth of the frames
    host = Host(launches=2.5e-3, texts=2e-3, search=search, search_two=2 * search)
    assert simulated(device, host, **{**STREAMS, "in_hand": 11, "processes": 8}) <= 1.10 * greedy
    seconds = simulated(device, host, **{**STREAMS, "in_hand": 11, "processes": 1})
    assert seconds == pytest.approx(1000 * search, rel=0.05)


def test_batches_that_are_searched_together_keep_up_with_the_fastest_model():
    greedy = simulated(SEW_D, Host(launches=2.8e-3), **STREAMS)
    beside = {**STREAMS, "in_hand": 33, "processes": 15}
    two, alone = (Host(launches=2.9e-3, texts=2e-3, search=0.3, search_two=two) for two in (0.41, 0.6))
    assert simulated(SEW_D, two, **beside) <= 1.10 * greedy
    assert simulated(SEW_D, alone, **beside) > 1.2 * greedy


@pytest.mark.slow
def test_no_bias_by_distance_of_a_published_model_is_in_memory():
    costs = batch_costs("w2v-bert 600M", Batch(20, 30.0))
    assert costs.launches_by_op["flex attention"] == 24
    assert costs.moved_bytes == pytest.approx(142.5e9, rel=0.05)
    assert (costs.copies, costs.waits) == (1, 1)
    assert costs.launches < 1_000


@pytest.mark.drivers
def test_a_pack_of_a_published_model_takes_about_the_launches_of_a_batch():
    of_pack, rows = pack_costs("fastconformer 110M", 10.0)
    of_batch = batch_costs("fastconformer 110M", Batch(60, 10.0))
    assert rows.whole_seconds == 610
    assert (of_pack.copies, of_pack.waits) == (1, 1)
    assert of_pack.launches <= 1.12 * of_batch.launches
    assert of_pack.moved_bytes <= 1.3 * of_batch.moved_bytes
