"""Models of every encoder and head that the contracts of encoders are tested with: class, flags and inputs."""

from dataclasses import dataclass

import torch

from tests.models.oracles import TINY_PARAKEET
from tests.models.parity import LENGTHS, LENGTHS_OF_SEW_D, inputs_and_mask

LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 2}
CODES = {"num_codevector_groups": 2, "num_codevectors_per_group": 6, "codevector_dim": 8, "proj_codevector_dim": 10}
CLASSES = {"num_labels": 5, "classifier_proj_size": 12}
ALL_LAYERS = {"use_weighted_layer_sum": True}
SPEAKERS = {
    "tdnn_dim": (12, 14, 16),
    "tdnn_kernel": (3, 3, 1),
    "tdnn_dilation": (1, 2, 1),
    "xvector_output_dim": 10,
    "num_labels": 4,
}
UNISPEECH = {
    "group": {},
    "layer": LAYER,
    "group stable": {"do_stable_layer_norm": True, "conv_bias": True},
    "layer post": {"feat_extract_norm": "layer"},
    "adapter": {"do_stable_layer_norm": True, "adapter_attn_dim": 8},
    "adapter without stable": {"adapter_attn_dim": 8},
    "odd positions": {"num_conv_pos_embeddings": 15},
    "one group": {"num_conv_pos_embedding_groups": 1},
    "gelu_new": {"hidden_act": "gelu_new", "feat_extract_activation": "gelu_new"},
    "relu": {"hidden_act": "relu", "feat_extract_activation": "relu"},
    "gelu_python tanh": {"hidden_act": "gelu_python", "feat_extract_activation": "tanh"},
    "wide epsilon": {"layer_norm_eps": 0.1},
    "no mask embedding": {"mask_time_prob": 0.0},
    "feature mask": {"mask_time_prob": 0.0, "mask_feature_prob": 0.1},
    "no augmentation": {"apply_spec_augment": False},
    "default convolutions": {
        "conv_dim": (8,) * 7,
        "conv_stride": (5, 2, 2, 2, 2, 2, 2),
        "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    },
    "odd convolutions": {"conv_dim": (8, 12), "conv_stride": (7, 3), "conv_kernel": (5, 8)},
}
SEW_D = {
    "group": {},
    "layer": {"feat_extract_norm": "layer", "conv_bias": True},
    "keys apart": {"share_att_key": False},
    "c2p": {"pos_att_type": ("c2p",)},
    "p2c": {"pos_att_type": ("p2c",)},
    "p2c apart": {"pos_att_type": ("p2c",), "share_att_key": False},
    "neither": {"pos_att_type": ()},
    "no distances": {"relative_attention": False},
    "no buckets": {"position_buckets": -1, "max_position_embeddings": 24},
    "many buckets": {"position_buckets": 300, "max_position_embeddings": 512},
    "few positions": {"max_position_embeddings": 12},
    "max_relative_positions": {"max_relative_positions": 30},
    "plain table": {"norm_rel_ebd": "none"},
    "joined norms": {"norm_rel_ebd": "Layer_Norm | none"},
    "no squeezing": {"squeeze_factor": 1},
    "squeezed by three": {"squeeze_factor": 3},
    "no projection": {"hidden_size": 24, "num_attention_heads": 3},
    "odd positions": {"num_conv_pos_embeddings": 15},
    "relu": {"hidden_act": "relu", "feat_extract_activation": "relu"},
    "wide epsilon": {"layer_norm_eps": 0.1, "feature_layer_norm_eps": 0.2},
    "no mask embedding": {"mask_time_prob": 0.0},
}
WAV2VEC2_BERT = {
    "relative_key": {},
    "relative": {"position_embeddings_type": "relative"},
    "relative beyond its table": {"position_embeddings_type": "relative", "max_source_positions": 20},
    "rotary": {"position_embeddings_type": "rotary", "rotary_embedding_base": 100},
    "no positions": {"position_embeddings_type": None},
    "one-sided": {"left_max_position_embeddings": 5, "right_max_position_embeddings": 0},
    "wide table": {"left_max_position_embeddings": 200, "right_max_position_embeddings": 100},
    "long convolution": {"conv_depthwise_kernel_size": 31},
    "gelu": {"hidden_act": "gelu"},
    "wide epsilon": {"layer_norm_eps": 0.1},
    "no mask embedding": {"mask_time_prob": 0.0},
    "adapter": {"add_adapter": True},
    "adapter behind a feed-forward": {"add_adapter": True, "use_intermediate_ffn_before_adapter": True},
    "two adapters": {**ADAPTER, "adapter_act": "gelu"},
    "narrow adapter": {"add_adapter": True, "output_hidden_size": 24, "position_embeddings_type": "relative"},
}
HEADS = {
    "UniSpeech": {
        "base": ("Model", LAYER),
        "base, group": ("Model", {}),
        "classes": ("ForSequenceClassification", {"num_labels": 5}),
        "classes of all layers": ("ForSequenceClassification", {**LAYER, **CLASSES, **ALL_LAYERS}),
        "codes": ("ForPreTraining", CODES),
        "codes of one group": ("ForPreTraining", {**CODES, **LAYER, "num_codevector_groups": 1}),
    },
    "Wav2Vec2": {
        "base": ("Model", {}),
        "base, layer": ("Model", LAYER),
        "adapter": ("Model", ADAPTER),
        "adapter of another width": ("Model", {**LAYER, **ADAPTER, "output_hidden_size": 20}),
        "adapter of kernel 5": ("Model", {**ADAPTER, "adapter_kernel_size": 5, "adapter_stride": 3}),
        "ctc": ("ForCTC", {"layer_norm_eps": 0.01, "hidden_act": "gelu_new"}),
        "ctc, language adapters": ("ForCTC", {**LAYER, "adapter_attn_dim": 8}),
        "ctc, adapter": ("ForCTC", {**ADAPTER, "output_hidden_size": 20}),
        "classes": ("ForSequenceClassification", CLASSES),
        "classes of all layers": ("ForSequenceClassification", {**LAYER, "num_labels": 5, **ALL_LAYERS}),
        "frames": ("ForAudioFrameClassification", {"num_labels": 3}),
        "frames of all layers": ("ForAudioFrameClassification", {"num_labels": 3, **ALL_LAYERS}),
        "speakers": ("ForXVector", SPEAKERS),
        "speakers of all layers": ("ForXVector", {**SPEAKERS, **LAYER, **ALL_LAYERS}),
        "speakers behind an adapter": (
            "ForXVector",
            {**SPEAKERS, "add_adapter": True, "num_adapter_layers": 1, "tdnn_dilation": (1, 1, 1)},
        ),
    },
    "Hubert": {
        "base": ("Model", {}),
        "base, layer": ("Model", LAYER),
        "batch norm": ("Model", {"conv_pos_batch_norm": True}),
        "batch norm, odd, layer": ("Model", {**LAYER, "conv_pos_batch_norm": True, "num_conv_pos_embeddings": 15}),
        "no norm in the projection": ("Model", {"feat_proj_layer_norm": False}),
        "ctc": ("ForCTC", {}),
        "ctc, all options": ("ForCTC", {**LAYER, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
        "ctc, language adapters": ("ForCTC", {**LAYER, "adapter_attn_dim": 8}),
        "classes": ("ForSequenceClassification", CLASSES),
        "classes of all layers": ("ForSequenceClassification", {**LAYER, "num_labels": 5, **ALL_LAYERS}),
    },
    "SEWD": {
        f"classes, squeezed by {factor}{', all layers' * weighted}": (
            "ForSequenceClassification",
            {"num_labels": 5, "squeeze_factor": factor, "use_weighted_layer_sum": weighted},
        )
        for factor in (2, 3)
        for weighted in (False, True)
    },
    "Wav2Vec2Bert": {
        f"{head}{', all layers' * weighted}{', adapter' * adapter}": (
            f"For{head}",
            {"num_labels": 5, "use_weighted_layer_sum": weighted, "add_adapter": adapter},
        )
        for head in ("SequenceClassification", "AudioFrameClassification", "XVector")
        for weighted in (False, True)
        for adapter in ((False, True) if head == "XVector" else (False,))
    },
    "Parakeet": {"base": ("Encoder", {}), "ctc": ("ForCTC", {})},
}
CASES = {
    **{f"UniSpeech ctc, {name}": ("UniSpeechForCTC", flags) for name, flags in UNISPEECH.items()},
    **{f"SEWD ctc, {name}": ("SEWDForCTC", flags) for name, flags in SEW_D.items()},
    **{f"Wav2Vec2Bert ctc, {name}": ("Wav2Vec2BertForCTC", flags) for name, flags in WAV2VEC2_BERT.items()},
    **{
        f"{family} {case}": (family + head, flags)
        for family, cases in HEADS.items()
        for case, (head, flags) in cases.items()
    },
}


@dataclass(frozen=True)
class Inputs:
    """Lengths of rows, width of a frame of features (None: samples), and the length of a further, short row."""

    lengths: tuple[int, ...]
    width: int | None = None
    short: int | None = None

    def drawn(self, seed=1):
        """Draw the rows and their mask."""
        return inputs_and_mask(self.lengths, self.width, seed)


def inputs_of(name, flags=()):
    """Return the inputs of a class."""
    if name.startswith("SEWD"):
        return Inputs(LENGTHS_OF_SEW_D, short=300)
    if name.startswith("Wav2Vec2Bert"):
        return Inputs((61, 37, 50, 17), 10, 3) if name.endswith("CTC") else Inputs((61, 40, 50, 33), 10)
    if name.startswith("Parakeet"):
        return Inputs((161, 80, 123, 9), TINY_PARAKEET["num_mel_bins"])
    if name.endswith("XVector") and "add_adapter" in flags:
        return Inputs((3001, 2700, 2502, 2100))
    return Inputs(LENGTHS)


def labels_of(name, logits_frames):
    """Return labels of four rows, with one-hot ones for so many frames; None for a class that takes none."""
    if name.endswith("ForCTC"):
        return torch.tensor([[5, 6, 6, 7], [8, -100, -100, -100], [0, 9, 9, 0], [3, 4, -100, -100]])
    if name.endswith("AudioFrameClassification"):
        return torch.nn.functional.one_hot(torch.arange(4 * logits_frames).view(4, -1) % 3, 5 if "Bert" in name else 3)
    if name.endswith("SequenceClassification"):
        return torch.tensor([0, 4, 2, 2])
    return torch.tensor([0, 3, 2, 2]) if name.endswith("XVector") else None
