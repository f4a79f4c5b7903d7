"""Estimates of runs that label each channel: hours are those of rows, and work is that of all channels."""

import pytest

import raysp
from tests.ops.channels.calls import RATE, encoded, pipeline, side


@pytest.mark.slow
def test_hours_are_those_of_rows_and_work_is_that_of_all_channels(tmp_path):
    call = side(0, [0, 0.5])
    seconds = len(call) / RATE
    recordings = [encoded([call, call, call]), encoded([call])]
    found = raysp.estimate(pipeline(tmp_path, recordings, window_seconds=1, overlap_seconds=0.25), rtfx=2.0)
    assert (found.audio_seconds.value, found.audio_seconds.margin) == (pytest.approx(2 * seconds), 0)
    assert (found.channel_seconds.value, found.channel_seconds.margin) == (pytest.approx(4 * seconds), 0)
    assert found.cost.wall_seconds.value == pytest.approx(4 * seconds / 2.0)
    assert found.simulation.row_seconds == pytest.approx(2 * seconds)
    mono = raysp.estimate(pipeline(tmp_path, recordings, "mean", window_seconds=1, overlap_seconds=0.25), rtfx=2.0)
    assert mono.channel_seconds == mono.audio_seconds == found.audio_seconds
    assert found.simulation.windows == 2 * mono.simulation.windows
    assert found.simulation.real_seconds == pytest.approx(2 * mono.simulation.real_seconds)
