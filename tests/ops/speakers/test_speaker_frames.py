"""Turns from probabilities of frames that are known, and those of windows whose classes are in another order."""

import numpy as np
import pytest

from raysp.ops.speakers.speaker_frames import FrameDiarization, FrameWindow, stitched
from raysp.ops.speakers.speaker_turns import Turn

pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")
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


class TestTurns:
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

    def test_the_threshold_itself_is_no_speech_and_short_pauses_are_parts_of_turns(self):
        assert diarized([[0.5], [0.75]]) == [Turn(0, 0.25, 0.5, 0.75)]
        assert [one.start for one in diarized([[0.5], [0.75]], threshold=0.4)] == [0]
        scores = [[1], [0], [0], [1], [0], [0], [0], [1]]
        assert [(one.start, one.end) for one in diarized(scores, merge_seconds=0.75)] == [(0, 1), (1.75, 2)]
        assert diarized(np.zeros((5, 2))) == diarized(np.zeros((0, 2))) == []

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

    @pytest.mark.parametrize("shared", [0, 4])
    def test_without_anything_to_match_by_the_order_stays(self, shared):
        silent = np.zeros((4, 3), np.float32)
        first = np.concatenate([speech(1, 20, 3), silent])
        second = np.concatenate([silent[:shared], speech(2, 20, 3)])
        found = stitched([FrameWindow(0, 0, first), FrameWindow(24 - shared, 24, second)])
        np.testing.assert_array_equal(found, np.concatenate([first, second[shared:]]))

    def test_a_frame_that_a_window_misses_at_its_end_is_its_last_one(self):
        first, second = np.arange(3, dtype=np.float32)[:, None], np.full((2, 1), 9, np.float32)
        assert stitched([FrameWindow(0, 0, first), FrameWindow(4, 4, second)]).ravel().tolist() == [0, 1, 2, 2, 9, 9]
