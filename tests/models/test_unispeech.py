import copy

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.errors import CheckpointError
from raysp.models import UniSpeechConfig, UniSpeechForCTC, UniSpeechModel
from raysp.models.encoder.augmentation import compute_mask_indices
from raysp.models.encoder.waveform import conv_output_frames
from tests.models.oracles import TINY, make_oracle
from tests.models.parity import (
    LENGTHS,
    assert_close,
    waves_and_mask,
)


@torch.inference_mode()
def test_logits_without_a_mask_equal_theirs(pair):
    oracle, model = pair
    waves, _ = waves_and_mask()
    assert_close(model(waves).logits, oracle(waves).logits)


@torch.inference_mode()
def test_reference_padding_equals_theirs_in_a_padded_batch(pair):
    oracle, model = pair
    model = copy.deepcopy(model)
    model.padding = "reference"
    waves, mask = waves_and_mask()
    ours, theirs = model(waves, mask), oracle(waves, mask)
    frames = oracle._get_feat_extract_output_lengths(mask.sum(-1))
    for row, count in enumerate(frames):
        assert_close(ours.logits[row, :count], theirs.logits[row, :count])


@torch.inference_mode()
def test_exact_padding_equals_theirs_alone(pair):
    oracle, model = pair
    waves, mask = waves_and_mask()
    logits = model(waves, mask).logits
    for row, length in enumerate(LENGTHS):
        alone = oracle(waves[row : row + 1, :length]).logits[0]
        assert_close(logits[row, : len(alone)], alone)


def test_loss_and_gradients_equal_theirs(pair):
    oracle, model = pair
    model = copy.deepcopy(model)
    model.padding = "reference"
    waves, mask = waves_and_mask()
    labels = torch.tensor([[5, 6, 6, 7], [8, -100, -100, -100], [0, 9, 9, 0], [3, 4, -100, -100]])
    theirs, ours = oracle(waves, mask, labels=labels), model(waves, mask, labels=labels)
    assert_close(ours.loss, theirs.loss)
    oracle.zero_grad()
    theirs.loss.backward()
    ours.loss.backward()
    expected = {name: parameter.grad for name, parameter in oracle.named_parameters() if parameter.grad is not None}
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-3, rtol=1e-3, msg=name)


def test_weights_have_their_names_in_both_directions(pair, tmp_path):
    oracle, model = pair
    assert model.state_dict().keys() == oracle.state_dict().keys()
    model.save_pretrained(tmp_path)
    again = transformers.UniSpeechForCTC.from_pretrained(tmp_path)
    for name, value in oracle.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@torch.inference_mode()
@pytest.mark.parametrize("flags", [{}, {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}])
def test_hidden_states_attentions_and_features_equal_theirs(flags, tmp_path):
    oracle = make_oracle(**flags).unispeech
    oracle.set_attn_implementation("eager")
    oracle.save_pretrained(tmp_path)
    model = UniSpeechModel.from_pretrained(tmp_path, padding="reference")
    waves, mask = waves_and_mask(lengths=(3001, 3001))
    ours = model(waves, mask, output_hidden_states=True, output_attentions=True)
    theirs = oracle(waves, mask, output_hidden_states=True, output_attentions=True)
    assert ours.keys() == list(theirs.keys())
    assert_close(ours.last_hidden_state, theirs.last_hidden_state)
    assert_close(ours.extract_features, theirs.extract_features)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 3
    for mine, other in zip(ours.hidden_states + ours.attentions, theirs.hidden_states + theirs.attentions, strict=True):
        assert_close(mine, other)


@torch.inference_mode()
def test_attention_weights_leave_the_output_as_it_is(tmp_path):
    model = random_model()
    waves, mask = waves_and_mask()
    valid = frames_of(model, mask)
    assert_close(model(waves, mask, output_attentions=True).logits[valid], model(waves, mask).logits[valid], 1e-5)


def frames_of(model, mask):
    """Return which frames belong to their rows; the others are meaningless."""
    num_frames = model.num_frames(mask.sum(-1))
    return torch.arange(int(num_frames.max())) < num_frames[:, None]


