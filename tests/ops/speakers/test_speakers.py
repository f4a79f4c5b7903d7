"""Speakers by vectors and by frames: clusters, the space of vectors, turns, and speakers of words."""

import json

import numpy as np
import pytest

from raysp import CheckpointError
from raysp.ops.speakers.speaker_clusters import cut, merges, numbered, unit
from raysp.ops.speakers.speaker_frames import FrameWindow, stitched
from raysp.ops.speakers.speaker_space import SPEAKERS_FILE, SpeakerSpace
from raysp.ops.speakers.speaker_turns import Diarization

pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")


def clustered(vectors, *, threshold, bounds=(1, None), least=1):
    """Return the cluster of each vector."""
    return cut(vectors, merges(vectors), threshold=threshold, bounds=bounds, least=least)


def voices(counts, seed=0, spread=0.3, width=24):
    """Draw vectors around a direction for each speaker, in the order of the counts, and their speakers."""
    draw = np.random.default_rng(seed)
    centres = unit(draw.standard_normal((len(counts), width)))
    speakers = np.repeat(np.arange(len(counts)), counts)
    return unit(centres[speakers] + spread / np.sqrt(width) * draw.standard_normal((len(speakers), width))), speakers


def test_the_number_is_found_bounded_or_given():
    vectors, speakers = voices([20, 5, 33, 12])
    assert clustered(vectors, threshold=0.5).tolist() == speakers.tolist()
    for bounds, expected in [((2, 2), 2), ((1, 3), 3), ((6, 6), 6), ((5, None), 5), ((1, 9), 4)]:
        found = clustered(vectors, threshold=0.5, bounds=bounds)
        assert np.unique(found).tolist() == list(range(expected))
    assert clustered(vectors[:3], threshold=0.5, bounds=(5, 5)).tolist() == [0, 1, 2]
    order = np.random.default_rng(3).permutation(len(vectors))  # speakers are numbered by their first window
    assert clustered(vectors[order], threshold=0.5).tolist() == numbered(speakers[order].tolist()).tolist()


def test_a_cluster_with_little_speech_joins_the_nearest_speaker():
    vectors, speakers = voices([20, 20, 2])
    assert clustered(vectors, threshold=0.5).max() == 2
    found = clustered(vectors, threshold=0.5, least=3)
    assert found[:40].tolist() == speakers[:40].tolist()
    assert {*found[40:].tolist()} < {0, 1} or len({*found.tolist()}) == 2
    # Unless that many speakers are asked for, or nobody speaks longer.
    assert clustered(vectors, threshold=0.5, bounds=(3, 3), least=3).tolist() == speakers.tolist()
    assert clustered(vectors[40:], threshold=0.5, least=3).tolist() == [0, 0]


WIDTH = 12
SPACE = {"mean": [0.5] * WIDTH, "directions": np.eye(3, WIDTH).tolist(), "between": [9.0, 4.0, 1.0]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": [0.0] * 3}, "expected vectors of 12 numbers"),
        ({"directions": "far"}, "found no numbers"),
        ({"mean": [float("nan")] * WIDTH}, "not finite"),
        ({"between": [-1.0, 1.0, 1.0]}, "variances of 0 or less"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, change, words):
    assert SpeakerSpace.load(tmp_path, WIDTH) is None
    (tmp_path / SPEAKERS_FILE).write_text(json.dumps(SPACE))
    assert SpeakerSpace.load(tmp_path, WIDTH) is not None
    (tmp_path / SPEAKERS_FILE).write_text(json.dumps({**SPACE, **change}))
    with pytest.raises(CheckpointError, match=f"{words}.*restore the file that `raysp finetune` wrote"):
        SpeakerSpace.load(tmp_path, WIDTH)


STEP = 0.5


def diarization(**fields):
    given = {"threshold": 0.5, "bounds": (1, None), "least_seconds": 1.0, "merge_seconds": 0.5, "step_seconds": STEP}
    given |= {"window_seconds": 1.5, "change_seconds": 0.375}
    return Diarization(**{**given, **fields})


def vectors_of(speakers, seed=0):
    """Return vectors near an axis for each speaker."""
    noise = 0.05 * np.random.default_rng(seed).standard_normal((len(speakers), 8))
    return np.eye(8)[np.array(speakers, int)] + noise


def test_a_region_without_a_window_has_the_nearest_speaker():
    middles = np.array([0.25, 0.75, 1.25, 5.25, 5.75, 6.25])
    found = diarization(least_seconds=0)([(0, 1.5), (4.6, 4.7), (5, 6.5)], middles, vectors_of([0, 0, 0, 1, 1, 1]))
    assert [one[:3] for one in found] == [(0, 0, 1.5), (1, 4.6, 6.5)]
    for regions, count in (([], 10), ([(0.0, 1.0)], 0)):
        assert diarization()(regions, (np.arange(count) + 0.5) * STEP, vectors_of([0] * count)) == []


def speech(seed: int, num_frames: int, num_classes: int) -> np.ndarray:
    """Return probabilities of speakers who often speak, at times at once."""
    draw = np.random.default_rng(seed)
    spoken = draw.random((1 + num_frames // 8, num_classes)) < 0.6
    scores = np.where(np.repeat(spoken, 8, 0)[:num_frames], 0.9, 0.1)
    return (scores + draw.uniform(-0.05, 0.05, scores.shape)).astype(np.float32)


@pytest.mark.parametrize("num_classes", [1, 5])
def test_classes_in_another_order_in_each_window_are_the_same_speakers(num_classes):
    for seed in range(3):
        draw = np.random.default_rng(seed)
        truth = speech(seed, 400, num_classes)
        windows, start, own = [], 0, 0
        while True:
            end = min(len(truth), start + int(draw.integers(120, 160)))
            order = draw.permutation(num_classes) if start else np.arange(num_classes)
            noise = draw.uniform(-0.05, 0.05, (end - start, num_classes))
            windows.append(FrameWindow(start, own, (truth[start:end] + noise).astype(np.float32)[:, order]))
            if end == len(truth):
                break
            own = end - int(draw.integers(10, 40))
            start = end - 80
        assert len(windows) > 3
        np.testing.assert_allclose(stitched(windows), truth, atol=0.051)
