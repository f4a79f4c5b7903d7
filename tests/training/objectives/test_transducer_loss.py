"""The loss of pipelines/transducer against a sum over all paths, one by one."""

import random

import pytest
import torch

from pipelines.transducer.transducer_loss import Moves, transducer_loss

VOCAB, WIDTH = 4, 6
DURATIONS = [(), (0, 1, 2, 3, 4), (1, 2), (0, 2, 3)]
CHUNKS = [1e9, 100.0, 1.0]
"""Bytes of a chunk: all at once, a frame of some labels, and a frame."""


def drawn(durations):
    """Return a joint network, and frames, predictions and labels of four rows, in float64."""
    draw = random.Random(str(durations))
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    num_frames = torch.tensor([draw.randrange(1, 6) for _ in range(3)] + [5])
    num_labels = torch.tensor([draw.randrange(0, 4) for _ in range(3)] + [3])
    blank = draw.randrange(VOCAB)
    labels = torch.randint(0, VOCAB - 1, (4, 3), generator=generator)
    labels += labels >= blank
    frames, predicted = (torch.randn(4, size, WIDTH, generator=generator, dtype=torch.float64) for size in (5, 4))
    weight = torch.randn(VOCAB + len(durations), WIDTH, generator=generator, dtype=torch.float64)
    given = [one.requires_grad_() for one in (frames, predicted, weight)]
    return Moves(blank, VOCAB, durations), given, labels, num_frames, num_labels


def joint_of(weight):
    return lambda predicted, frames: torch.tanh(frames + predicted) @ weight.T


def paths(moves, num_frames, num_labels, at=(0, 0)):
    """Yield all paths as lists of (frame, labels before, is label, place of the duration)."""
    frame, label = at
    spans = [*enumerate(moves.durations)] if moves.durations else None
    for place, span in spans or [(None, 1)]:
        if span and (frame + span, label) == (num_frames, num_labels):
            yield [(frame, label, False, place)]
        elif span and frame + span < num_frames:
            for rest in paths(moves, num_frames, num_labels, (frame + span, label)):
                yield [(frame, label, False, place), *rest]
    for place, span in spans or [(None, 0)]:
        if label < num_labels and frame + span < num_frames:
            for rest in paths(moves, num_frames, num_labels, (frame + span, label + 1)):
                yield [(frame, label, True, place), *rest]


def by_paths(moves, given, labels, num_frames, num_labels):
    """Return the loss of each row, and the number of its paths."""
    frames, predicted, weight = given
    logits = joint_of(weight)(predicted[:, None], frames[:, :, None])
    tokens, spans = logits[..., :VOCAB].log_softmax(-1), logits[..., VOCAB:].log_softmax(-1)
    losses, counts = [], []
    for row in range(len(labels)):
        found = [*paths(moves, int(num_frames[row]), int(num_labels[row]))]
        counts.append(len(found))
        moved = [
            (number, frame, at, labels[row, at] if is_label else moves.blank, place or 0)
            for number, path in enumerate(found)
            for frame, at, is_label, place in path
        ]
        number, frame, at, token, place = torch.tensor(moved, dtype=torch.long).view(-1, 5).T
        scores = tokens[row, frame, at, token] + (spans[row, frame, at, place] if moves.durations else 0)
        sums = scores.new_zeros(len(found)).index_add(0, number, scores)
        losses.append(-sums.logsumexp(0) if found else torch.zeros((), dtype=torch.float64))
    return torch.stack(losses), counts


def gradients(losses, given):
    return torch.autograd.grad(losses @ torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64), given)


@pytest.mark.parametrize("durations", DURATIONS)
def test_losses_and_gradients_are_those_of_a_sum_over_all_paths(durations):
    moves, given, labels, num_frames, num_labels = drawn(durations)
    frames, predicted, weight = given
    expected, counts = by_paths(moves, given, labels, num_frames, num_labels)
    assert max(counts) > 10 or durations == (1, 2)
    theirs = gradients(expected, given)
    for chunk_bytes in CHUNKS:
        found = transducer_loss(
            joint_of(weight), frames, predicted, labels, num_frames, num_labels, moves, chunk_bytes=chunk_bytes
        )
        torch.testing.assert_close(found, expected)
        for one, other in zip(gradients(found, given), theirs, strict=True):
            torch.testing.assert_close(one, other)
            assert other.abs().max() > 0
