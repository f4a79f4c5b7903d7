"""Small random models of the documents' classes, and what they take."""

import numpy as np
import torch

import raysp.models
from raysp.models import SEWDConfig, UniSpeechConfig, Wav2Vec2BertConfig
from tests.models import oracles

CODES = {"num_codevectors_per_group": 6, "codevector_dim": 8, "proj_codevector_dim": 10, "num_negatives": 5}
TINY = {
    SEWDConfig: {**oracles.TINY_SEW_D, "mask_time_length": 4},
    Wav2Vec2BertConfig: {**oracles.TINY_WAV2VEC2_BERT, "num_hidden_layers": 2, "mask_time_length": 4},
    UniSpeechConfig: {**oracles.TINY, **CODES, "num_ctc_classes": 7, "mask_time_length": 4},
}
CLASSES = {
    SEWDConfig: ["SEWDModel", "SEWDForCTC", "SEWDForSequenceClassification"],
    Wav2Vec2BertConfig: [
        "Wav2Vec2BertModel",
        "Wav2Vec2BertForCTC",
        "Wav2Vec2BertForSequenceClassification",
        "Wav2Vec2BertForAudioFrameClassification",
        "Wav2Vec2BertForXVector",
    ],
    UniSpeechConfig: [
        "UniSpeechModel",
        "UniSpeechForCTC",
        "UniSpeechForSequenceClassification",
        "UniSpeechForPreTraining",
    ],
}

COMMON = ["output_attentions", "output_hidden_states", "return_dict"]
FORWARD = {
    "SEWDModel": ["input_values", "attention_mask", "mask_time_indices", *COMMON],
    "SEWDForCTC": ["input_values", "attention_mask", *COMMON, "labels"],
    "SEWDForSequenceClassification": ["input_values", "attention_mask", *COMMON, "labels"],
    "Wav2Vec2BertModel": ["input_features", "attention_mask", "mask_time_indices", *COMMON],
    "Wav2Vec2BertForCTC": ["input_features", "attention_mask", *COMMON, "labels"],
    "Wav2Vec2BertForSequenceClassification": ["input_features", "attention_mask", *COMMON, "labels"],
    "Wav2Vec2BertForAudioFrameClassification": ["input_features", "attention_mask", "labels", *COMMON],
    "Wav2Vec2BertForXVector": ["input_features", "attention_mask", *COMMON, "labels"],
    "UniSpeechModel": ["input_values", "attention_mask", "mask_time_indices", *COMMON],
    "UniSpeechForCTC": ["input_values", "attention_mask", *COMMON, "labels"],
    "UniSpeechForSequenceClassification": ["input_values", "attention_mask", *COMMON, "labels"],
    # The last two are described on the page and missing in its signature.
    "UniSpeechForPreTraining": [
        "input_values",
        "attention_mask",
        *COMMON,
        "mask_time_indices",
        "sampled_negative_indices",
    ],
}

ROWS, HEADS, WIDTH, LAYERS = 2, 4, 32, 2


def inputs_of(config):
    """Two rows for a model of a configuration."""
    generator = torch.Generator().manual_seed(1)
    if config.model_type == "wav2vec2-bert":
        return torch.randn(2, 60, config.feature_projection_input_dim, generator=generator)
    return torch.randn(2, 1500, generator=generator)


def labels_of(name, logits):
    """Labels for a head, one of its rows with more tokens than frames can hold; none for a model without a head."""
    if name.endswith("ForCTC"):
        return torch.tensor([[5, 6, 7, 7], [8, 5, -100, -100]])
    if name.endswith("ForAudioFrameClassification"):
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
    return torch.tensor([1, 0]) if "For" in name and not name.endswith("ForPreTraining") else None


def seeded(call):
    torch.manual_seed(3)
    np.random.seed(3)
    return call()


def tiny_model(name, **flags):
    config_class = next(config for config, names in CLASSES.items() if name in names)
    torch.manual_seed(0)
    config = config_class(**{**TINY[config_class], "num_hidden_layers": LAYERS, "num_labels": 3, **flags})
    return getattr(raysp.models, name)(config).eval()
