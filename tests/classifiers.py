"""Small random classifiers of recordings and of frames, and models of speakers."""

from pathlib import Path
from typing import Any

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
    labels = {"id2label": dict(enumerate(names)), "problem_type": problem}
    return _saved(folder, UniSpeechForSequenceClassification, UniSpeechConfig(**SMALL, **labels))


def make_speaker_model(folder: Path) -> str:
    """Write a model with an x-vector head into a folder, and return the folder."""
    return _saved(
        folder, Wav2Vec2ForXVector, Wav2Vec2Config(**SMALL, tdnn_dim=(16, 16, 16, 16, 24), xvector_output_dim=12)
    )


def make_frame_classifier(folder: Path, *names: str) -> str:
    """Write a classifier of frames of 5 ms with classes of these names into a folder, and return the folder."""
    return _saved(folder, Wav2Vec2ForAudioFrameClassification, Wav2Vec2Config(**SMALL, id2label=dict(enumerate(names))))


def _saved(folder: Path, model: Any, config: Any) -> str:
    torch.manual_seed(1)
    model(config).init_weights().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return str(folder)
