"""The loss of pipelines/transducer against a sum over all paths, one by one, and against transformers."""

import itertools
import random

import pytest
import torch

from pipelines.transducer.transducer_loss import Moves, move_scores, moves_of, row_losses, transducer_loss
from raysp import models
from tests.models.oracles import make_oracle
from tests.models.parity import inputs_and_mask
from tests.soaked import some

VOCAB, WIDTH = 4, 6
DURATIONS = [(), (0, 1, 2, 3, 4), (0, 1), (1, 2), (0, 2, 3), (0, 1, 2, 4, 8)]
CHUNKS = [1e9, 100.0, 1.0]
"""Bytes of a chunk: all at once, a frame of some labels, and a frame."""


def drawn(seed, durations):
    """Return a joint network, and frames, predictions and labels of four rows, in float64."""
    draw = random.Random(f"{seed} {durations}")
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


def assert_equal(found, given, expected, theirs):
    """Compare losses with those expected, and their gradients with `theirs`."""
    torch.testing.assert_close(found, expected)
    ours = gradients(found, given)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
        assert other.abs().max() > 0


@pytest.mark.parametrize("seed", some(range(20), *range(4)))
@pytest.mark.parametrize("durations", DURATIONS)
def test_losses_and_gradients_are_those_of_a_sum_over_all_paths(durations, seed):
    moves, given, labels, num_frames, num_labels = drawn(seed, durations)
    frames, predicted, weight = given
    expected, counts = by_paths(moves, given, labels, num_frames, num_labels)
    assert max(counts) > 10 or durations == (1, 2)
    theirs = gradients(expected, given)
    for chunk_bytes in CHUNKS:
        found = transducer_loss(
            joint_of(weight), frames, predicted, labels, num_frames, num_labels, moves, chunk_bytes=chunk_bytes
        )
        assert_equal(found, given, expected, theirs)


def test_rows_of_the_tests_have_no_path_too():
    """Otherwise rows without a path are compared nowhere."""
    counts = [by_paths(*drawn(seed, (1, 2)))[1] for seed in range(20)]
    assert 0 in itertools.chain(*counts)


@pytest.mark.parametrize("durations", DURATIONS)
def test_the_least_number_of_frames_has_a_path(durations):
    moves = Moves(0, VOCAB, durations)
    for num_labels in range(4):
        needed = moves.frames_needed(num_labels)
        assert [*paths(moves, needed, num_labels)]
        assert not any([*paths(moves, frames, num_labels)] for frames in range(needed))


