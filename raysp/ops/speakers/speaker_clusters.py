"""Clusters of vectors of speech, a cluster for each speaker.

Vectors are of length 1, distances are 1 less their cosine. Clusters are joined by average linkage until all are farther
apart than a threshold, or until there are as many as the most speakers. Distances are in double precision and rounded,
so that sums in another order lead to the same clusters.

Legend: N vectors, E their width, K speakers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MOST_VECTORS = 3000
"""Largest number of vectors compared in pairs, which takes 200 MB. If there are more, evenly spaced ones are compared,
and the others join the cluster with the nearest mean."""
DIGITS = 6
"""Decimals of a distance."""


def unit(vectors_NE: npt.NDArray[np.float32] | Floats) -> Floats:
    """Return vectors of length 1 in double precision; zeros stay."""
    vectors = np.asarray(vectors_NE, np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float64)


def cut(vectors_NE: Floats, merged: Floats, *, threshold: float, bounds: tuple[int, int | None], least: int) -> Labels:
    """Return the cluster of each vector, numbered by first occurrence.

    Args:
        vectors_NE: vectors of length 1, at least one.
        merged: their merges, as `merges` returns them.
        threshold: mean distance above which clusters stay separate.
        bounds: fewest and most clusters; never more than vectors.
        least: fewest vectors of a cluster that counts as a speaker, as long as `bounds` allow; vectors of smaller
            clusters join the nearest mean.
    """
    every = _every(vectors_NE)
    sample_ME = vectors_NE[::every]
    labels_M = _cut(merged, len(sample_ME), threshold, bounds)
    least = -(-least // every)
    kept = [label for label, count in enumerate(np.bincount(labels_M)) if count >= least]
    if len(kept) < bounds[0]:
        kept = sorted(np.argsort(-np.bincount(labels_M), kind="stable")[: max(bounds[0], 1)].tolist())
    means_KE = means(sample_ME, labels_M, kept)
    nearest_N = (vectors_NE @ means_KE.T).round(DIGITS).argmax(1)
    own_N = np.full(len(vectors_NE), -1)
    own_N[::every] = labels_M
    places = {label: place for place, label in enumerate(kept)}
    clusters = [places.get(own, near) for own, near in zip(own_N.tolist(), nearest_N.tolist(), strict=True)]
    return numbered(clusters)


def means(vectors_NE: Floats, labels_N: Labels, chosen: Sequence[int]) -> Floats:
    """Return the mean vectors of some clusters, of length 1 (K, E)."""
    return unit(np.stack([vectors_NE[labels_N == label].mean(0) for label in chosen]))


def numbered(labels: Sequence[int]) -> Labels:
    """Return labels as numbers from 0, in the order of first occurrence."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)


def merges(vectors_NE: Floats) -> Floats:
    """Return the merges of vectors for `cut`; of more than `MOST_VECTORS`, the merges of evenly spaced vectors.

    They are those of average linkage as scipy has them: two clusters, their distance, and their number of vectors.
    """
    from scipy.cluster.hierarchy import linkage

    vectors_NE = vectors_NE[:: _every(vectors_NE)]
    if len(vectors_NE) < 2:
        return np.empty((0, 4))
    distances_NN = (1 - vectors_NE @ vectors_NE.T).round(DIGITS)
    return np.asarray(linkage(distances_NN[np.triu_indices(len(vectors_NE), 1)], "average"))


def _every(vectors_NE: Floats) -> int:
    """Return the step between merged vectors."""
    return -(-len(vectors_NE) // MOST_VECTORS)


def _cut(merges: Floats, num_vectors: int, threshold: float, bounds: tuple[int, int | None]) -> Labels:
    """Return the cluster of each vector after the merges below a threshold, and merges required by bounds."""
    low, high = bounds
    count = num_vectors - int((merges[:, 2] <= threshold).sum())
    count = max(min(count, high or count), min(low, num_vectors))
    owner = list(range(num_vectors + len(merges)))
    for number, (first, second, *_) in enumerate(merges[: num_vectors - count]):
        owner[int(first)] = owner[int(second)] = num_vectors + number
    # An owner has a higher number than its members, so its own owner is resolved first.
    for place in reversed(range(len(owner))):
        owner[place] = place if owner[place] == place else owner[owner[place]]
    return numbered(owner[:num_vectors])