def random_model(**flags):
    torch.manual_seed(0)
    return UniSpeechForCTC(UniSpeechConfig(**{**TINY, **flags})).init_weights().eval()


@pytest.mark.slow
@torch.inference_mode()
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=5),
    norm=st.sampled_from(["group", "layer"]),
    seed=st.integers(0, 99),
)
def test_a_row_alone_equals_the_row_in_any_batch(lengths, norm, seed):
    model = random_model(feat_extract_norm=norm)
    lengths = [max(lengths[0], model.min_samples), *lengths[1:]]
    waves, mask = waves_and_mask(lengths, seed)
    waves += (1 - mask) * 7.0  # whatever stands behind a row's end has no part in it
    logits = model(waves, mask).logits
    assert logits.isfinite().all()
    for row, length in enumerate(lengths):
        if length >= model.min_samples:
            alone = model(waves[row : row + 1, :length]).logits[0]
            assert len(alone) == model.num_frames(length)
            assert_close(logits[row, : len(alone)], alone, 1e-5)


@torch.inference_mode()
def test_the_masked_statistics_of_a_batch_equal_those_of_each_row():
    encoder = random_model().unispeech.feature_extractor
    waves, mask = waves_and_mask()
    waves = waves + 0.3
    weights, biases = encoder._first_layer(waves, mask.sum(-1))
    for row, length in enumerate(LENGTHS):
        weight, bias = encoder._first_layer(waves[row : row + 1, :length], None)
        assert_close(weights[row : row + 1], weight, 1e-6)
        assert_close(biases[row : row + 1], bias, 1e-6)


@pytest.mark.parametrize("mask", [None, torch.ones(3, 7, dtype=torch.long)])
def test_an_axis_shorter_than_a_span_gets_none(mask):
    assert not compute_mask_indices((3, 7), 0.9, 8, attention_mask=mask, min_masks=2).any()
    assert compute_mask_indices((3, 7), 0.9, 7, attention_mask=mask, min_masks=2).all()