@pytest.mark.parametrize("durations", DURATIONS)
def test_padding_does_not_change_a_loss(durations):
    moves, (frames, predicted, weight), labels, num_frames, num_labels = drawn(0, durations)
    together = transducer_loss(joint_of(weight), frames, predicted, labels, num_frames, num_labels, moves)
    for row, (length, count) in enumerate(zip(num_frames.tolist(), num_labels.tolist(), strict=True)):
        one = slice(row, row + 1)
        alone = transducer_loss(
            joint_of(weight), frames[one, :length], predicted[one, : count + 1], labels[one, :count],
            num_frames[one], num_labels[one], moves,
        )  # fmt: skip
        torch.testing.assert_close(alone, together[one])


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_losses_of_durations_equal_theirs(chunk_bytes):
    from transformers.loss.loss_tdt import tdt_loss

    generator = torch.Generator().manual_seed(0)
    frames, predicted = (torch.randn(3, size, 16, generator=generator, requires_grad=True) for size in (40, 13))
    weight = torch.randn(20 + 5, 16, generator=generator, requires_grad=True)
    labels = torch.randint(0, 19, (3, 12), generator=generator)
    moves, num_frames, num_labels = Moves(19, 20, (0, 1, 2, 3, 4)), torch.tensor([40, 21, 33]), torch.tensor([12, 7, 1])
    given = (frames, predicted, weight)
    found = transducer_loss(
        joint_of(weight), frames, predicted, labels, num_frames, num_labels, moves, chunk_bytes=chunk_bytes
    )
    logits = joint_of(weight)(predicted[:, None], frames[:, :, None])
    expected = tdt_loss(
        logits[..., :20], logits[..., 20:], labels, num_frames, num_labels, 19, [0, 1, 2, 3, 4], reduction="none"
    )
    torch.testing.assert_close(found, expected)
    pairs = zip(torch.autograd.grad(found.sum(), given), torch.autograd.grad(expected.sum(), given), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_long_rows_in_float32_are_near_those_in_float64():
    generator = torch.Generator().manual_seed(0)
    frames, predicted, weight = (
        torch.randn(*shape, generator=generator) for shape in ((1, 750, 8), (1, 201, 8), (9, 8))
    )
    labels, moves = torch.randint(0, 8, (1, 200), generator=generator), Moves(8, 9)
    sizes = (torch.tensor([750]), torch.tensor([200]))
    low, wide = (
        transducer_loss(joint_of(weight.to(kind)), frames.to(kind), predicted.to(kind), labels, *sizes, moves)
        for kind in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(low.double(), wide, rtol=1e-5, atol=0)


def test_no_logits_of_all_frames_exist_together():
    """Joint networks are asked for at most so many bytes, in both passes."""
    sizes = []

    def joint(predicted, frames):
        sizes.append(torch.broadcast_shapes(predicted.shape, frames.shape)[:-1])
        return (frames + predicted).tanh()

    frames, predicted = torch.randn(3, 50, 8, requires_grad=True), torch.randn(3, 11, 8, requires_grad=True)
    labels = torch.randint(0, 7, (3, 10))
    transducer_loss(
        joint, frames, predicted, labels, torch.tensor([50] * 3), torch.tensor([10] * 3), Moves(7, 8), chunk_bytes=4000
    ).sum().backward()
    assert max(rows * length * places for rows, length, places in sizes) * 8 * 4 <= 4000
    assert len(sizes) == 2 * 3 * 5  # each of five parts of three rows, once more in the backward pass


def test_predictions_that_do_not_fit_the_labels_are_refused():
    with pytest.raises(ValueError, match=r"predictions \(1, 3, 8\) and labels \(1, 3\) found, expected one prediction"):
        move_scores(
            None, torch.zeros(1, 2, 8), torch.zeros(1, 3, 8), torch.zeros(1, 3).long(), Moves(0, 4), chunk_bytes=1
        )


MELS, COUNTS = (97, 40, 75), torch.tensor([4, 2, 4])
"""Log-mel frames of the rows of models, and tokens of their texts."""


@pytest.fixture(params=["ParakeetForRNNT", "ParakeetForTDT"])
def pair(request, tmp_path):
    oracle = make_oracle(request.param)
    oracle.save_pretrained(tmp_path)
    return oracle, getattr(models, request.param).from_pretrained(tmp_path, strict=True)


def losses_of_model(model, labels, rows=slice(None)):
    """Return the losses of rows of noise."""
    features, mask = (one[rows] for one in inputs_and_mask(MELS, 16))
    num_frames = model._get_feat_extract_output_lengths(mask.sum(-1))
    return row_losses(model, model(features, mask).pooler_output, num_frames, labels[rows], COUNTS[rows])


def labels_of_rows():
    return torch.randint(3, 18, (3, 4), generator=torch.Generator().manual_seed(2))


def test_losses_of_given_texts_are_theirs(pair):
    """Of RNN-T theirs needs torchaudio: there the loss is that of the logits, which are theirs."""
    oracle, model = pair
    features, mask = inputs_and_mask(MELS, 16)
    labels = labels_of_rows()
    found = losses_of_model(model, labels)
    inputs = torch.nn.functional.pad(labels, (1, 0), value=model.blank)
    if model.durations:
        padded = labels.masked_fill(torch.arange(4) >= COUNTS[:, None], model.config.pad_token_id)
        expected = oracle(features, mask, decoder_input_ids=inputs, labels=padded, output_attention_mask=True).loss
        torch.testing.assert_close((found / COUNTS).mean(), expected, rtol=1e-4, atol=1e-4)
        return
    logits = model(features, mask, decoder_input_ids=inputs).logits
    num_frames = model._get_feat_extract_output_lengths(mask.sum(-1))
    frames, predicted = torch.zeros(*logits.shape[:2], 1), torch.zeros(3, 5, 1)
    expected = transducer_loss(lambda *_: logits, frames, predicted, labels, num_frames, COUNTS, moves_of(model))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_row_of_a_model_alone_has_the_loss_that_it_has_in_a_batch(pair):
    _, model = pair
    labels = labels_of_rows()
    together = losses_of_model(model, labels)
    for row in range(3):
        alone = losses_of_model(model, labels, slice(row, row + 1))
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)


def test_all_parts_of_a_model_learn(pair):
    _, model = pair
    losses_of_model(model, labels_of_rows()).sum().backward()
    missing = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()]
    assert all("bias" in name for name in missing), missing  # such as those before a norm
    assert not [name for name in missing if name.startswith(("joint", "decoder.lstm", "encoder_projector"))]
