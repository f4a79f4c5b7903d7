import copy

import numpy as np
import pytest
import torch
import transformers
from transformers.models.wav2vec2 import modeling_wav2vec2 as theirs

from raysp.errors import CheckpointError
from raysp.models import (
    Wav2Vec2Config,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
    Wav2Vec2Model,
)
from raysp.models.wav2vec2 import _compute_mask_indices, _sample_negative_indices
from tests.models.oracles import TINY, make_pair
from tests.models.parity import (
    LENGTHS,
    as_reference,
    assert_close,
    check_gradients,
    check_names,
    check_outputs,
    check_rows_alone,
    check_rows_alone_are_theirs,
    waves_and_mask,
)

SPEAKERS = {
    "tdnn_dim": (12, 14, 16),
    "tdnn_kernel": (3, 3, 1),
    "tdnn_dilation": (1, 2, 1),
    "xvector_output_dim": 10,
    "num_labels": 4,
}
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 2}
STILL = dict.fromkeys(
    ["hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"], 0.0
)
CASES = {
    "base": ("Wav2Vec2Model", {}),
    "base, layer": ("Wav2Vec2Model", LAYER),
    "adapter": ("Wav2Vec2Model", ADAPTER),
    "adapter of another width": ("Wav2Vec2Model", {**LAYER, **ADAPTER, "output_hidden_size": 20}),
    "adapter of kernel 5": ("Wav2Vec2Model", {**ADAPTER, "adapter_kernel_size": 5, "adapter_stride": 3}),
    "ctc": ("Wav2Vec2ForCTC", {"layer_norm_eps": 0.01, "hidden_act": "gelu_new"}),
    "ctc, language adapters": ("Wav2Vec2ForCTC", {**LAYER, "adapter_attn_dim": 8}),
    "ctc, adapter": ("Wav2Vec2ForCTC", {**ADAPTER, "output_hidden_size": 20}),
    "classes": ("Wav2Vec2ForSequenceClassification", {"num_labels": 5, "classifier_proj_size": 12}),
    "classes of all layers": (
        "Wav2Vec2ForSequenceClassification",
        {**LAYER, "num_labels": 5, "use_weighted_layer_sum": True},
    ),
    "frames": ("Wav2Vec2ForAudioFrameClassification", {"num_labels": 3}),
    "frames of all layers": ("Wav2Vec2ForAudioFrameClassification", {"num_labels": 3, "use_weighted_layer_sum": True}),
    "speakers": ("Wav2Vec2ForXVector", SPEAKERS),
    "speakers of all layers": ("Wav2Vec2ForXVector", {**SPEAKERS, **LAYER, "use_weighted_layer_sum": True}),
    "speakers behind an adapter": (
        "Wav2Vec2ForXVector",
        {**SPEAKERS, "add_adapter": True, "num_adapter_layers": 1, "tdnn_dilation": (1, 1, 1)},
    ),
}
LONG = (3001, 2700, 2502, 2100)  # an x-vector behind an adapter needs more frames


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    name, flags = CASES[request.param]
    return make_pair(name, tmp_path_factory.mktemp("wav2vec2"), **flags)


def lengths_of(model):
    return LONG if model.min_samples > 800 else LENGTHS


def test_outputs_equal_theirs(case):
    check_outputs(*case, lengths=lengths_of(case[1]))


def test_a_row_in_a_batch_equals_the_row_alone_and_theirs(case):
    oracle, model = case
    check_rows_alone(model, lengths_of(model), output_hidden_states=True)
    check_rows_alone_are_theirs(oracle, model, lengths_of(model))


def test_weights_have_their_names_in_both_directions(case, tmp_path):
    check_names(*case, tmp_path)


def test_the_shortest_input_is_as_said(case):
    model = case[1]
    with torch.inference_mode():
        assert model(torch.randn(1, model.min_samples))[0].isfinite().all()
        frames = model.base_model(torch.randn(1, 3001))[0].shape[1]
    assert model.num_frames(3001) == frames
    assert model.num_frames(model.min_samples + 3 * model.frame_stride) == model.num_frames(model.min_samples) + 3
    if isinstance(model, Wav2Vec2ForXVector):  # one frame behind the TDNN has no deviation
        with torch.inference_mode():
            assert model(torch.randn(1, model.min_samples - 1)).embeddings.isnan().all()


LABELS = {
    "Wav2Vec2ForCTC": lambda model: torch.tensor([[5, 6, 6, 7], [8, -100, -100, -100], [3, 9, 9, 0], [3, 4, -100, 0]]),
    "Wav2Vec2ForSequenceClassification": lambda model: torch.tensor([0, 4, 2, 2]),
    "Wav2Vec2ForAudioFrameClassification": lambda model: torch.nn.functional.one_hot(
        torch.arange(4 * model.num_frames(max(LENGTHS))).view(4, -1) % 3, 3
    ),
    "Wav2Vec2ForXVector": lambda model: torch.tensor([0, 3, 2, 2]),
}


@pytest.mark.parametrize(
    "name", ["ctc", "ctc, adapter", "classes of all layers", "frames of all layers", "speakers of all layers"]
)
def test_losses_and_gradients_equal_theirs(name, tmp_path):
    kind, flags = CASES[name]
    oracle, model = make_pair(kind, tmp_path, **flags)
    check_gradients(oracle, model, LABELS[kind](model))


