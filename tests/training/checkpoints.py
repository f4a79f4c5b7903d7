"""Checkpoints of random weights that trainings begin with, besides those of tests/recipes.py."""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from raysp.models import (
    ParakeetCTCConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetProcessor,
    ParakeetTokenizer,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    Wav2Vec2Processor,
    parakeet_transducers,
)
from tests.recipes import SMALL, WORDS

CONFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "subsampling_conv_channels": 16,
    "layerdrop": 0.0,
    "initializer_range": 0.1,
    **dict.fromkeys(("dropout", "activation_dropout", "attention_dropout"), 0.0),
}
STABLE = {**SMALL, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
"""Fields of a wav2vec 2.0 that can have adapter layers."""
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
ENGLISH = {token: number for number, token in enumerate(LETTERS)}


def parakeet(folder: Path, kind: str = "CTC", **encoder: int) -> Path:
    """Write a Parakeet with a vocabulary of the digits, each of them a piece; `kind` CTC, RNNT or TDT."""
    pieces, special = ["<unk>", *(f"▁{word}" for word in WORDS), "▁"], ["<unk>", "<pad>"]
    if kind != "CTC":
        special.append("<blank>")
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens([AddedToken(one, special=True) for one in special])
    tokenizer = ParakeetTokenizer(backend, "ParakeetTokenizer", unk_token="<unk>", pad_token="<pad>")
    fields = {
        "encoder_config": {**CONFORMER, **encoder},
        "vocab_size": len(pieces) + len(special) - 1,
        "pad_token_id": len(pieces),
    }
    torch.manual_seed(0)
    if kind == "CTC":
        ParakeetForCTC(ParakeetCTCConfig(**fields)).save_pretrained(folder)
    else:
        fields |= {"decoder_hidden_size": 32, "num_decoder_layers": 1, "blank_token_id": len(pieces) + 1}
        config = getattr(parakeet_transducers, f"Parakeet{kind}Config")(**fields)
        getattr(parakeet_transducers, f"ParakeetFor{kind}")(config).save_pretrained(folder)
    ParakeetProcessor(ParakeetFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def without_adapters(folder: Path) -> Path:
    """Write a model that can have adapter layers, and has none."""
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config(**STABLE)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def of_english(folder: Path) -> Path:
    """Write a model with adapter layers and a head for English, as MMS has them."""
    model = _with_adapters(len(ENGLISH), seed=0)
    model.save_pretrained(folder)
    model.save_adapter(folder, "eng")
    tokenizer = Wav2Vec2CTCTokenizer({"eng": ENGLISH}, target_lang="eng")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer).save_pretrained(folder)
    return folder


def with_french(checkpoint: Path, folder: Path) -> Path:
    """Copy a model of English with a further language of one more token, whose weights are in its adapter's file."""
    shutil.copytree(checkpoint, folder)
    _with_adapters(len(ENGLISH) + 1, seed=1).save_adapter(folder, "fra")
    (folder / "vocab.json").write_text(json.dumps({"eng": ENGLISH, "fra": {**ENGLISH, "é": len(ENGLISH)}}))
    return folder


def _with_adapters(vocab_size: int, *, seed: int) -> Wav2Vec2ForCTC:
    torch.manual_seed(seed)
    return Wav2Vec2ForCTC(Wav2Vec2Config(**{**STABLE, "vocab_size": vocab_size, "adapter_attn_dim": 8}))
