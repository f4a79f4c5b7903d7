"""Clusters of speaker vectors: those of average linkage, whatever the order of sums."""

import itertools

import numpy as np
import pytest

from raysp.ops.speakers import speaker_clusters
from raysp.ops.speakers.speaker_clusters import cut, merges, numbered, unit


def clustered(vectors, *, threshold, bounds=(1, None), least=1):
    """Return the cluster of each vector."""
    return cut(vectors, merges(vectors), threshold=threshold, bounds=bounds, least=least)


def voices(counts, seed=0, spread=0.3, width=24):
    """Draw vectors around a direction for each speaker, in the order of the counts, and their speakers."""
    draw = np.random.default_rng(seed)
    centres = unit(draw.standard_normal((len(counts), width)))
    speakers = np.repeat(np.arange(len(counts)), counts)
    return unit(centres[speakers] + spread / np.sqrt(width) * draw.standard_normal((len(speakers), width))), speakers


def brute_force(vectors, threshold):
    """Join the two clusters whose members are nearest in the mean, until all are farther apart."""
    clusters = [[place] for place in range(len(vectors))]
    while len(clusters) > 1:
        pairs = itertools.combinations(range(len(clusters)), 2)
        distances = {(a, b): (1 - vectors[clusters[a]] @ vectors[clusters[b]].T).mean() for a, b in pairs}
        (first, second), distance = min(distances.items(), key=lambda one: one[1])
        if distance > threshold:
            break
        clusters[first] += clusters.pop(second)
    owner = {place: number for number, cluster in enumerate(clusters) for place in cluster}
    return numbered([owner[place] for place in range(len(vectors))]).tolist()


@pytest.mark.parametrize("threshold", [0.1, 0.6, 1.1])
@pytest.mark.parametrize("seed", range(2))
def test_clusters_are_those_of_average_linkage(seed, threshold):
    vectors = unit(np.random.default_rng(seed).standard_normal((23, 5)))
    assert clustered(vectors, threshold=threshold).tolist() == brute_force(vectors, threshold)


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


def test_many_vectors_have_the_clusters_of_fewer():
    vectors, speakers = voices([2 * speaker_clusters.MOST_VECTORS, 90, 130])
    assert clustered(vectors, threshold=0.5).tolist() == speakers.tolist()
