"""Pre-training of UniSpeech against transformers; what holds for every head is in encoder/test_encoder_contracts.py."""

import numpy as np
import pytest
import torch

from raysp.models.base.row_layout import Layout
from tests.models.encoder.encoder_cases import CODES, HEADS
from tests.models.oracles import make_pair, transformers
from tests.models.parity import assert_close, waves_and_mask


def pretraining(tmp_path, **flags):
    still = dict.fromkeys(
        ["hidden_dropout", "activation_dropout", "attention_dropout", "feat_quantizer_dropout", "layerdrop"], 0.0
    )
    return make_pair("UniSpeechForPreTraining", tmp_path, **{**CODES, **still, "num_negatives": 5, **flags})


def test_codes_are_drawn_in_training_as_theirs(tmp_path):
    oracle, model = pretraining(tmp_path, apply_spec_augment=False)
    oracle.set_gumbel_temperature(0.5)
    model.set_gumbel_temperature(0.5)
    waves, _ = waves_and_mask()
    outputs = []
    for one in (oracle.train(), model.train()):
        torch.manual_seed(3)
        outputs.append(one(waves))
    assert outputs[1].loss is outputs[0].loss is None
    assert_close(outputs[1].projected_quantized_states, outputs[0].projected_quantized_states)
    assert_close(outputs[1].codevector_perplexity, outputs[0].codevector_perplexity)
    for output in outputs:
        output.projected_quantized_states.square().sum().backward()
    assert_close(model.quantizer.weight_proj.weight.grad, oracle.quantizer.weight_proj.weight.grad)


def test_the_perplexity_of_a_batch_leaves_padding_out(tmp_path):
    _, model = pretraining(tmp_path)
    waves, mask = waves_and_mask((3001, 1000))
    with torch.inference_mode():
        alone = [model(waves[row : row + 1, :n]).projected_quantized_states for row, n in enumerate((3001, 1000))]
        found = model(waves, mask).codevector_perplexity
        features = model.unispeech(waves, mask).extract_features
        counts = [states.shape[1] for states in alone]
        joined = torch.cat([features[row, :n] for row, n in enumerate(counts)])
        expected = model.quantizer(joined[None])[1]
    assert_close(found, expected, 1e-6)


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


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_of_pretraining_is_contrast_and_diversity(tmp_path, training):
    _, model = pretraining(tmp_path)
    model.train(training)
    waves, mask = waves_and_mask()
    num_frames = model.num_frames(waves.shape[1])
    masked = torch.from_numpy(np.random.default_rng(0).random((4, num_frames)) < 0.3)
    masked &= model.frame_layout(Layout.of(waves, mask), num_frames).valid(mask.device)
    negatives = theirs_of(masked)
    output = model(waves, mask, mask_time_indices=masked, sampled_negative_indices=negatives)
    assert_close(output.loss, by_the_page(model, output, masked, negatives))
    output.loss.backward()
    for part in (model.quantizer.codevectors, model.project_q.weight, model.unispeech.masked_spec_embed):
        assert part.grad.abs().max() > 0
    if training:
        assert model.quantizer.weight_proj.weight.grad.abs().max() > 0


def test_pretraining_draws_masks_and_negatives_and_its_loss_falls(tmp_path):
    _, model = pretraining(tmp_path, mask_time_prob=0.5, mask_time_length=3)
    model.train()
    waves, mask = waves_and_mask()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        np.random.seed(0)
        torch.manual_seed(0)
        loss = model(waves, mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert model.eval()(waves, mask).loss is None


def test_rows_with_one_masked_frame_have_no_part_in_the_loss(tmp_path):
    _, model = pretraining(tmp_path)
    waves, _ = waves_and_mask()
    masked = torch.zeros(4, model.num_frames(waves.shape[1]), dtype=torch.bool)
    masked[:, 3] = True
    model.config.diversity_loss_weight = 0.0
    loss = model(waves, mask_time_indices=masked).loss
    assert loss == 0
    loss.backward()


def test_negatives_are_drawn_as_theirs(tmp_path):
    _, model = pretraining(tmp_path)
    waves, mask = waves_and_mask()
    num_frames = model.num_frames(waves.shape[1])
    valid = model.frame_layout(Layout.of(waves, mask), num_frames).valid(mask.device)
    masked = torch.from_numpy(np.random.default_rng(0).random((4, num_frames)) < 0.4) & valid
    masked[3] = torch.isin(torch.arange(num_frames), torch.tensor([0, 5]))  # as few as have negatives
    losses = []
    for seed in (5, 6):
        np.random.seed(seed)
        negatives = theirs_of(masked)
        np.random.seed(seed)
        found = model(waves, mask, mask_time_indices=masked).loss
        assert_close(found, model(waves, mask, mask_time_indices=masked, sampled_negative_indices=negatives).loss, 1e-6)
        losses.append(found.item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_asking_for_hidden_states_leaves_the_sum_of_layers_as_it_is(tmp_path):
    head, flags = HEADS["UniSpeech"]["classes of all layers"]
    _, model = make_pair(f"UniSpeech{head}", tmp_path, **flags)
    waves, mask = waves_and_mask()
    with torch.inference_mode():
        assert_close(model(waves, mask).logits, model(waves, mask, output_hidden_states=True).logits, 1e-6)
        assert model(waves, mask).hidden_states is None
