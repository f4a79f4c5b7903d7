"""The space of speakers: covariances of made vectors, its file, and turns that it decides."""

import json

import numpy as np
import pytest

from raysp import CheckpointError
from raysp.ops.speakers.speaker_space import SPEAKERS_FILE, SpeakerSpace

WIDTH, SPEAKERS = 12, 300
BETWEEN = np.array([9.0, 4.0, 1.0])


def made(count=20, seed=0):
    """Return vectors of speakers who differ in three of twelve dimensions, mixed, far from 0, and the speakers."""
    draw = np.random.default_rng(seed)
    mixing = np.linalg.qr(draw.standard_normal((WIDTH, WIDTH)))[0] * np.geomspace(0.2, 5, WIDTH)
    means = np.zeros((SPEAKERS, WIDTH))
    means[:, :3] = draw.standard_normal((SPEAKERS, 3)) * np.sqrt(BETWEEN)
    speakers = np.repeat(np.arange(SPEAKERS), count)
    return (means[speakers] + draw.standard_normal((len(speakers), WIDTH))) @ mixing + 7, speakers, mixing


@pytest.fixture(scope="module")
def space() -> SpeakerSpace:
    vectors, speakers, _ = made()
    return SpeakerSpace.of(vectors, speakers)


def test_a_file_holds_it(space, tmp_path):
    (tmp_path / SPEAKERS_FILE).write_text(space.text)
    found = SpeakerSpace.load(tmp_path, WIDTH)
    vectors, *_ = made(count=2)
    np.testing.assert_allclose(found(vectors), space(vectors), rtol=1e-4, atol=1e-4)
    assert SpeakerSpace.load(tmp_path.parent, WIDTH) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": [0.0] * 3}, "expected vectors of 12 numbers"),
        ({"directions": "far"}, "found no numbers"),
        ({"mean": [float("nan")] * WIDTH}, "not finite"),
        ({"between": [-1.0, 1.0, 1.0]}, "variances of 0 or less"),
    ],
)
def test_a_wrong_file_is_refused(space, tmp_path, change, words):
    value = json.loads(space.text)
    value["directions"] = value["directions"][:3]
    value["between"] = value["between"][:3]
    (tmp_path / SPEAKERS_FILE).write_text(json.dumps({**value, **change}))
    with pytest.raises(CheckpointError, match=f"{words}.*restore the file that `raysp finetune` wrote"):
        SpeakerSpace.load(tmp_path, WIDTH)


def test_too_few_speakers_or_alike_ones_have_none_and_only_finite_vectors_count():
    vectors, speakers, _ = made()
    assert SpeakerSpace.of(vectors[:40], speakers[:40]) is None  # two speakers
    assert SpeakerSpace.of(vectors[::20], speakers[::20]) is None  # one vector of each
    assert SpeakerSpace.of(np.ones((40, 3)), np.repeat(np.arange(10), 4)) is None
    broken = np.concatenate([np.full((2, WIDTH), np.nan), vectors])  # vectors that are not finite do not count
    found = SpeakerSpace.of(broken, np.concatenate([[0, 1], speakers]))
    np.testing.assert_array_equal(found.between_D, SpeakerSpace.of(vectors, speakers).between_D)


def test_ratios_are_those_of_the_two_densities(space):
    draw = np.random.default_rng(2)
    places = draw.standard_normal((9, len(space.between_D)))
    labels = np.array([0] * 4 + [1] * 5)
    means = np.stack([places[labels == one].mean(0) for one in (0, 1)])
    counts = np.array([2.0, 2.5])
    expected = 0.0
    for dim, between in enumerate(space.between_D):
        for same, sign in ((1, 1), (0, -1)):
            covariance = np.diag(between + 1 / counts) + same * between * (1 - np.eye(2))
            quadratic = means[:, dim] @ np.linalg.solve(covariance, means[:, dim])
            expected += sign * -0.5 * (np.linalg.slogdet(covariance)[1] + quadratic)
    assert space.nearest(places, labels, 0.5) == pytest.approx(expected)
