import copy

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.models import UniSpeechConfig, UniSpeechForCTC, UniSpeechModel
from raysp.models.base.row_layout import Layout
from tests.models.oracles import TINY, make_pair, transformers
from tests.models.oracles import random_model as random_model_of
from tests.models.parity import LENGTHS, assert_close, waves_and_mask


def random_model(**flags):
    return random_model_of("UniSpeechForCTC", **flags)


@torch.inference_mode()
def test_attention_weights_leave_the_output_as_it_is():
    model = random_model()
    waves, mask = waves_and_mask()
    valid = frames_of(model, mask)
    assert_close(model(waves, mask, output_attentions=True).logits[valid], model(waves, mask).logits[valid], 1e-5)


def frames_of(model, mask):
    """Return which frames belong to their rows; the others are meaningless."""
    num_frames = model.num_frames(mask.sum(-1))
    return torch.arange(int(num_frames.max())) < num_frames[:, None]


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


def spans(shape, prob, span, min_masks, valid):
    """Return the frames that a model masks in training, (B, T)."""
    config = UniSpeechConfig(**TINY, mask_time_prob=prob, mask_time_length=span, mask_time_min_masks=min_masks)
    with torch.device("meta"):  # no weights, so that a model takes no time
        model = UniSpeechModel(config)
    return model.draw_time_mask(Layout.of(torch.zeros(shape), valid))


@pytest.mark.parametrize("valid", [None, torch.ones(3, 7, dtype=torch.bool)])
def test_an_axis_shorter_than_a_span_gets_none(valid):
    assert not spans((3, 7), 0.9, 8, 2, valid).any()
    assert spans((3, 7), 0.9, 7, 2, valid).all()


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
    model = random_model(feat_extract_norm=norm)
    encoder = model.unispeech.feature_extractor
    waves, mask = waves_and_mask((20000, 9000, 70, 30, 12345))
    layout = Layout.of(waves, mask if masked else None)
    expected = encoder(waves, layout)
    monkeypatch.setattr("raysp.models.encoder.waveform.BATCH_SAMPLES", 40000)
    found = encoder._frames_by_batch(waves, layout)
    assert found.shape == expected.shape
    for row, count in enumerate(model._get_feat_extract_output_lengths(mask.sum(-1))):
        assert_close(found[row, : max(count, 0)], expected[row, : max(count, 0)], 1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("kernels", [(10, 3, 2), (9, 4, 1), (5, 1, 5)])
def test_chunks_filled_up_to_usual_lengths_equal_one_convolution_after_the_other(norm, kernels):
    flags = {"conv_dim": (6, 8, 10), "conv_stride": (5, 2, 1), "conv_kernel": kernels, "conv_bias": norm == "layer"}
    encoder = random_model(feat_extract_norm=norm, **flags).unispeech.feature_extractor
    for num_frames in (1, 7, 8, 9, 97, 255, 256, 257, 513):
        waves = torch.randn(2, (num_frames - 1) * encoder.stride + encoder.receptive + 3)
        with_gradients = encoder(waves, Layout.of(waves, None))
        assert with_gradients.requires_grad
        with torch.inference_mode():
            assert_close(encoder(waves, Layout.of(waves, None)), with_gradients.detach(), 1e-5)


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


@pytest.mark.parametrize("flags", [{}, {"conv_dim": (8, 12), "conv_stride": (7, 3), "conv_kernel": (5, 8)}])
def test_frame_counts_take_numbers_and_tensors(tmp_path, flags):
    oracle, model = make_pair("UniSpeechForCTC", tmp_path, **flags)
    counts = torch.tensor([0, 100, 399, 400, 16000, 480001])
    assert torch.equal(model._get_feat_extract_output_lengths(counts), oracle._get_feat_extract_output_lengths(counts))
    assert [model.num_frames(int(n)) for n in counts] == model.num_frames(counts).tolist()
    assert model.num_frames(0) == 0


def test_outputs_read_by_position_name_and_attribute():
    model = random_model()
    waves, _ = waves_and_mask()
    output = model(waves)
    assert output[0] is output.logits is output["logits"]
    assert output.loss is None
    assert [*output] == ["logits"]
    assert len(output) == 1
    (logits,) = output.values()
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


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    prob=st.floats(0.001, 1.0),
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
    found = spans(shape, prob, span, min_masks, None if mask is None else mask.bool())
    assert (found.numpy() == expected).all()


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
