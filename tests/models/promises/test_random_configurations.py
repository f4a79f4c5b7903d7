"""Configurations drawn at random: every flag that changes the arithmetic, in company with every other."""

import random

import pytest
import torch

from raysp import models
from tests.models.oracles import make_pair
from tests.models.parity import check_names, check_outputs, check_rows_alone, check_rows_alone_are_theirs
from tests.soaked import some

OF_ALL = {
    "hidden_size": [32, 48],
    "num_hidden_layers": [1, 3],
    "num_attention_heads": [2, 8],
    "intermediate_size": [20, 64],
    "hidden_act": ["gelu", "relu", "gelu_python", "gelu_new"],
    "layer_norm_eps": [1e-5, 0.1],
    "apply_spec_augment": [True, False],
    "mask_time_prob": [0.0, 0.1],
    "mask_feature_prob": [0.0, 0.1],
}
OF_WAVEFORMS = {
    **OF_ALL,
    "feat_extract_norm": ["group", "layer"],
    "feat_extract_activation": ["gelu", "relu", "gelu_python", "gelu_new"],
    "conv_bias": [True, False],
    "num_conv_pos_embeddings": [1, 6, 15, 128],
    "num_conv_pos_embedding_groups": [1, 2, 16],
    "convolutions": [
        {},
        {"conv_dim": (8, 12), "conv_stride": (7, 4), "conv_kernel": (5, 8)},
        {"conv_dim": (6,) * 4, "conv_stride": (5, 2, 2, 2), "conv_kernel": (10, 3, 2, 2)},
    ],
}
OF_TRANSFORMERS = {**OF_WAVEFORMS, "do_stable_layer_norm": [True, False], "adapter_attn_dim": [None, 5]}
OF_CLASSES = {"use_weighted_layer_sum": [True, False], "num_labels": [1, 4], "classifier_proj_size": [3, 16]}
OF_HUBERT = {"feat_proj_layer_norm": [True, False], "conv_pos_batch_norm": [True, False]}
OF_ADAPTER = {
    "add_adapter": [True, False],
    "num_adapter_layers": [1, 2],
    "adapter_stride": [2, 3],
    "output_hidden_size": [None, 24],
}
OF_SPEAKERS = {  # theirs fails at an adapter of another width
    **OF_CLASSES,
    "tdnn_dim": [(6, 8, 8)],
    "tdnn_kernel": [(3, 2, 1), (4, 1, 1)],
    "tdnn_dilation": [(1, 3, 1), (2, 1, 1)],
    "xvector_output_dim": [7],
    "output_hidden_size": [None],
}
OF_SEWD = {
    **OF_WAVEFORMS,
    "squeeze_factor": [1, 2, 3],
    "position_buckets": [-1, 6, 300],
    "max_position_embeddings": [12, 40, 512],
    "share_att_key": [True, False],
    "relative_attention": [True, True, False],
    "pos_att_type": [("p2c", "c2p"), ("c2p",), ("p2c",), ()],
    "norm_rel_ebd": ["layer_norm", "none"],
    "feature_layer_norm_eps": [1e-5, 0.1],
}
OF_BERT = {
    **OF_ALL,
    "feature_projection_input_dim": [10],
    "position_embeddings_type": ["relative_key", "relative", "rotary", None],
    "left_max_position_embeddings": [5, 64],
    "right_max_position_embeddings": [0, 8],
    "max_source_positions": [20, 5000],
    "rotary_embedding_base": [100, 10000],
    "conv_depthwise_kernel_size": [1, 7, 31],
}
OF_BERT_ADAPTER = {
    **OF_BERT,
    "add_adapter": [True, False],
    "num_adapter_layers": [1, 2],
    "adapter_act": ["relu", "gelu"],
    "use_intermediate_ffn_before_adapter": [True, False],
    "output_hidden_size": [None, 24],
}
OF_PARAKEET = {
    "hidden_size": [32, 48],
    "num_hidden_layers": [1, 3],
    "num_attention_heads": [2, 8],
    "intermediate_size": [20, 64],
    "hidden_act": ["silu", "gelu"],
    "attention_bias": [True, False],
    "convolution_bias": [True, False],
    "conv_kernel_size": [1, 9],
    "subsampling_factor": [2, 8],
    "subsampling_conv_channels": [4, 16],
    "subsampling_conv_kernel_size": [3, 5],
    "num_mel_bins": [16, 80],
    "max_position_embeddings": [3, 5000],
    "scale_input": [True, False],
}
MODELS = {
    "UniSpeechModel": OF_TRANSFORMERS,
    "UniSpeechForCTC": OF_TRANSFORMERS,
    "UniSpeechForSequenceClassification": {**OF_TRANSFORMERS, **OF_CLASSES},
    "Wav2Vec2Model": {**OF_TRANSFORMERS, **OF_ADAPTER},
    "Wav2Vec2ForCTC": {**OF_TRANSFORMERS, **OF_ADAPTER},
    "Wav2Vec2ForSequenceClassification": {**OF_TRANSFORMERS, **OF_CLASSES},
    "Wav2Vec2ForAudioFrameClassification": {**OF_TRANSFORMERS, **OF_CLASSES},
    "Wav2Vec2ForXVector": {**OF_TRANSFORMERS, **OF_ADAPTER, **OF_SPEAKERS},
    "HubertModel": {**OF_TRANSFORMERS, **OF_HUBERT},
    "HubertForCTC": {**OF_TRANSFORMERS, **OF_HUBERT},
    "HubertForSequenceClassification": {**OF_TRANSFORMERS, **OF_CLASSES, **OF_HUBERT},
    "SEWDModel": OF_SEWD,
    "SEWDForCTC": OF_SEWD,
    "SEWDForSequenceClassification": {**OF_SEWD, **OF_CLASSES},
    "Wav2Vec2BertModel": OF_BERT_ADAPTER,
    "Wav2Vec2BertForCTC": OF_BERT_ADAPTER,
    "Wav2Vec2BertForSequenceClassification": {**OF_BERT, **OF_CLASSES},
    "Wav2Vec2BertForAudioFrameClassification": {**OF_BERT, **OF_CLASSES},
    "Wav2Vec2BertForXVector": {**OF_BERT_ADAPTER, **OF_SPEAKERS},
    "ParakeetEncoder": OF_PARAKEET,
    "ParakeetForCTC": OF_PARAKEET,
}
SAMPLES = (3100, 1500, 2222)
FEATURES = (61, 37, 50)
MELS = (161, 80, 123)  # of eight of which some models make one frame
SEEDS = 3


