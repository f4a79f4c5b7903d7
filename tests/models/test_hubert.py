import numpy as np
import pytest
import torch
import transformers

from raysp.models import HubertConfig, HubertForCTC, HubertModel, check_checkpoint
from raysp.models.base.capabilities import Capability
from tests.models.oracles import TINY, make_pair
from tests.models.parity import (
    as_reference,
    assert_close,
    check_gradients,
    check_names,
    check_outputs,
    check_rows_alone,
    check_rows_alone_are_theirs,
    waves_and_mask,
)

LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
CASES = {
    "base": ("HubertModel", {}),
    "base, layer": ("HubertModel", LAYER),
    "batch norm": ("HubertModel", {"conv_pos_batch_norm": True}),
    "batch norm, odd, layer": ("HubertModel", {**LAYER, "conv_pos_batch_norm": True, "num_conv_pos_embeddings": 15}),
    "no norm in the projection": ("HubertModel", {"feat_proj_layer_norm": False}),
    "ctc": ("HubertForCTC", {}),
    "ctc, all options": ("HubertForCTC", {**LAYER, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
    "ctc, language adapters": ("HubertForCTC", {**LAYER, "adapter_attn_dim": 8}),
    "classes": ("HubertForSequenceClassification", {"num_labels": 5, "classifier_proj_size": 12}),
    "classes of all layers": (
        "HubertForSequenceClassification",
        {**LAYER, "num_labels": 5, "use_weighted_layer_sum": True},
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    name, flags = CASES[request.param]
    return make_pair(name, tmp_path_factory.mktemp("hubert"), **flags)


def test_outputs_equal_theirs(case):
    check_outputs(*case)


def test_a_row_in_a_batch_equals_the_row_alone_and_theirs(case):
    oracle, model = case
    check_rows_alone(model, output_hidden_states=True)
    check_rows_alone_are_theirs(oracle, model)


def test_weights_have_their_names_in_both_directions(case, tmp_path):
    check_names(*case, tmp_path)


@pytest.mark.parametrize("name", ["ctc", "ctc, all options", "classes of all layers"])
def test_losses_and_gradients_equal_theirs(name, tmp_path):
    kind, flags = CASES[name]
    labels = torch.tensor([0, 4, 2, 2])
    if kind == "HubertForCTC":
        labels = torch.tensor([[5, 6, 6, 7], [8, -100, -100, -100], [3, 9, 9, 0], [3, 4, -100, 0]])
    check_gradients(*make_pair(kind, tmp_path, **flags), labels)


def test_padding_leaks_through_the_batch_norm_in_their_way_alone(tmp_path):
    oracle, model = make_pair("HubertModel", tmp_path, **CASES["batch norm, odd, layer"][1])
    waves, mask = waves_and_mask()
    with torch.inference_mode():
        exact, reference = model(waves, mask)[0], as_reference(model)(waves, mask)[0]
        alone = oracle(waves[3:, :800])[0][0]
    assert_close(exact[3, : len(alone)], alone)
    assert (reference[3, : len(alone)] - alone).abs().max() > 1e-3


def test_training_masks_spans_in_padding_as_theirs_unless_padding_is_exact(tmp_path):
    still = dict.fromkeys(
        ["hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"], 0.0
    )
    oracle, model = make_pair("HubertModel", tmp_path, **still, mask_time_prob=0.4, mask_time_length=3)
    waves, mask = waves_and_mask()
    outputs = []
    for one in (oracle.train(), as_reference(model).train()):
        np.random.seed(3)
        outputs.append(one(waves, mask)[0])
    valid = model._get_feature_vector_attention_mask(outputs[0].shape[1], mask)
    assert_close(outputs[1][valid], outputs[0][valid])
    np.random.seed(3)
    drawn = model.draw_time_mask(4, outputs[0].shape[1], valid)
    assert not (drawn & ~valid)[:, :-1].any()


def test_configuration_defaults_are_theirs():
    ours, theirs = HubertConfig().to_dict(), transformers.HubertConfig().to_dict()
    for name in vars(HubertConfig()):
        if name in theirs and name not in ("id2label", "label2id"):
            assert ours[name] == (list(theirs[name]) if isinstance(theirs[name], tuple) else theirs[name]), name


@pytest.mark.parametrize("batch_norm", [True, False])
def test_random_weights_have_the_spread_of_theirs(batch_norm):
    flags = {**TINY, "hidden_size": 64, "conv_pos_batch_norm": batch_norm, "conv_bias": True}
    theirs = transformers.HubertForCTC(transformers.HubertConfig(**flags)).state_dict()
    ours = HubertForCTC(HubertConfig(**flags)).init_weights().state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if value.numel() > 500 and ("pos_conv_embed" not in name or batch_norm):
            assert 0.8 < ours[name].std() / value.std() < 1.25, name


def test_outputs_have_no_features_before_projection():
    model = HubertModel(HubertConfig(**TINY)).init_weights().eval()
    assert model(waves_and_mask()[0]).keys() == ["last_hidden_state"]


def test_a_checkpoint_without_a_head_is_described(tmp_path):
    HubertModel(HubertConfig(**TINY, conv_pos_batch_norm=True)).init_weights().save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    summary = check_checkpoint(tmp_path)
    assert (summary.architecture, summary.vocab_size, summary.gives) == (
        "HubertModel",
        None,
        (Capability.HIDDEN_STATES,),
    )
    assert (summary.min_samples, summary.frame_stride, summary.dtype) == (40, 30, "float32")
