"""A small vocabulary of phonemes, as files of checkpoints."""

import json
from pathlib import Path

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
