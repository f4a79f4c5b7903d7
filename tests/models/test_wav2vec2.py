import copy

import numpy as np
import pytest
import torch

from raysp.models import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2ForSequenceClassification, Wav2Vec2Model
from raysp.models.base.row_layout import Layout
from tests.models.encoder.encoder_cases import ADAPTER, LAYER, SPEAKERS, labels_of
from tests.models.oracles import TINY, make_pair
from tests.models.parity import LENGTHS, assert_close, check_gradients, waves_and_mask

STILL = dict.fromkeys(
    ["hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"], 0.0
)


def test_gradients_of_x_vectors_whose_channels_are_constant_equal_theirs(tmp_path):
    oracle, model = make_pair("Wav2Vec2ForXVector", tmp_path, **SPEAKERS)
    with torch.no_grad():
        for side in (oracle, model):
            side.tdnn[-1].kernel.weight[:5] = 0.0
            side.tdnn[-1].kernel.bias[:5] = 0.5
    check_gradients(oracle, model, labels_of("Wav2Vec2ForXVector", 0))
    assert all(p.grad.isfinite().all() for p in oracle.parameters() if p.grad is not None)


def test_the_loss_over_frames_excludes_padding(tmp_path):
    _, model = make_pair("Wav2Vec2ForAudioFrameClassification", tmp_path, num_labels=3)
    waves, mask = waves_and_mask()
    labels = labels_of("Wav2Vec2ForAudioFrameClassification", model.num_frames(max(LENGTHS)))
    with torch.inference_mode():
        found = model(waves, mask, labels=labels)
        valid = model.frame_layout(Layout.of(waves, mask), labels.shape[1]).valid(mask.device)
    expected = torch.nn.functional.cross_entropy(found.logits[valid], labels.argmax(-1)[valid])
    assert_close(found.loss, expected)


def test_padding_of_speakers_leaks_in_their_way_alone(tmp_path):
    """Their count of frames leaves dilation out, so that a short row's statistics take in padding."""
    oracle, model = make_pair("Wav2Vec2ForXVector", tmp_path, **SPEAKERS)
    waves, mask = waves_and_mask()
    with torch.inference_mode():
        ours, theirs = model(waves, mask).embeddings, oracle(waves, mask).embeddings
        assert_close(ours[3], oracle(waves[3:, : LENGTHS[3]]).embeddings[0])
    assert (ours - theirs)[3].abs().max() > 1e-3


@pytest.mark.slow
def test_training_with_layerdrop_draws_as_theirs(tmp_path):
    flags = {**ADAPTER, **STILL, "layerdrop": 0.5, "apply_spec_augment": False, "num_hidden_layers": 4}
    oracle, model = make_pair("Wav2Vec2Model", tmp_path, **flags)
    waves, _ = waves_and_mask()
    seen = set()
    for seed in range(4):
        outputs = []
        for one in (oracle.train(), model.train()):
            torch.manual_seed(seed)
            np.random.seed(seed)
            outputs.append(one(waves).last_hidden_state)
        assert_close(outputs[1], outputs[0])
        seen.add(outputs[1].shape[1])
    assert len(seen) > 1, "no layer of the adapter was ever dropped"


def test_a_sum_over_layers_needs_every_layer_even_when_one_is_dropped():
    config = Wav2Vec2Config(**{**TINY, "use_weighted_layer_sum": True, "layerdrop": 1.0, "apply_spec_augment": False})
    model = Wav2Vec2ForSequenceClassification(config).init_weights().train()
    output = model(waves_and_mask()[0], output_hidden_states=True)
    assert len(output.hidden_states) == 3


@pytest.mark.parametrize("kernel", [3, 5])
def test_frames_of_an_adapter_are_counted_as_they_are(tmp_path, kernel):
    _, model = make_pair("Wav2Vec2Model", tmp_path, **ADAPTER, adapter_kernel_size=kernel)
    counts = torch.tensor([700, 1203, 3001])
    with torch.inference_mode():
        assert [model(torch.randn(1, int(n)))[0].shape[1] for n in counts] == model.num_frames(counts).tolist()


@pytest.mark.parametrize("cls", [Wav2Vec2ForCTC, Wav2Vec2Model])
def test_gradient_checkpointing_gives_the_same_gradients(cls):
    torch.manual_seed(0)
    config = Wav2Vec2Config(**TINY, **STILL, **LAYER, layerdrop=0.0, apply_spec_augment=False)
    model = cls(config).init_weights().train()
    again = copy.deepcopy(model)
    again.gradient_checkpointing_enable({"use_reentrant": False})
    assert again.is_gradient_checkpointing
    assert not model.is_gradient_checkpointing
    waves, mask = waves_and_mask()
    calls = {model: 0, again: 0}
    for one in (model, again):

        def count(*_, one=one):
            calls[one] += 1

        for part in (one.base_model.encoder.layers[1], one.base_model.feature_extractor.conv_layers[2].layer_norm):
            part.register_forward_pre_hook(count)
        one(waves, mask)[0].square().mean().backward()
    assert calls == {model: 2, again: 4}
    for first, second in zip(model.parameters(), again.parameters(), strict=True):
        if first.grad is not None:
            assert_close(second.grad, first.grad, 1e-6)
    again.gradient_checkpointing_disable()
    assert not again.is_gradient_checkpointing
    with pytest.raises(ValueError, match="use_reentrant is True, expected False"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
