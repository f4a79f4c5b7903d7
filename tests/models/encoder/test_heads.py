import pytest
import torch
import torch.nn.functional as F
from transformers.models.wav2vec2 import modeling_wav2vec2 as theirs

from raysp.models.encoder import heads


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("with_gradients", [True, False])
def test_the_sum_over_layers_equals_the_stacked_one(with_gradients):
    states, weights = random(5, 2, 7, 3), random(5).requires_grad_()
    expected = (states * weights.softmax(-1).view(-1, 1, 1, 1)).sum(0)
    with torch.set_grad_enabled(with_gradients):
        summed = heads.LayerSum(weights)
        for state in states:
            summed.append(state)
        torch.testing.assert_close(summed.total, expected)
        assert summed.total.requires_grad == with_gradients
        with pytest.raises(RuntimeError, match="state 6 given, expected 5"):
            summed.append(states[0])


def test_a_sum_that_lacks_a_layer_is_refused():
    summed = heads.LayerSum(torch.zeros(2))
    summed.append(random(1, 2, 3))
    with pytest.raises(RuntimeError, match="1 states given, expected 2"):
        _ = summed.total


def test_the_mean_leaves_padding_out():
    frames = random(3, 6, 4)
    valid = torch.arange(6) < torch.tensor([6, 2, 0])[:, None]
    pooled = heads.masked_mean(frames, valid)
    torch.testing.assert_close(pooled[0], frames[0].mean(0))
    torch.testing.assert_close(pooled[1], frames[1, :2].mean(0))
    assert torch.equal(pooled[2], torch.zeros(4))
    torch.testing.assert_close(heads.masked_mean(frames, None), frames.mean(1))


@pytest.mark.parametrize(("kernel", "dilation"), [(5, 1), (3, 2), (1, 1)])
def test_a_tdnn_layer_equals_theirs(kernel, dilation):
    class Config:
        tdnn_dim, tdnn_kernel, tdnn_dilation = (6, 8), (1, kernel), (1, dilation)

    oracle = theirs.TDNNLayer(Config, layer_id=1)
    layer = heads.tdnn_layers(Config.tdnn_dim, Config.tdnn_kernel, Config.tdnn_dilation)[1]
    layer.load_state_dict(oracle.state_dict())
    frames = random(2, 12, 6)
    torch.testing.assert_close(layer(frames), oracle(frames))
    assert layer(frames).shape[1] == heads.tdnn_output_frames(12, [kernel], [dilation])


def test_frames_of_a_tdnn_are_counted_with_dilation():
    count = torch.tensor([30, 10])
    assert heads.tdnn_output_frames(count, (5, 3, 3, 1, 1), (1, 2, 3, 1, 1)).tolist() == [16, -4]


def test_statistics_are_those_of_slices():
    frames = random(5, 9, 4)
    counts = torch.tensor([9, 4, 2, -3, 20])
    found = heads.pooled_statistics(frames, counts)
    for row, count in enumerate(counts.tolist()):
        expected = torch.cat([frames[row, :count].mean(0), frames[row, :count].std(0)])
        torch.testing.assert_close(found[row], expected)
    torch.testing.assert_close(heads.pooled_statistics(frames)[0], found[0])


