"""Architectures of speech, options that change their arithmetic, and what they take: inputs and labels.

`CASES` has each class in a few configurations drawn from its options, in which each option takes each of its values.
"""

import random

import torch

from tests.models.oracles import TINY_PARAKEET
from tests.models.parity import inputs_and_mask

LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
CODES = {"num_codevector_groups": 2, "num_codevectors_per_group": 6, "codevector_dim": 8, "proj_codevector_dim": 10}
SPEAKERS = {
    "tdnn_dim": (12, 14, 16), "tdnn_kernel": (3, 3, 1), "tdnn_dilation": (1, 2, 1), "xvector_output_dim": 10,
    "num_labels": 4,
}  # fmt: skip
ACTIVATIONS = ["gelu", "relu", "gelu_new"]
OF_ALL = {
    "hidden_size": [32, 48],
    "num_hidden_layers": [1, 3],
    "num_attention_heads": [2, 8],
    "intermediate_size": [20, 64],
    "hidden_act": ACTIVATIONS,
    "layer_norm_eps": [1e-5, 0.1],
    "apply_spec_augment": [True, False],
    "mask_time_prob": [0.0, 0.1],
    "mask_feature_prob": [0.0, 0.1],
}
CONVOLUTIONS = [{}, {"conv_dim": (8, 12), "conv_stride": (7, 4), "conv_kernel": (5, 8)}]
PUBLISHED = {"conv_dim": (8,) * 7, "conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_kernel": (10, 3, 3, 3, 3, 2, 2)}
OF_WAVEFORMS = {
    **OF_ALL,
    "feat_extract_norm": ["group", "layer"],
    "feat_extract_activation": ["gelu", "tanh", "gelu_new"],
    "conv_bias": [True, False],
    "num_conv_pos_embeddings": [1, 15, 128],
    "num_conv_pos_embedding_groups": [1, 2, 16],
    "convolutions": [*CONVOLUTIONS, PUBLISHED],
}
OF_TRANSFORMERS = {**OF_WAVEFORMS, "do_stable_layer_norm": [True, False], "adapter_attn_dim": [None, 5]}
OF_CLASSES = {"use_weighted_layer_sum": [True, False], "num_labels": [2, 4], "classifier_proj_size": [3, 16]}
OF_HUBERT = {**OF_TRANSFORMERS, "feat_proj_layer_norm": [True, False], "conv_pos_batch_norm": [True, False]}
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
    "convolutions": CONVOLUTIONS,
    "squeeze_factor": [1, 2, 3],
    "position_buckets": [-1, 6, 300],
    "max_position_embeddings": [12, 40, 512],
    "max_relative_positions": [-1, -1, 30],
    "share_att_key": [True, False],
    "relative_attention": [True, True, False],
    "pos_att_type": [("p2c", "c2p"), ("c2p",), ("p2c",), ()],
    "norm_rel_ebd": ["layer_norm", "none", "Layer_Norm | none"],
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
OPTIONS = {  # a base model is the one of its CTC class, whose hidden states and attentions are compared
    "UniSpeechModel": {},
    "UniSpeechForCTC": {"feat_extract_norm": ["group", "layer"], "do_stable_layer_norm": [True, False]},
    "UniSpeechForSequenceClassification": {},
    "UniSpeechForPreTraining": {
        **{name: [value] for name, value in CODES.items()}, "num_codevector_groups": [2, 1],
    },
    "Wav2Vec2Model": {**OF_ADAPTER, "adapter_kernel_size": [3, 5]},
    "Wav2Vec2ForCTC": {**OF_TRANSFORMERS, **OF_ADAPTER, "convolutions": CONVOLUTIONS},
    "Wav2Vec2ForSequenceClassification": OF_CLASSES,
    "Wav2Vec2ForAudioFrameClassification": OF_CLASSES,
    "Wav2Vec2ForXVector": {**OF_ADAPTER, **OF_SPEAKERS},
    "HubertModel": {},
    "HubertForCTC": OF_HUBERT,
    "HubertForSequenceClassification": OF_CLASSES,
    "SEWDModel": {},
    "SEWDForCTC": OF_SEWD,
    "SEWDForSequenceClassification": OF_CLASSES,
    "Wav2Vec2BertModel": {},
    "Wav2Vec2BertForCTC": OF_BERT_ADAPTER,
    "Wav2Vec2BertForSequenceClassification": OF_CLASSES,
    "Wav2Vec2BertForAudioFrameClassification": OF_CLASSES,
    "Wav2Vec2BertForXVector": {"add_adapter": [True, False], "num_adapter_layers": [1, 2], **OF_SPEAKERS},
    "ParakeetEncoder": {},
    "ParakeetForCTC": {
        **OF_PARAKEET, "ctc_loss_reduction": ["mean", "sum"], "ctc_zero_infinity": [True, False],
    },
}  # fmt: skip


def drawn(name, options):
    """Draw configurations so that each option takes each of its values in one of them."""
    count, columns = max([1, *map(len, options.values())]), {}
    for key, values in options.items():
        draw = random.Random(f"{name} {key}")
        columns[key] = [value for _ in range(-(-count // len(values))) for value in draw.sample(values, len(values))]
    return [unfolded({key: column[place] for key, column in columns.items()}) for place in range(count)]


def unfolded(flags):
    """Return options as a configuration takes them: those of convolutions are drawn together."""
    if not flags.get("add_adapter", True):
        flags.pop("use_intermediate_ffn_before_adapter", None)  # refused by both without an adapter
    return {key: value for key, value in flags.items() if key != "convolutions"} | flags.get("convolutions", {})


CASES = {
    f"{name} {place}": (name, flags)
    for name, options in OPTIONS.items()
    for place, flags in enumerate(drawn(name, options))
}


def width_of(name, flags=()):
    """Return the width of a frame of features; None for a class that takes samples."""
    if name.startswith("Parakeet"):
        return dict(flags).get("num_mel_bins", TINY_PARAKEET["num_mel_bins"])
    return 10 if name.startswith("Wav2Vec2Bert") else None


def lengths_of(name):
    """Return the lengths of the rows of a batch."""
    if name.startswith("SEWD"):
        return 1201, 700, 1002, 330  # of odd numbers of frames by the usual convolutions
    if name.startswith("Wav2Vec2Bert"):
        return (61, 37, 50, 17) if name.endswith(("CTC", "Model")) else (61, 40, 50, 33)
    if name.startswith("Parakeet"):
        return 161, 80, 123, 40
    return (6200, 3000, 4444, 5001) if name.endswith("XVector") else (3100, 1500, 2222, 800)


def batch_of(name, flags=(), seed=1):
    """Draw rows for a class, and their mask."""
    return inputs_and_mask(lengths_of(name), width_of(name, flags), seed)


def labels_of(name, num_frames, num_labels=2):
    """Return labels of four rows, with one-hot ones for so many frames; None for a class that takes none."""
    if name.endswith("ForCTC"):
        return torch.tensor([[5, 6, 6, 7], [8, -100, -100, -100], [0, 9, 9, 0], [3, 4, -100, -100]])
    if name.endswith("AudioFrameClassification"):
        return torch.nn.functional.one_hot(torch.arange(4 * num_frames).view(4, -1) % num_labels, num_labels)
    classes = torch.tensor([0, 3, 2, 1]) % num_labels
    return classes if name.endswith(("SequenceClassification", "XVector")) else None
