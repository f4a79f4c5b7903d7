"""Pre-training of UniSpeech against transformers; what holds for every head is in test_encoders.py."""

import numpy as np
import pytest
import torch

from tests.models.cases import CODES
from tests.models.oracles import make_pair, transformers
from tests.models.parity import assert_close, waves_and_mask


def pretraining(tmp_path, **flags):
    still = dict.fromkeys(
        ["hidden_dropout", "activation_dropout", "attention_dropout", "feat_quantizer_dropout", "layerdrop"], 0.0
    )
    return make_pair("UniSpeechForPreTraining", tmp_path, **{**CODES, **still, "num_negatives": 5, **flags})


def drawn(model, mask, share):
    """Draw masked frames (B, T) within the rows."""
    num_frames = model.num_frames(mask.sum(-1))
    masked = np.random.default_rng(0).random((len(mask), num_frames.max())) < share
    return torch.from_numpy(masked) & (torch.arange(num_frames.max()) < num_frames[:, None])


def theirs_of(masked):
    """Return the negatives that theirs draws for masked frames (B, T)."""
    draw = transformers.models.wav2vec2.modeling_wav2vec2._sample_negative_indices
    return torch.from_numpy(draw(masked.shape, 5, masked.numpy())).long()


def by_the_page(model, output, masked, negatives):
    """The loss as wav2vec 2.0's page writes it, with every product that it names."""
    compute = transformers.Wav2Vec2ForPreTraining.compute_contrastive_logits
    states, targets = output.projected_states, output.projected_quantized_states
    others = targets.flatten(0, 1)[negatives.flatten()].unflatten(0, negatives.shape).permute(2, 0, 1, 3)
    logits = compute(targets[None], others, states, model.config.contrastive_logits_temperature)
    same = torch.isclose(targets, others, atol=1e-6).all(-1)
    logits = torch.cat([logits[:1], logits[1:].masked_fill(same, -torch.inf)])
    chosen = logits.permute(1, 2, 0)[masked]
    contrast = torch.nn.functional.cross_entropy(chosen, torch.zeros(len(chosen), dtype=torch.long), reduction="sum")
    codes = model.config.num_codevector_groups * model.config.num_codevectors_per_group
    diversity = (codes - output.codevector_perplexity) / codes * masked.sum()
    return contrast + model.config.diversity_loss_weight * diversity


def test_the_loss_of_pretraining_is_contrast_and_diversity(tmp_path):
    _, model = pretraining(tmp_path)
    waves, mask = waves_and_mask()
    masked = drawn(model, mask, 0.3)
    negatives = theirs_of(masked)
    for training in (True, False):
        model.zero_grad()
        output = model.train(training)(waves, mask, mask_time_indices=masked, sampled_negative_indices=negatives)
        assert_close(output.loss, by_the_page(model, output, masked, negatives))
        output.loss.backward()
        parts = [model.quantizer.codevectors, model.project_q.weight, model.unispeech.masked_spec_embed]
        for part in (*parts, *([model.quantizer.weight_proj.weight] if training else [])):
            assert part.grad.abs().max() > 0


def test_negatives_are_drawn_as_theirs(tmp_path):
    _, model = pretraining(tmp_path)
    waves, mask = waves_and_mask()
    masked = drawn(model, mask, 0.4)
    masked[3] = torch.isin(torch.arange(masked.shape[1]), torch.tensor([0, 5]))  # as few as have negatives
    losses = []
    for seed in (5, 6):
        np.random.seed(seed)
        negatives = theirs_of(masked)
        np.random.seed(seed)
        found = model(waves, mask, mask_time_indices=masked).loss
        assert_close(found, model(waves, mask, mask_time_indices=masked, sampled_negative_indices=negatives).loss, 1e-6)
        losses.append(found.item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
