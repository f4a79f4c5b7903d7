"""Turns by vectors of windows, and by probabilities of frames."""

from itertools import pairwise

import numpy as np
import pytest

from raysp.ops.speakers.speaker_frames import FrameDiarization, FrameWindow, stitched
from raysp.ops.speakers.speaker_turns import Diarization, Turn
from raysp.ops.speakers.word_speakers import spoken

pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")
STEP = 0.5


def diarization(**fields):
    given = {"threshold": 0.5, "bounds": (1, None), "least_seconds": 1.0, "merge_seconds": 0.5, "step_seconds": STEP}
    given |= {"window_seconds": 1.5, "change_seconds": 0.375}
    return Diarization(**{**given, **fields})


def vectors_of(speakers, seed=0):
    """Return vectors near an axis for each speaker."""
    noise = 0.05 * np.random.default_rng(seed).standard_normal((len(speakers), 8))
    return np.eye(8)[np.array(speakers, int)] + noise


def middles_of(count):
    return (np.arange(count) + 0.5) * STEP


def spans(turns):
    return [(one.speaker, one.start, one.end) for one in turns]


def test_speech_alone_is_in_turns_and_short_pauses_end_none():
    regions = [(0.1, 2.0), (2.3, 4.0), (5.0, 7.0), (7.2, 9.0)]
    found = diarization()(regions, middles_of(20), vectors_of([0] * 14 + [1] * 6))
    assert spans(found) == [(0, 0.1, 4.0), (0, 5.0, 7.0), (1, 7.2, 9.0)]
    apart = diarization(merge_seconds=0)(regions, middles_of(20), vectors_of([0] * 14 + [1] * 6))
    assert [one[1:] for one in spans(apart)] == regions


def test_a_region_without_a_window_has_the_nearest_speaker():
    middles = np.array([0.25, 0.75, 1.25, 5.25, 5.75, 6.25])
    found = diarization(least_seconds=0)([(0, 1.5), (4.6, 4.7), (5, 6.5)], middles, vectors_of([0, 0, 0, 1, 1, 1]))
    assert spans(found) == [(0, 0, 1.5), (1, 4.6, 6.5)]
    for regions, count in (([], 10), ([(0.0, 1.0)], 0)):
        assert diarization()(regions, middles_of(count), vectors_of([0] * count)) == []


@pytest.mark.parametrize("seed", range(5))
def test_turns_are_in_order_do_not_overlap_and_cover_the_speech(seed):
    draw = np.random.default_rng(seed)
    edges = np.sort(draw.uniform(0, 60, 24))
    regions = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    vectors = vectors_of(np.repeat(draw.integers(0, 4, 24), 5), seed)
    found = diarization(merge_seconds=0)(regions, middles_of(120), vectors)
    assert sum(one.end - one.start for one in found) == pytest.approx(sum(end - start for start, end in regions))
    assert all(before.end <= after.start for before, after in pairwise(found))
    firsts = list(dict.fromkeys(one.speaker for one in found))
    assert firsts == list(range(len(firsts)))


class TestWords:
    turns = tuple(turn._asdict() for turn in (Turn(0, 1.0, 3.0, 0.9), Turn(1, 3.0, 5.0, 0.9), Turn(0, 6.0, 7.0, 0.9)))

    @pytest.mark.parametrize(
        ("start", "end", "speaker"),
        [
            (1.2, 1.5, 0),
            (2.8, 3.4, 1),
            (5.1, 5.4, 1),
            (5.6, 5.9, 0),
            (0.0, 0.5, 0),
            (2, 7, 1),
        ],
    )
    def test_a_word_has_the_speaker_of_the_largest_part_or_of_the_nearest_turn(self, start, end, speaker):
        [word] = spoken(self.turns, [{"word": "a", "start": start, "end": end, "score": 0.5}])
        assert word == {"word": "a", "start": start, "end": end, "score": 0.5, "speaker": speaker}


FRAME = 0.25  # seconds: its multiples are exact


def diarized(scores, **fields):
    given = {"threshold": 0.5, "most": None, "least_seconds": 0, "merge_seconds": 0, "frame_seconds": FRAME, **fields}
    return FrameDiarization(**given)(np.asarray(scores, np.float32))


def speech(seed: int, num_frames: int, num_classes: int) -> np.ndarray:
    """Return probabilities of speakers who often speak, at times at once."""
    draw = np.random.default_rng(seed)
    spoken = draw.random((1 + num_frames // 8, num_classes)) < 0.6
    scores = np.where(np.repeat(spoken, 8, 0)[:num_frames], 0.9, 0.1)
    return (scores + draw.uniform(-0.05, 0.05, scores.shape)).astype(np.float32)


class TestTurnsOfFrames:
    def test_turns_are_where_a_class_is_above_the_threshold_also_at_once(self):
        scores = np.zeros((8, 3))
        scores[0:4, 1] = 0.75
        scores[2:6, 0] = [0.75, 1, 1, 0.75]
        scores[7, 1] = 1
        assert diarized(scores) == [
            Turn(0, 0, 1, 0.75),
            Turn(1, 0.5, 1.5, 0.875),
            Turn(0, 1.75, 2, 1.0),
        ]

    def test_the_speakers_with_most_speech_are_kept(self):
        scores = np.zeros((9, 3))
        scores[:2, 0], scores[2:5, 1], scores[5:, 2] = 1, 1, 1
        assert [(one.speaker, one.start) for one in diarized(scores)] == [(0, 0), (1, 0.5), (2, 1.25)]
        assert [(one.speaker, one.start) for one in diarized(scores, most=2)] == [(0, 0.5), (1, 1.25)]
        assert [one.start for one in diarized(scores, least_seconds=0.75)] == [0.5, 1.25]
        assert [one.start for one in diarized(scores, least_seconds=9)] == [1.25]  # who speaks most is one anyway


class TestStitching:
    @pytest.mark.parametrize("num_classes", [1, 3, 5])
    def test_classes_in_another_order_in_each_window_are_the_same_speakers(self, num_classes):
        for seed in range(5):
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