def test_channels_that_are_constant_have_the_gradient_of_torch_std():
    frames = random(3, 7, 5)
    frames[:, :, 1] = 0.0  # as behind a ReLU
    frames[1, :, 2] = 0.25
    frames[0, 4:, 3] = 9.0
    counts = torch.tensor([4, 7, 6])
    ours, theirs = (frames.clone().requires_grad_() for _ in range(2))
    share = random(3, 10, seed=1)
    found = heads.pooled_statistics(ours, counts)
    expected = torch.stack(
        [torch.cat([row[:count].mean(0), row[:count].std(0)]) for row, count in zip(theirs, counts, strict=True)]
    )
    torch.testing.assert_close(found, expected)
    (found * share).sum().backward()
    (expected * share).sum().backward()
    assert theirs.grad.isfinite().all()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_margin_loss_equals_theirs():
    oracle, loss = theirs.AMSoftmaxLoss(6, 4), heads.AMSoftmaxLoss(6, 4)
    loss.load_state_dict(oracle.state_dict())
    embeddings, labels = random(5, 6), torch.tensor([0, 3, 3, 1, 2])
    torch.testing.assert_close(loss(embeddings, labels), oracle(embeddings, labels))
    with pytest.raises(ValueError, match="label 4 found, expected below num_labels 4"):
        loss(embeddings, labels + 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc_leaves_out_the_blank_and_what_is_ignored(reduction):
    logits, frames = random(2, 9, 5), torch.tensor([9, 6])
    labels = torch.tensor([[1, 2, 2, 4], [3, 0, 1, -100]])
    found = heads.ctc_loss(logits, frames, labels, blank=0, reduction=reduction)
    packed, counts = torch.tensor([1, 2, 2, 4, 3, 1]), torch.tensor([4, 2])
    expected = F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), packed, frames, counts, reduction=reduction)
    torch.testing.assert_close(found, expected)


def test_ctc_can_forgive_rows_without_room():
    logits, labels = random(1, 2, 5), torch.tensor([[1, 2, 3]])
    assert heads.ctc_loss(logits, torch.tensor([2]), labels, blank=None).isinf()
    assert heads.ctc_loss(logits, torch.tensor([2]), labels, blank=None, zero_infinity=True) == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [([5, 1], "label 5 found, expected below vocab_size 5"), ([-1, 1], "label -1 found, expected tokens or -100")],
)
def test_labels_that_are_no_tokens_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        heads.check_labels(torch.tensor([labels]), 5)
    heads.check_labels(torch.tensor([[4, 0, -100]]), 5)


def test_the_loss_of_classes_follows_the_problem_or_else_the_facts():
    logits, one = random(4, 3), random(4, 1)
    classes, numbers = torch.tensor([0, 2, 1, -100]), random(4, seed=1)
    many = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    loss = heads.classification_loss
    torch.testing.assert_close(loss(logits, classes), F.cross_entropy(logits, classes))
    torch.testing.assert_close(loss(logits, many), F.binary_cross_entropy_with_logits(logits, many))
    named = loss(logits, many.long(), "multi_label_classification")
    torch.testing.assert_close(named, F.binary_cross_entropy_with_logits(logits, many))
    torch.testing.assert_close(loss(one, numbers), F.mse_loss(one[:, 0], numbers))
    torch.testing.assert_close(loss(logits, many, "regression"), F.mse_loss(logits, many))


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (torch.tensor([0, 3]), None, "label 3 found, expected below num_labels 3"),
        (torch.ones(2), None, r"labels have shape \(2,\), expected \(2, 3\)"),
        (torch.tensor([0, 1]), "ranking", "problem_type is 'ranking', expected one of regression"),
    ],
)
def test_labels_that_do_not_fit_a_classifier_are_refused(labels, problem_type, message):
    with pytest.raises(ValueError, match=message):
        heads.classification_loss(random(2, 3), labels, problem_type)


def test_the_loss_over_frames_takes_one_hot_labels_and_leaves_padding_out():
    logits, classes = random(2, 5, 3), torch.tensor([[0, 1, 2, 1, 0], [2, 2, 1, 0, 0]])
    labels = F.one_hot(classes, 3)
    found = heads.frame_classification_loss(logits, labels)
    torch.testing.assert_close(found, F.cross_entropy(logits.flatten(0, 1), classes.flatten()))
    valid = torch.arange(5) < torch.tensor([5, 2])[:, None]
    found = heads.frame_classification_loss(logits, labels, valid)
    torch.testing.assert_close(found, F.cross_entropy(logits[valid], classes[valid]))
    with pytest.raises(ValueError, match=r"labels have shape \(2, 5\), expected one-hot \(2, 5, 3\)"):
        heads.frame_classification_loss(logits, classes)
