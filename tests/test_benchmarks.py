import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from benchmarks import corpus, models, throughput
from benchmarks.bare import CUTS


@pytest.fixture(scope="module")
def utterances() -> dict[str, corpus.Utterance]:
    return {one.id: one for speaker in corpus.read_utterances(corpus.DEMO_DIGITS).values() for one in speaker}


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def built(name: str, seed: int) -> list[bytes]:
        shards = corpus.build(tmp_path / name, "test-like", minutes=0.5, seed=seed, shards=2)
        return [shard.read_bytes() for shard in shards]

    first = built("a", 1)
    assert len(first) == 2
    assert built("b", 1) == first
    assert built("c", 2) != first


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_a_recording_is_the_utterances_of_its_reference_with_gaps_between_them(
    tmp_path: Path, kind: str, utterances: dict[str, corpus.Utterance]
) -> None:
    shards = corpus.build(tmp_path, kind, minutes=1, seed=3, shards=2)
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        parts = [utterances[name] for name in row["parts"]]
        gap = round(corpus.GAP_SECONDS * rate)
        assert row["text"].split() == [one.text for one in parts]
        assert row["duration"] == len(samples) / rate
        start = 0
        for one in parts:
            np.testing.assert_array_equal(samples[start : start + len(one.samples)], one.samples)
            start += len(one.samples) + gap
        assert start - gap == len(samples)
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("kind", "low", "high", "mean"), [("train-like", 1, 35, 12.3), ("test-like", 1, 35, 7.0), ("equal", 10, 10, 10)]
)
def test_durations_have_the_range_and_the_mean_of_their_kind(kind: str, low: float, high: float, mean: float) -> None:
    seconds = corpus.target_seconds(kind, np.random.default_rng(0), 100_000)
    assert low <= min(seconds)
    assert max(seconds) <= high
    assert np.mean(seconds) == pytest.approx(mean, rel=0.03)


def test_a_long_tail_has_its_median_and_a_hundredth_of_very_long_recordings() -> None:
    seconds = np.array(corpus.target_seconds("long-tail", np.random.default_rng(0), 200_000))
    assert np.median(seconds) == pytest.approx(6, rel=0.05)
    assert seconds.min() >= 0.3
    assert 0.005 < np.mean(seconds >= 300) < 0.015
    assert seconds.max() <= 1200


def test_a_small_corpus_has_shorter_long_recordings() -> None:
    seconds = corpus.target_seconds("long-tail", np.random.default_rng(0), 600)
    assert max(seconds) <= 120


@pytest.mark.parametrize("name", CUTS)
def test_every_cut_puts_each_window_into_one_batch_within_the_budget(name: str) -> None:
    num_samples = np.random.default_rng(0).integers(1000, 300_000, 200).tolist()
    batches = CUTS[name](num_samples, 500_000)
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(max(num_samples[i] for i in batch) * len(batch) <= 500_000 for batch in batches)


def test_the_steady_state_lies_between_a_tenth_and_nine_tenths_of_the_audio() -> None:
    blocks = [
        {"finished": 10.0, "forward_seconds": 10.0, "audio_seconds": 50.0},
        {"finished": 30.0, "forward_seconds": 10.0, "audio_seconds": 50.0},
    ]
    assert throughput.steady_window(blocks) == pytest.approx((2.0, 28.0))


def test_labels_that_differ_in_a_letter_stop_the_measurement() -> None:
    throughput.check_agreement({"a": "ONE"}, {"a": "ONE"})
    with pytest.raises(SystemExit, match="1 of 2 labels differ"):
        throughput.check_agreement({"a": "ONE", "b": "TWO"}, {"a": "ONE", "b": "TWQ"})


def test_every_model_to_measure_is_one_of_both_libraries() -> None:
    import transformers

    import raysp.models

    assert len({case.name for case in models.CASES}) == len(models.CASES)
    for case in models.CASES:
        assert case.model in raysp.models.__all__
        getattr(transformers, case.model).config_class(**case.flags)
        assert case.inputs(2, 0.5)["input_values"].shape == (2, 8000)


def test_a_ratio_is_that_of_medians_and_a_low_one_is_marked() -> None:
    one = models.Measured("x", 1, 1.5, theirs=[2, 9, 4], ours=[2, 1, 8], their_cpu=[4, 4, 4], our_cpu=[3, 3, 9])
    assert (one.ratio, one.cpu_ratio) == (2.0, 4 / 3)
    assert models.row(one)[""] == "below its floor"
