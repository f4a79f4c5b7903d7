"""Small random classifiers of recordings and of frames, and models of speakers."""

from pathlib import Path

import torch

from raysp.models import (
    UniSpeechConfig,
    UniSpeechForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForXVector,
)

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": (16, 16), "conv_stride": (10, 8), "conv_kernel": (16, 8), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def make_classifier(folder: Path, *names: str, problem: str | None = None) -> str:
    """Write a classifier with classes of these names into a folder, and return the folder."""
    torch.manual_seed(1)
    config = UniSpeechConfig(**SMALL, id2label=dict(enumerate(names)), problem_type=problem)
    UniSpeechForSequenceClassification(config).init_weights().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return str(folder)


def make_speaker_model(folder: Path) -> str:
    """Write a model with an x-vector head into a folder, and return the folder."""
    torch.manual_seed(1)
    config = Wav2Vec2Config(**SMALL, tdnn_dim=(16, 16, 16, 16, 24), xvector_output_dim=12)
    Wav2Vec2ForXVector(config).init_weights().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return str(folder)


def make_frame_classifier(folder: Path, *names: str) -> str:
    """Write a classifier of frames of 5 ms with classes of these names into a folder, and return the folder."""
    torch.manual_seed(1)
    config = Wav2Vec2Config(**SMALL, id2label=dict(enumerate(names)))
    Wav2Vec2ForAudioFrameClassification(config).init_weights().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return str(folder)
