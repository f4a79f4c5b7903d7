"""CTC with label priors: the sum over all paths, its gradient, and what it does to a model."""

import itertools

import pytest
import torch
from torch import Tensor

from raysp.models.encoder.heads import ctc_loss
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.tasks.ctc_task import UNIFORM_SHARE, CTCObjective, prior_ctc_loss
from tests.training.conftest import micro_batch, small_model
from tests.training.objectives.test_ctc import UNDISTURBED

BLANK = 0


def by_all_paths(logits: Tensor, frames: list[int], labels: list[list[int]], power: float) -> Tensor:
    """Return the losses by adding up all paths, one by one."""
    log_probs = logits.log_softmax(-1)
    vocab_size = logits.shape[-1]
    valid = torch.cat([row[:length].detach().exp() for row, length in zip(log_probs, frames, strict=True)])
    priors = (1 - UNIFORM_SHARE) * valid.mean(0) + UNIFORM_SHARE / vocab_size
    losses = []
    for row_log_probs, length, tokens in zip(log_probs, frames, labels, strict=True):
        found = [
            sum(row_log_probs[frame, token] - power * priors[token].log() for frame, token in enumerate(path))
            for path in itertools.product(range(vocab_size), repeat=length)
            if [token for token, _ in itertools.groupby(path) if token != BLANK] == tokens
        ]
        losses.append(-torch.stack(found).logsumexp(0))
    return torch.stack(losses)


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_the_loss_is_the_sum_over_all_paths(power: float) -> None:
    torch.manual_seed(3)
    logits = torch.randn(3, 6, 4, requires_grad=True)
    frames, texts = [6, 4, 5], [[1, 2, 2], [3], [2, 1]]
    labels = torch.tensor([[*text, *[-100] * (3 - len(text))] for text in texts])
    losses = prior_ctc_loss(logits, torch.tensor(frames), labels, blank=BLANK, power=power)
    expected = by_all_paths(logits, frames, texts, power)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    weights = torch.tensor([1.0, 0.5, 2.0])
    [gradient] = torch.autograd.grad((losses * weights).sum(), logits)
    [expected] = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_without_a_power_it_is_the_usual_loss() -> None:
    torch.manual_seed(3)
    logits, labels, frames = torch.randn(2, 9, 5), torch.tensor([[1, 4], [3, 3]]), torch.tensor([9, 7])
    usual = ctc_loss(logits, frames, labels, blank=BLANK, reduction="none")
    torch.testing.assert_close(prior_ctc_loss(logits, frames, labels, blank=BLANK, power=0.0), usual)


def test_frames_behind_the_end_do_not_count() -> None:
    torch.manual_seed(3)
    logits, labels, frames = torch.randn(2, 9, 5), torch.tensor([[1, 4], [3, 3]]), torch.tensor([9, 6])
    others = logits.clone()
    others[1, 6:] = 10 * torch.randn(3, 5)
    losses = [prior_ctc_loss(one, frames, labels, blank=BLANK, power=0.5) for one in (logits, others)]
    assert torch.equal(*losses)


def test_rows_with_more_labels_than_frames_count_as_zero(extractor, digits) -> None:
    model = small_model(**UNDISTURBED)
    wave, target = digits[0]
    losses = CTCObjective(model, extractor, label_prior=0.3)(MicroBatch(0, [0], [wave], [target * 100]))
    losses.total.backward()
    assert losses.rows_B.tolist() == [0]
    assert all(not one.grad.any() for one in model.parameters() if one.grad is not None)


def test_evaluations_have_the_usual_loss(extractor, digits) -> None:
    class Spelled:
        def decode(self, ids: list[int]) -> str:
            return str(ids)

    model = small_model(**UNDISTURBED)
    batch = micro_batch(digits, 0, [0, 1])
    usual, divided = (CTCObjective(model, extractor, label_prior=power) for power in (0.0, 0.3))
    assert usual.recognise(batch, Spelled()) == divided.recognise(batch, Spelled())  # type: ignore[arg-type]
    assert usual(batch).total.item() != divided(batch).total.item()


def test_tokens_last_longer() -> None:
    """Logits that are trained directly: without priors, each token gets about one of forty frames."""
    labels, frames = torch.tensor([[1, 2, 3]]), torch.tensor([40])
    shares = []
    for power in (0.0, 0.5):
        torch.manual_seed(0)
        logits = (0.1 * torch.randn(1, 40, 4)).requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            prior_ctc_loss(logits, frames, labels, blank=BLANK, power=power).sum().backward()
            optimizer.step()
        shares.append((logits.argmax(-1) != BLANK).float().mean().item())
    assert shares[0] < 0.3 < 0.6 < shares[1]
