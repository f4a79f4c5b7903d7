"""A small vocabulary of word pieces, as a checkpoint of Parakeet's CTC models has it."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from raysp import models as own
from raysp.models import (
    ParakeetCTCConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForRNNT,
    ParakeetProcessor,
    ParakeetTokenizer,
)
from tests.models.tokenizers.small import fields_of

PIECES = ["<unk>", "▁", "▁t", "he", "▁the", "▁cat", "s", "at", "▁s", "▁on", "▁m", ".", *"atheonm"]


def backend(*special: str) -> Tokenizer:
    """Return a tokenizer with the pieces and behind them special tokens, by default the blank of CTC."""
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in PIECES], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in ("<unk>", *(special or ("<pad>",)))])
    return tokenizer


def tokenizer() -> ParakeetTokenizer:
    """Return the tokenizer of `save_parakeet`."""
    return ParakeetTokenizer(backend(), "ParakeetTokenizer", unk_token="<unk>", pad_token="<pad>")


def save_parakeet(folder: Path, seed: int = 0, **flags: object) -> ParakeetForCTC:
    """Write a random checkpoint whose texts are long, and return its model."""
    torch.manual_seed(seed)
    flags = {"initializer_range": 1.0, "scale_input": False, **flags}
    model = ParakeetForCTC(ParakeetCTCConfig(**fields_of("ParakeetForCTC", flags))).eval()
    model.save_pretrained(folder)
    extractor = ParakeetFeatureExtractor(feature_size=model.encoder_config.num_mel_bins)
    ParakeetProcessor(extractor, tokenizer()).save_pretrained(folder)
    assert len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) == len(PIECES)
    return model


@torch.no_grad()
def save_transducer(folder: Path, kind: str, seed: int = 0) -> ParakeetForRNNT:
    """Write a random checkpoint of "RNNT" or "TDT", with special tokens as published, and return its model."""
    torch.manual_seed(seed)
    special = ("<pad>", "<blank>") if kind == "TDT" else ("<blank>",)
    size = len(PIECES) + len(special)
    flags = {"initializer_range": 1.0, "scale_input": False, "vocab_size": size, "blank_token_id": size - 1}
    if kind == "RNNT":
        flags["max_symbols_per_step"] = 3  # random weights write as many at almost every frame
    name = f"ParakeetFor{kind}"
    config = getattr(own, f"Parakeet{kind}Config")(
        **fields_of(name, {**flags, "pad_token_id": len(PIECES) if kind == "TDT" else 0})
    )
    model: ParakeetForRNNT = getattr(own, name)(config).eval()
    model.joint.head.bias[size - 1] += 4.0  # about as many blanks as tokens
    model.save_pretrained(folder)
    extractor = ParakeetFeatureExtractor(feature_size=model.encoder_config.num_mel_bins)
    tokenizer = ParakeetTokenizer(backend(*special), "ParakeetTokenizer", unk_token="<unk>", pad_token=special[0])
    ParakeetProcessor(extractor, tokenizer).save_pretrained(folder)
    return model
