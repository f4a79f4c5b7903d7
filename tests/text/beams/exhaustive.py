"""Oracle of beam search: sums over all alignments of a few frames and tokens, in plain Python."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

Ids = tuple[int, ...]


def log_softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    total = highest + math.log(math.fsum(math.exp(one - highest) for one in logits))
    return [one - total for one in logits]


def collapsed(path: Sequence[int], blank: int) -> Ids:
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def probabilities(logits: Sequence[Sequence[float]], blank: int) -> dict[Ids, float]:
    """Return the probability of every sequence of tokens, summed over its alignments."""
    frames = [log_softmax(one) for one in logits]
    found: defaultdict[Ids, list[float]] = defaultdict(list)
    for path in itertools.product(range(len(frames[0])), repeat=len(frames)):
        found[collapsed(path, blank)].append(math.exp(math.fsum(f[t] for f, t in zip(frames, path, strict=True))))
    return {ids: math.fsum(values) for ids, values in found.items()}


def ranked(
    logits: Sequence[Sequence[float]], blank: int, weight: Callable[[Ids], float] = lambda _: 0.0
) -> list[tuple[Ids, float]]:
    """Return all sequences with their scores, the log-probability plus `weight`, the best first."""
    scores = {ids: math.log(p) + weight(ids) for ids, p in probabilities(logits, blank).items()}
    return sorted(scores.items(), key=lambda one: -one[1])


def best_path(logits: Sequence[Sequence[float]], blank: int, ids: Ids) -> float:
    """Return the log-probability of the best alignment of a sequence."""
    frames = [log_softmax(one) for one in logits]
    paths = (p for p in itertools.product(range(len(frames[0])), repeat=len(frames)) if collapsed(p, blank) == ids)
    return max(math.fsum(f[t] for f, t in zip(frames, path, strict=True)) for path in paths)
