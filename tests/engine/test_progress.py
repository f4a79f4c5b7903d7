"""What a run says of itself while it goes on."""

import time

from raysp.engine.progress import Progress


def test_the_estimate_leaves_out_what_went_before_the_first_block(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(rows_total=100, shards_total=1)
    now += 60  # Ray starts, the model is loaded
    assert progress.eta_seconds is None
    progress.add_block(10, 5.0)
    assert progress.eta_seconds is None
    now += 3
    progress.add_block(30, 15.0)
    assert progress.eta_seconds == 6.0  # 60 rows are left, ten a second went by
    assert progress.rtfx == 20 / 63


def test_shares_are_unknown_before_there_is_anything_to_share():
    progress = Progress(rows_total=0, shards_total=0)
    assert progress.padding_efficiency is None
    assert progress.wait_share is None
    progress.real_samples, progress.padded_samples = 90, 100
    progress.busy_seconds, progress.wait_seconds = 3.0, 1.0
    assert progress.padding_efficiency == 0.9
    assert progress.wait_share == 0.25