def test_gradients_of_x_vectors_whose_channels_are_constant_equal_theirs(tmp_path):
    oracle, model = make_pair("Wav2Vec2ForXVector", tmp_path, **SPEAKERS)
    with torch.no_grad():
        for side in (oracle, model):
            side.tdnn[-1].kernel.weight[:5] = 0.0
            side.tdnn[-1].kernel.bias[:5] = 0.5
    check_gradients(oracle, model, LABELS["Wav2Vec2ForXVector"](model))
    assert all(p.grad.isfinite().all() for p in oracle.parameters() if p.grad is not None)


def test_the_loss_over_frames_excludes_padding_unless_requested(tmp_path):
    _, model = make_pair("Wav2Vec2ForAudioFrameClassification", tmp_path, num_labels=3)
    waves, mask = waves_and_mask()
    labels = LABELS["Wav2Vec2ForAudioFrameClassification"](model)
    with torch.inference_mode():
        found = model(waves, mask, labels=labels)
        valid = model._get_feature_vector_attention_mask(labels.shape[1], mask)
    expected = torch.nn.functional.cross_entropy(found.logits[valid], labels.argmax(-1)[valid])
    assert_close(found.loss, expected)


def test_padding_of_speakers_leaks_in_their_way_alone(tmp_path):
    """Their count of frames leaves dilation out, so that a short row's statistics take in padding."""
    _, model = make_pair("Wav2Vec2ForXVector", tmp_path, **SPEAKERS)
    waves, mask = waves_and_mask()
    with torch.inference_mode():
        exact, reference = model(waves, mask).embeddings, as_reference(model)(waves, mask).embeddings
    assert (exact - reference)[3].abs().max() > 1e-3


@pytest.mark.slow
def test_training_with_layerdrop_draws_as_theirs(tmp_path):
    flags = {**ADAPTER, **STILL, "layerdrop": 0.5, "apply_spec_augment": False, "num_hidden_layers": 4}
    oracle, model = make_pair("Wav2Vec2Model", tmp_path, **flags)
    waves, _ = waves_and_mask()
    seen = set()
    for seed in range(4):
        outputs = []
        for one in (oracle.train(), as_reference(model).train()):
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


@pytest.mark.parametrize("cls", [Wav2Vec2ForSequenceClassification, Wav2Vec2ForAudioFrameClassification])
def test_classes_refuse_an_adapter(cls):
    with pytest.raises(CheckpointError, match=f"{cls.__name__} does not support add_adapter"):
        cls(Wav2Vec2Config(**TINY, add_adapter=True))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"tdnn_dim": (4, 5)}, "expected one length for all three"),
        ({"adapter_stride": 0}, "a kernel, stride or dilation is below 1"),
    ],
)
def test_wrong_configurations_are_refused(flags, message):
    with pytest.raises(CheckpointError, match=message):
        Wav2Vec2Config(**flags)


def test_configuration_defaults_are_theirs():
    ours, others = Wav2Vec2Config().to_dict(), transformers.Wav2Vec2Config().to_dict()
    for name in vars(Wav2Vec2Config()):
        if name in others and name not in ("id2label", "label2id"):
            assert ours[name] == (list(others[name]) if isinstance(others[name], tuple) else others[name]), name


@pytest.mark.parametrize("kernel", [3, 5])
def test_frames_of_an_adapter_are_counted_in_their_way_and_as_they_are(tmp_path, kernel):
    oracle, model = make_pair("Wav2Vec2Model", tmp_path, **ADAPTER, adapter_kernel_size=kernel)
    counts = torch.tensor([700, 1203, 3001])
    for add_adapter in (None, True, False):
        expected = oracle._get_feat_extract_output_lengths(counts, add_adapter=add_adapter).long()
        assert torch.equal(as_reference(model)._get_feat_extract_output_lengths(counts, add_adapter), expected)
        _, mask = waves_and_mask(counts.tolist())
        found = as_reference(model)._get_feature_vector_attention_mask(int(expected.max()), mask, add_adapter)
        assert torch.equal(found, oracle._get_feature_vector_attention_mask(int(expected.max()), mask, add_adapter))
        assert torch.equal(model.num_frames(counts), expected) == (kernel == 3) or add_adapter is False
    with torch.inference_mode():
        assert [model(torch.randn(1, int(n)))[0].shape[1] for n in counts] == model.num_frames(counts).tolist()


def test_negatives_are_drawn_as_theirs():
    masked = np.random.default_rng(0).random((3, 20)) < 0.4
    found = []
    for sample in (theirs._sample_negative_indices, _sample_negative_indices):
        np.random.seed(5)
        found.append(sample((3, 20), 7, masked))
    assert (found[0] == found[1]).all()
    assert _compute_mask_indices((2, 30), 0.5, 3).shape == (2, 30)


def test_random_weights_have_the_spread_of_theirs():
    flags = {**TINY, **SPEAKERS, "hidden_size": 64}
    others = transformers.Wav2Vec2ForXVector(transformers.Wav2Vec2Config(**flags)).state_dict()
    ours = Wav2Vec2ForXVector(Wav2Vec2Config(**flags)).init_weights().state_dict()
    for name, value in others.items():
        if value.numel() > 500 and "pos_conv_embed" not in name:  # theirs writes that draw to a copy, and so loses it
            assert 0.8 < ours[name].std() / value.std() < 1.25, name


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
