"""Classes of recordings, and segments of classes of frames."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.capabilities import Capability
from raysp.crossing import Array
from raysp.models.labelled_passes import MULTI_LABEL, REGRESSION
from raysp.ops.forward import Forward, ListingOp, Rows, Selected, StagingOp
from raysp.ops.rows import stretches
from raysp.ops.transcribing import flat, frames_of_whole_rows, list_lengths, owned_values

Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class Classifying(StagingOp):
    """Op for the most likely classes of each recording with their probabilities.

    For a window of a longer row it stages the logits, weighted by the number of frames that the window owns: logits are
    linear in the mean over frames.

    Attributes:
        schema: columns of labels and scores.
        staged: staged columns of a window of a longer row: weighted logits and the weight.
        labels: names of the classes.
        top_k: number of classes.
        problem_type: with "multi_label_classification" classes are independent, and all above `threshold` are returned;
            with "regression" scores are the predicted numbers, of the first `top_k` outputs.
        threshold: least probability of independent classes, exclusive.
        as_list: whether the columns are lists; for independent classes they always are.
    """

    labels: Sequence[str]
    _: KW_ONLY
    top_k: int
    problem_type: str | None
    threshold: float = 0.5
    as_list: bool | None = None

    def select(self, forward: Forward) -> Selected:
        return {"logits": forward.heads[Capability.CLASSES].logits.float()}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        logits_BN = arrays["logits"]
        weights = [None if part is None else part[1] - part[0] for part in rows.parts]
        classes = [self._classes(logits_N) for logits_N in logits_BN]
        weighted = [logits_N * np.float32(weight or 0) for weight, logits_N in zip(weights, logits_BN, strict=True)]
        return [*(rows.whole(values) for values in zip(*classes, strict=True)), rows.staged(weighted), weights]

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        logits, weights = (windows.column(name).combine_chunks() for name in self.staged.names)
        matrix_WN = np.asarray(cast("pa.ListArray[Any]", logits).flatten(), np.float32).reshape(len(weights), -1)
        return self._classes(matrix_WN.sum(0) / np.float32(max(1, weights.to_numpy().sum())))

    def _classes(self, logits_N: Floats) -> tuple[object, object]:
        if self.problem_type == REGRESSION or (len(self.labels) == 1 and self.problem_type is None):
            return self._shaped(list(zip(self.labels, map(float, logits_N[: self.top_k]), strict=False)))
        if self.problem_type == MULTI_LABEL:
            scores_N = sigmoid(logits_N)
            chosen = [index for index in np.argsort(-scores_N, kind="stable") if scores_N[index] > self.threshold]
            return [self.labels[i] for i in chosen], [float(scores_N[i]) for i in chosen]
        shifted_N = np.exp(logits_N - logits_N.max())
        scores_N = shifted_N / shifted_N.sum()
        # Stable: among equal scores the class with the lower number comes first, on every processor.
        best = np.argsort(-scores_N, kind="stable")[: self.top_k]
        return self._shaped([(self.labels[index], float(scores_N[index])) for index in best])

    def _shaped(self, classes: list[tuple[str, float]]) -> tuple[object, object]:
        if not (self.top_k > 1 if self.as_list is None else self.as_list):
            return classes[0]
        return [label for label, _ in classes], [score for _, score in classes]


@dataclass(eq=False)
class Segmenting(ListingOp):
    """Op for the segments in which the probability of a class of a frame classifier exceeds a threshold.

    Attributes:
        schema: column of lists of structs.
        staged: staged column of a window of a longer row: probabilities of the frames that it owns.
        labels: names of the classes.
        frame_seconds: time between frames.
        threshold: probability of a class at which a segment begins; classes are independent.
        end_threshold: probability at or below which it ends; None: `threshold`.
        min_seconds: shorter segments are dropped.
        merge_seconds: segments of a class with a shorter gap between them become one, before short ones are dropped.
    """

    labels: Sequence[str]
    _: KW_ONLY
    frame_seconds: float
    threshold: float = 0.5
    end_threshold: float | None = None
    min_seconds: float = 0.0
    merge_seconds: float = 0.0

    def select(self, forward: Forward) -> Selected:
        return {"scores": forward.heads[Capability.FRAME_CLASSES].logits.float().sigmoid()}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        scores_BTN = arrays["scores"]
        whole = [self._segments(row[:count]) for row, count in zip(scores_BTN, frames_of_whole_rows(rows), strict=True)]
        return [rows.whole(whole), owned_values(scores_BTN, rows)]

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        [name] = self.staged.names
        counts = [count // len(self.labels) for count in list_lengths(windows, name)]
        segments: list[dict[str, object]] = []
        for stretch, frame in stretches(windows, counts):
            scores = np.asarray(flat(stretch.column(name)), np.float32)
            segments += self._segments(scores.reshape(-1, len(self.labels)), frame)
        return (segments,)

    def _segments(self, scores_TN: Floats, frame: int = 0) -> list[dict[str, object]]:
        """Return segments of frames from `frame` of a recording on, ordered by start, then by class."""
        segments: list[tuple[float, int, dict[str, object]]] = []
        for number, label in enumerate(self.labels):
            for first, end in spans_above(
                scores_TN[:, number],
                self.threshold,
                self.threshold if self.end_threshold is None else self.end_threshold,
                frame_seconds=self.frame_seconds,
                merge_seconds=self.merge_seconds,
            ):
                start, stop = (frame + first) * self.frame_seconds, (frame + end) * self.frame_seconds
                score = float(scores_TN[first:end, number].mean())
                if stop - start >= self.min_seconds:
                    segments.append((start, number, {"label": label, "start": start, "end": stop, "score": score}))
        return [segment for _, _, segment in sorted(segments, key=lambda numbered: numbered[:2])]


def spans_above(
    scores_T: Floats, threshold: float, end_threshold: float, *, frame_seconds: float, merge_seconds: float
) -> list[tuple[int, int]]:
    """Return first and end frame of each span of scores above a threshold.

    Args:
        scores_T: one score per frame.
        threshold: score above which a span begins.
        end_threshold: score above which it continues.
        frame_seconds: time between frames.
        merge_seconds: spans with a shorter gap between them are merged.
    """
    begins_T = scores_T > threshold
    spans = [span for span in _runs(scores_T > end_threshold) if begins_T[slice(*span)].any()]
    merged: list[tuple[int, int]] = []
    for first, end in [(first + int(begins_T[first:end].argmax()), end) for first, end in spans]:
        if merged and (first - merged[-1][1]) * frame_seconds < merge_seconds:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((first, end))
    return merged


def _runs(is_on_T: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and end index of each run of true values."""
    edges = np.flatnonzero(np.diff(is_on_T.astype(np.int8), prepend=0, append=0)).tolist()
    return list(pairwise(edges))[::2]


def sigmoid(values: Floats) -> Floats:
    """Return the probabilities of independent classes from their logits."""
    return np.asarray(1 / (1 + np.exp(-values)), np.float32)
