"""The loss of CTC training: that of the original, of rows of any length."""

import itertools

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from raysp.models.encoder.heads import ctc_loss
from raysp.models.tokenizers import pieces
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.tasks.ctc_task import UNIFORM_SHARE, CTCObjective, prior_ctc_loss
from tests.training.conftest import SMALL, micro_batch, small_model

UNDISTURBED = {"mask_time_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0}
UNDISTURBED |= {"feat_proj_dropout": 0.0, "activation_dropout": 0.0, "final_dropout": 0.0}


def test_loss_and_gradients_are_those_of_the_original(extractor, digits):
    """Whose padding leaks with group normalisation, so with layer normalisation."""
    fields = {**UNDISTURBED, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    model = small_model(**fields)
    theirs = transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(**{**SMALL, **fields, "ctc_loss_reduction": "mean"})
    ).train()
    theirs.load_state_dict(model.state_dict())
    batch = micro_batch(digits, 0, [0, 3, 5])
    losses = CTCObjective(model, extractor)(batch)
    losses.total.backward()
    features = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)(
        [*batch.waves], sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    width = max(map(len, batch.targets))
    labels = torch.tensor([[*target, *[-100] * (width - len(target))] for target in batch.targets])
    expected = theirs(**features, labels=labels).loss
    expected.backward()
    assert losses.total.item() / losses.count == pytest.approx(expected.item(), rel=1e-5)
    assert losses.rows_B.sum().item() == pytest.approx(losses.total.item(), rel=1e-6)
    for (name, mine), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(mine.grad / 3, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_integer_samples_are_those_of_floats(extractor, digits):
    model = small_model(**UNDISTURBED)
    batch = micro_batch(digits, 0, [1, 2])
    integers = [np.round(wave * 32767).astype(np.int16) for wave in batch.waves]
    floats = [wave.astype(np.float32) / 32768 for wave in integers]
    found = [
        CTCObjective(model, extractor)(MicroBatch(0, batch.rows, waves, batch.targets)).total.item()
        for waves in (integers, floats, [integers[0], floats[1]])
    ]
    assert found[0] == found[1] == found[2]


def test_rows_with_more_labels_than_frames_count_as_zero(extractor, digits):
    model = small_model(**UNDISTURBED)
    wave, target = digits[0]
    losses = CTCObjective(model, extractor)(MicroBatch(0, [0, 1], [wave, wave], [target * 100, target]))
    assert losses.rows_B[0].item() == 0
    assert losses.rows_B[1].item() > 0
    assert losses.count == 2


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


def test_rows_with_more_labels_than_frames_count_as_zero_with_priors_too(extractor, digits) -> None:
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


def test_pieces_of_words_scale_with_their_numbers(monkeypatch):
    monkeypatch.setattr(pieces, "MOST_WORDS", 10_000)
    many = {word: number * pieces.MOST_WORDS for word, number in {"aab": 3, "ab": 2}.items()}
    found = [pieces.learn_pieces(words, 10, ("p", "u")) for words in (many, {"aab": 3, "ab": 2})]
    assert pieces.merges_of(found[0]) == pieces.merges_of(found[1])
