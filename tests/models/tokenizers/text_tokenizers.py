"""Small vocabularies of text tokenizers, as files of checkpoints."""

import json
from pathlib import Path

WORDS = ["the", "a", "cat", "sat", "on", "mat", "##s", "##ting", "un", "##like", "##ly", "i", "m", "don", "t", "he"]
MARKS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"]
BERT_VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *MARKS, *(f"##{mark}" for mark in MARKS)]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġwor l", "Ġworl d", "Ġ t", "Ġt he"]


def write_bert_tokenizer(folder: Path, **config) -> None:
    """Write vocab.txt and tokenizer_config.json as bert-base has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(BERT_VOCAB)) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **config}))


def byte_characters() -> list[str]:
    """Return the printable characters that stand for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(256 - len(plain))]


def write_byte_tokenizer(folder: Path, tokenizer_class: str, special: list[str], **config) -> None:
    """Write vocab.json, merges.txt and tokenizer_config.json as gpt2 and bart have them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*special, *byte_characters(), *(merge.replace(" ", "") for merge in MERGES)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class, **config}))
