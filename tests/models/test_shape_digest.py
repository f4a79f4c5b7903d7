"""The digest by which certificates of packs are looked up: what decides kernels changes it, and nothing else does."""

import pytest
import torch

from raysp.models import (
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    check_checkpoint,
    checking,
    load_checkpoint,
)
from raysp.models.checking import shape_digest
from tests.corpora import CHECKPOINT

SIZES = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32, "vocab_size": 12,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def digest(**changed: object) -> str:
    with torch.device("meta"):
        return shape_digest([Wav2Vec2ForCTC(Wav2Vec2Config(**{**SIZES, **changed}))])


@pytest.mark.parametrize(
    "changed",
    [
        {"vocab_size": 13},
        {"num_hidden_layers": 3},
        {"intermediate_size": 40},
        {"num_attention_heads": 2},  # in no shape of a weight
        {"conv_stride": (5, 2, 2, 2, 2, 2, 1)},
        {"hidden_act": "relu"},
        {"feat_extract_norm": "layer"},
        {"do_stable_layer_norm": True},
        {"num_conv_pos_embedding_groups": 4},
    ],
)
def test_sizes_and_switches_change_it(changed):
    assert digest(**changed) != digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_dropout": 0.5, "layerdrop": 0.0},
        {"pad_token_id": 3, "bos_token_id": 4},
        {"mask_time_length": 7},
        {"layer_norm_eps": 1e-3},
        {"transformers_version": "9"},
        {"id2label": {0: "a", 1: "b"}},
    ],
)
def test_probabilities_tokens_names_and_training_do_not(changed):
    assert digest(**changed) == digest()


def test_another_way_of_computing_packs_changes_it(monkeypatch):
    before = digest()
    monkeypatch.setattr(checking, "WAY", checking.WAY + 1)
    assert digest() != before


def test_classes_and_heads_have_their_own():
    with torch.device("meta"):
        others = [
            HubertForCTC(HubertConfig(**SIZES)),
            Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**SIZES)),
        ]
    assert len({digest(), *(shape_digest([one]) for one in others), shape_digest(others)}) == 4


def test_a_checkpoint_has_that_of_its_loaded_model():
    loaded = load_checkpoint(CHECKPOINT)
    assert check_checkpoint(CHECKPOINT).shapes == loaded.summary.shapes
    with torch.device("meta"):
        assert loaded.summary.shapes == shape_digest([type(loaded.model)(loaded.model.config)])
