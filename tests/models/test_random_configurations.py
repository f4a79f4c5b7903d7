"""Configurations drawn at random: every flag that changes the arithmetic, in company with every other."""

import random

import pytest

from tests.models.oracles import make_pair
from tests.models.parity import check_names, check_outputs, check_rows_alone, check_rows_alone_are_theirs

SHARED = {
    "hidden_size": [32, 48],
    "num_hidden_layers": [1, 3],
    "num_attention_heads": [2, 8],
    "intermediate_size": [20, 64],
    "hidden_act": ["gelu", "relu", "gelu_python", "gelu_new"],
    "layer_norm_eps": [1e-5, 0.1],
    "feat_extract_norm": ["group", "layer"],
    "feat_extract_activation": ["gelu", "relu", "gelu_python", "gelu_new"],
    "conv_bias": [True, False],
    "num_conv_pos_embeddings": [1, 6, 15, 128],
    "num_conv_pos_embedding_groups": [1, 2, 16],
    "do_stable_layer_norm": [True, False],
    "adapter_attn_dim": [None, 5],
    "apply_spec_augment": [True, False],
    "mask_time_prob": [0.0, 0.1],
    "mask_feature_prob": [0.0, 0.1],
    "convolutions": [
        {},
        {"conv_dim": (8, 12), "conv_stride": (7, 4), "conv_kernel": (5, 8)},
        {"conv_dim": (6,) * 4, "conv_stride": (5, 2, 2, 2), "conv_kernel": (10, 3, 2, 2)},
    ],
}
OF_CLASSES = {"use_weighted_layer_sum": [True, False], "num_labels": [1, 4], "classifier_proj_size": [3, 16]}
OF_HUBERT = {"feat_proj_layer_norm": [True, False], "conv_pos_batch_norm": [True, False]}
OF_ADAPTER = {
    "add_adapter": [True, False],
    "num_adapter_layers": [1, 2],
    "adapter_stride": [2, 3],
    "output_hidden_size": [None, 24],
}
MODELS = {
    "UniSpeechModel": {},
    "UniSpeechForCTC": {},
    "UniSpeechForSequenceClassification": OF_CLASSES,
    "Wav2Vec2Model": OF_ADAPTER,
    "Wav2Vec2ForCTC": OF_ADAPTER,
    "Wav2Vec2ForSequenceClassification": OF_CLASSES,
    "Wav2Vec2ForAudioFrameClassification": OF_CLASSES,
    "Wav2Vec2ForXVector": {
        **OF_CLASSES,
        "tdnn_dim": [(6, 8, 8)],
        "tdnn_kernel": [(3, 2, 1), (4, 1, 1)],
        "tdnn_dilation": [(1, 3, 1), (2, 1, 1)],
        "xvector_output_dim": [7],
    },
    "HubertModel": OF_HUBERT,
    "HubertForCTC": OF_HUBERT,
    "HubertForSequenceClassification": {**OF_CLASSES, **OF_HUBERT},
}
LENGTHS = (3100, 1500, 2222)


def drawn(name, seed):
    draw = random.Random(f"{name} {seed}")
    return {key: draw.choice(values) for key, values in {**SHARED, **MODELS[name]}.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_a_random_configuration_gives_their_numbers_and_the_same_rows_alone(name, seed, tmp_path):
    flags = drawn(name, seed)
    flags |= flags.pop("convolutions")
    oracle, model = make_pair(name, tmp_path / "theirs", **flags)
    check_outputs(oracle, model, LENGTHS)
    check_rows_alone(model, LENGTHS, output_hidden_states=True)
    check_rows_alone_are_theirs(oracle, model, LENGTHS)
    check_names(oracle, model, tmp_path / "ours")


def test_every_flag_takes_each_of_its_values_somewhere():
    seen = {(key, repr(draw)) for name in MODELS for seed in range(3) for key, draw in drawn(name, seed).items()}
    tables = (SHARED, *MODELS.values())
    wanted = {(key, repr(value)) for table in tables for key, values in table.items() for value in values}
    assert wanted <= seen
