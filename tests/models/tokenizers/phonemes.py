"""Checkpoints that write phonemes: small and random, with the files that published ones have."""

import json
from pathlib import Path

import torch

from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

PHONEMES = ["<pad>", "<s>", "</s>", "<unk>", "n", "s", "t", "ə", "tʃ", "ɔː", "l", "ɛ", "oʊ", "dʒ", "ɪ", "ɹ", "k", "æ"]
SETTINGS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "phone_delimiter_token": " ",
    "word_delimiter_token": None,
    "do_phonemize": True,
    "phonemizer_lang": "en-us",
    "phonemizer_backend": "espeak",
    "tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer",
}


def write_tokenizer(folder: Path, *, words: bool = False, **settings: object) -> Path:
    """Write vocab.json and tokenizer_config.json; `words`: with a token between words."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*PHONEMES, "|"] if words else PHONEMES
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    more = {"word_delimiter_token": "|"} if words else {}
    (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, **more, **settings}))
    return folder


def save_phonemes(folder: Path, *, words: bool = False, **settings: object) -> Path:
    """Write a random checkpoint."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(PHONEMES) + words, pad_token_id=0, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, conv_dim=(16, 24, 24), conv_stride=(10, 8, 4), conv_kernel=(16, 8, 4),
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # frames of several tokens
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return write_tokenizer(folder, words=words, **settings)
