"""A small vocabulary of word pieces, as a checkpoint of Parakeet's CTC models has it."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from raysp.models import ParakeetFeatureExtractor, ParakeetForCTC, ParakeetProcessor, ParakeetTokenizer
from raysp.models.parakeet import ParakeetCTCConfig
from tests.models.tokenizers.small import fields_of

PIECES = [
    "<unk>",
    "▁",
    "▁t",
    "he",
    "▁the",
    "▁cat",
    "s",
    "at",
    "▁s",
    "▁on",
    "▁m",
    ".",
    "a",
    "t",
    "h",
    "e",
    "o",
    "n",
    "m",
]


def backend() -> Tokenizer:
    """Return a tokenizer with the pieces and, as the last one, the blank."""
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in PIECES], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True), AddedToken("<pad>", special=True)])
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