def drawn(draw, table):
    """Draw a value of each flag."""
    flags = {key: draw.choice(values) for key, values in table.items()}
    if not flags.get("add_adapter", True):
        flags.pop("use_intermediate_ffn_before_adapter", None)  # refused by both without an adapter
    return flags


def unfolded(flags):
    """Give flags as a configuration takes them: those of convolutions are drawn together."""
    return {key: value for key, value in flags.items() if key != "convolutions"} | flags.get("convolutions", {})


def drawn_for(name, seed):
    return drawn(random.Random(f"{name} {seed}"), MODELS[name])


def check(name, seed, folder):
    oracle, model = make_pair(name, folder / "theirs", **unfolded(drawn_for(name, seed)))
    width = None
    if name.startswith("Wav2Vec2Bert"):
        width = model.config.feature_projection_input_dim
    elif name.startswith("Parakeet"):
        width = model.encoder_config.num_mel_bins
    lengths = SAMPLES if width is None else MELS if name.startswith("Parakeet") else FEATURES
    if name == "Wav2Vec2ForXVector":  # adapter and TDNN want some frames
        lengths = tuple(2 * length for length in lengths)
    check_outputs(oracle, model, lengths, width)
    check_rows_alone(model, lengths, width=width, output_hidden_states=True)
    check_rows_alone_are_theirs(oracle, model, lengths, width)
    check_names(oracle, model, folder / "ours")


@pytest.mark.parametrize("seed", some(range(SEEDS), 0))
@pytest.mark.parametrize("name", MODELS)
def test_a_random_configuration_gives_their_numbers_and_the_same_rows_alone(name, seed, tmp_path):
    check(name, seed, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS, 100))
@pytest.mark.parametrize("name", MODELS)
def test_many_more_configurations(name, seed, tmp_path):
    check(name, seed, tmp_path)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", ["Wav2Vec2", "Wav2Vec2Bert"])
def test_speakers_are_known_behind_an_adapter_of_another_width(name, weighted):
    """The original's projection has the width before the adapter, and fails."""
    flags = {key: values[0] for key, values in MODELS[f"{name}ForXVector"].items() if key != "convolutions"}
    flags |= {"add_adapter": True, "output_hidden_size": 24, "use_weighted_layer_sum": weighted}
    flags |= {"mask_time_prob": 0.0, "conv_dim": (8, 12), "conv_stride": (7, 4), "conv_kernel": (5, 8)}
    torch.manual_seed(0)
    model = getattr(models, f"{name}ForXVector")(getattr(models, f"{name}Config")(**flags)).eval()
    assert model.projector.in_features == (32 if weighted else 24)
    if name == "Wav2Vec2":
        check_rows_alone(model, SAMPLES)
    else:
        check_rows_alone(model, FEATURES, width=10)


def test_every_flag_takes_each_of_its_values_somewhere():
    seen = {
        (key, repr(draw)) for name in MODELS for seed in range(SEEDS) for key, draw in drawn_for(name, seed).items()
    }
    wanted = {(key, repr(value)) for table in MODELS.values() for key, values in table.items() for value in values}
    assert wanted <= seen