def test_batches_shorter_than_a_span_are_trained_on():
    flags = {"mask_time_prob": 0.9, "mask_time_min_masks": 2, "hidden_dropout": 0.0, "layerdrop": 0.0}
    flags |= {"attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0}
    waves, _ = waves_and_mask()
    frames = random_model().num_frames(waves.shape[1])
    torch.manual_seed(0)
    long = random_model(**flags, mask_time_length=frames + 1)
    expected = long.eval()(waves).logits
    torch.testing.assert_close(long.train()(waves).logits, expected, atol=1e-5, rtol=1e-5)
    wide = random_model(**flags, mask_feature_prob=0.5, mask_feature_length=TINY["hidden_size"] + 1).train()
    with pytest.raises(ValueError, match="mask_feature_length is 33, expected at most hidden_size 32"):
        wide(waves)


@torch.inference_mode()
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("masked", [True, False])
def test_frames_by_batch_on_a_gpu_equal_frames_by_chunk(norm, masked, monkeypatch):
    encoder = random_model(feat_extract_norm=norm).unispeech.feature_extractor
    waves, mask = waves_and_mask((20000, 9000, 70, 30, 12345))
    num_samples = mask.sum(-1) if masked else None
    expected = encoder(waves, num_samples)
    monkeypatch.setattr("raysp.models.encoder.waveform.BATCH_SAMPLES", 40000)
    found = encoder._frames_by_batch(waves, num_samples)
    assert found.shape == expected.shape
    for row, count in enumerate(conv_output_frames(mask.sum(-1), encoder.kernels, encoder.strides)):
        assert_close(found[row, : max(count, 0)], expected[row, : max(count, 0)], 1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("kernels", [(10, 3, 2), (9, 4, 1), (5, 1, 5)])
def test_chunks_filled_up_to_usual_lengths_equal_one_convolution_after_the_other(norm, kernels, monkeypatch):
    monkeypatch.setattr("raysp.models.encoder.waveform.MAX_CHUNK_FRAMES", 40)
    flags = {"conv_dim": (6, 8, 10), "conv_stride": (5, 2, 1), "conv_kernel": kernels, "conv_bias": norm == "layer"}
    encoder = random_model(feat_extract_norm=norm, **flags).unispeech.feature_extractor
    for num_frames in (1, 7, 8, 9, 39, 40, 41, 80, 97):
        waves = torch.randn(2, (num_frames - 1) * encoder.stride + encoder.receptive + 3)
        with_gradients = encoder(waves)
        assert with_gradients.requires_grad
        with torch.inference_mode():
            assert_close(encoder(waves), with_gradients.detach(), 1e-5)


@torch.inference_mode()
def test_a_quiet_high_band_survives_a_loud_low_one():
    """Folding the group norm must not lose a filter that sees a millionth of the power."""
    model = random_model()
    waves = torch.cumsum(torch.randn(1, 16000, dtype=torch.float64), 1).float()
    waves = (waves - waves.mean()) / waves.std()
    layer = model.unispeech.feature_extractor.conv_layers[0]
    kernel = torch.tensor([1.0, -4, 6, -4, 1, 0, 0, 0, 0, 0]).expand_as(layer.conv.weight)
    layer.conv.weight.copy_(kernel)
    wide = torch.nn.functional.conv1d(waves[:, None].double(), kernel.double(), stride=5)
    expected = torch.nn.functional.group_norm(wide, wide.shape[1]).transpose(1, 2).float()
    encoder = model.unispeech.feature_extractor
    weight, bias = encoder._first_layer(waves, None)
    found = waves.unfold(1, 10, 5) @ weight.transpose(1, 2) + bias
    assert_close(found, expected, 1e-2)


@torch.inference_mode()
def test_samples_of_no_frames_do_not_touch_the_others():
    model = random_model()
    waves, mask = waves_and_mask((2000, 5, 0))
    logits = model(waves, mask).logits
    assert logits.isfinite().all()
    assert_close(logits[:1], model(waves[:1]).logits, 1e-5)


def test_an_input_below_the_receptive_field_is_refused():
    model = random_model(conv_dim=(8,) * 7, conv_stride=(5, 2, 2, 2, 2, 2, 2), conv_kernel=(10, 3, 3, 3, 3, 2, 2))
    assert (model.min_samples, model.frame_stride) == (400, 320)
    assert model(torch.randn(1, 400)).logits.shape[1] == 1
    with pytest.raises(RuntimeError, match="399 samples, the model needs at least 400"):
        model(torch.randn(1, 399))


def test_frame_counts_take_numbers_and_tensors(pair):
    oracle, model = pair
    counts = torch.tensor([0, 100, 399, 400, 16000, 480001])
    assert torch.equal(model._get_feat_extract_output_lengths(counts), oracle._get_feat_extract_output_lengths(counts))
    assert [model.num_frames(int(n)) for n in counts] == model.num_frames(counts).tolist()
    assert model.num_frames(0) == 0


def test_masks_may_be_of_any_type():
    model = random_model()
    waves, mask = waves_and_mask()
    with torch.inference_mode():
        expected = model(waves, mask).logits
        for dtype in (torch.bool, torch.int32, torch.uint8):
            assert torch.equal(model(waves, mask.to(dtype)).logits, expected)


def test_outputs_read_by_position_name_and_attribute():
    model = random_model()
    waves, _ = waves_and_mask()
    output = model(waves)
    assert output[0] is output.logits is output["logits"]
    assert output.loss is None
    assert output.keys() == ["logits"]
    assert len(output) == 1
    (logits,) = output
    assert logits is output.logits
    plain = model(waves, return_dict=False, output_hidden_states=True)
    assert isinstance(plain, tuple)
    assert len(plain) == 2
    assert len(plain[1]) == 3
    with pytest.raises(KeyError):
        output["loss"]


def test_configuration_is_read_when_called():
    model = random_model()
    waves, _ = waves_and_mask()
    labels = torch.tensor([[5, 6]] * 4)
    by_mean = model(waves, labels=labels).loss
    model.config.ctc_loss_reduction = "sum"
    assert model(waves, labels=labels).loss > by_mean
    model.config.output_hidden_states = True
    assert model(waves).hidden_states is not None


def test_labels_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="label 20 found, expected below vocab_size 20"):
        random_model()(waves_and_mask()[0], labels=torch.full((4, 2), 20))


def test_training_augments_as_theirs_does(tmp_path):
    flags = {"mask_time_prob": 0.4, "mask_feature_prob": 0.2, "mask_time_length": 3, "mask_feature_length": 4}
    still = dict.fromkeys(
        ["hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"], 0.0
    )
    oracle = make_oracle(**flags, **still, layerdrop=0.0).train()
    oracle.save_pretrained(tmp_path)
    model = UniSpeechForCTC.from_pretrained(tmp_path, padding="reference").train()
    waves, mask = waves_and_mask()
    np.random.seed(3)
    theirs = oracle(waves, mask).logits
    np.random.seed(3)
    ours = model(waves, mask).logits
    valid = model._get_feature_vector_attention_mask(ours.shape[1], mask)
    assert_close(ours[valid], theirs[valid])
    assert (ours[valid] - model.eval()(waves, mask).logits[valid]).abs().max() > 0.1


def test_dropout_and_layerdrop_act_in_training_alone():
    model = random_model(hidden_dropout=0.3, layerdrop=0.5, apply_spec_augment=False)
    waves, _ = waves_and_mask()
    assert torch.equal(model(waves).logits, model(waves).logits)
    model.train()
    assert not torch.equal(model(waves).logits, model(waves).logits)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    prob=st.floats(0.0, 1.0),
    span=st.integers(1, 12),
    min_masks=st.integers(0, 4),
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_spans_are_drawn_as_theirs(lengths, prob, span, min_masks, masked, seed):
    theirs = transformers.models.unispeech.modeling_unispeech._compute_mask_indices
    places = max([*lengths, span])
    mask = (torch.arange(places) < torch.tensor(lengths)[:, None]).long() if masked else None
    shape = (len(lengths), places)
    np.random.seed(seed)
    expected = theirs(shape, prob, span, attention_mask=mask, min_masks=min_masks)
    np.random.seed(seed)
    assert (compute_mask_indices(shape, prob, span, attention_mask=mask, min_masks=min_masks) == expected).all()


@torch.inference_mode()
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_bfloat16_stays_near_float32(norm):
    model = random_model(feat_extract_norm=norm)
    waves, mask = waves_and_mask()
    expected = model(waves, mask).logits
    low = copy.deepcopy(model).to(torch.bfloat16)
    logits = low(waves, mask).logits
    assert logits.dtype == low.dtype == torch.bfloat16
    assert (logits.float() - expected)[0].abs().max() < 0.05 * expected.abs().max() + 0.05


def test_the_folded_positional_weight_follows_its_halves():
    model = random_model()
    conv = model.unispeech.encoder.pos_conv_embed.conv
    with torch.no_grad():
        first = conv.weight
        assert conv.weight is first
        conv.norm.original0.mul_(2.0)
        assert_close(conv.weight, 2 * first)
        model.load_state_dict(random_model().state_dict())
        assert_close(conv.weight, first)
    assert conv.weight.requires_grad
    clone = copy.deepcopy(model)
    with torch.no_grad():
        clone.unispeech.encoder.pos_conv_embed.conv.norm.original1.add_(1.0)
        assert_close(conv.weight, first)


def test_a_positional_weight_folded_in_inference_mode_serves_gradients_of_others():
    model = random_model()
    model.unispeech.requires_grad_(False)
    waves, mask = waves_and_mask()
    with torch.inference_mode():
        expected = model(waves, mask).logits
    conv = model.unispeech.encoder.pos_conv_embed.conv
    assert not conv.weight.is_inference()
    waves.requires_grad_()
    logits = model(waves, mask).logits
    logits.square().mean().backward()
    valid = frames_of(model, mask)
    assert_close(logits.detach()[valid], expected.clone()[valid])
    assert waves.grad.abs().sum() > 0


def test_heads_are_not_pruned_and_the_error_says_what_to_do():
    with pytest.raises(
        NotImplementedError, match=r"UniSpeechForCTC: pruning of attention heads is not supported .* to 0"
    ):
        random_model().prune_heads({0: [1]})
    assert not hasattr(transformers.UniSpeechForCTC, "prune_heads")


def test_old_names_of_the_positional_weight_load(tmp_path):
    import safetensors.torch

    model = random_model()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    prefix = "unispeech.encoder.pos_conv_embed.conv."
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        tensors[prefix + old] = tensors.pop(f"{prefix}parametrizations.weight.{new}")
    safetensors.torch.save_file(tensors, path)
    again = UniSpeechForCTC.from_pretrained(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_random_weights_have_the_spread_of_theirs():
    theirs = transformers.UniSpeechForCTC(transformers.UniSpeechConfig(**{**TINY, "hidden_size": 64})).state_dict()
    ours = random_model(hidden_size=64).state_dict()
    for name, value in theirs.items():
        if value.numel() > 500 and "pos_conv_embed" not in name:  # theirs writes that draw to a copy, and so loses it
            assert 0.8 < ours[name].std() / value.std() < 1.25, name


def test_freezing_takes_parts_out_of_training():
    model = random_model()
    model.freeze_feature_encoder()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all("feature_extractor" in name for name in frozen)
    model(waves_and_mask()[0], labels=torch.tensor([[5]] * 4)).loss.backward()
    model.freeze_base_model()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"lm_head.weight", "lm_head.bias"}


def test_configuration_round_trips_and_keeps_unknown_keys(tmp_path):
    config = UniSpeechConfig(**TINY, num_labels=3, my_own=[1, {"a": None}])
    config.save_pretrained(tmp_path)
    again = UniSpeechConfig.from_pretrained(tmp_path)
    assert again == config
    assert again.my_own == [1, {"a": None}]
    assert again.num_labels == 3
    assert again.conv_dim == (16, 24, 24)
    theirs = transformers.UniSpeechConfig.from_pretrained(tmp_path)
    assert theirs.hidden_size == 32
    assert theirs.num_labels == 3
    assert UniSpeechConfig.from_pretrained(tmp_path, mask_time_prob=0.2).mask_time_prob == 0.2


def test_configuration_defaults_are_theirs():
    ours, theirs = UniSpeechConfig().to_dict(), transformers.UniSpeechConfig().to_dict()
    for name in vars(UniSpeechConfig()):
        if name in theirs and name not in ("id2label", "label2id"):
            assert ours[name] == (list(theirs[name]) if isinstance(theirs[name], tuple) else theirs[name]), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"hidden_size": "768"}, "UniSpeechConfig.hidden_size is '768', expected int"),
        ({"conv_bias": 1}, "conv_bias is 1, expected bool"),
        ({"conv_dim": [512, None]}, r"conv_dim\[1\] is None"),
        ({"conv_stride": [5, 2]}, "expected one length for all three"),
        ({"num_attention_heads": 7}, "num_attention_heads is 7, expected a divisor of hidden_size 768"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    ],
)
def test_wrong_configurations_are_refused(flags, message):
    with pytest.raises(CheckpointError, match=message):
        UniSpeechConfig(**flags)


def test_unknown_names_in_a_configuration_are_refused():
    for flags, message in (
        ({"hidden_act": "softsign"}, "activation is 'softsign', expected one of gelu"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm is 'batch', expected 'group' or 'layer'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            random_model(**flags)


def test_padding_is_one_setting_for_a_model_and_its_base():
    model = random_model()
    model.padding = "reference"
    assert model.unispeech.padding == "reference"
    with pytest.raises(ValueError, match="padding is 'hf', expected 'exact' or 'reference'"):
        model.padding = "hf"
