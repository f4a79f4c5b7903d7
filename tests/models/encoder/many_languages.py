"""A small random checkpoint with the layout of MMS: adapters of languages, a vocabulary each, one announced."""

import json
from pathlib import Path

import torch

from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
from tests.models.oracles import TINY

SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4}
FLAGS = {**TINY, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True, "adapter_attn_dim": 8}


def vocabulary(number: int) -> dict[str, int]:
    """Return the vocabulary of the n-th language: its letters and their number differ."""
    letters = [chr(0x61 + number), *(chr(0x400 + 40 * number + place) for place in range(6 + number))]
    return {**SPECIAL, **{letter: len(SPECIAL) + place for place, letter in enumerate(letters)}}


def model_of(number: int, **flags: object) -> Wav2Vec2ForCTC:
    """Return a random model with the head of the n-th language."""
    torch.manual_seed(number)
    return Wav2Vec2ForCTC(Wav2Vec2Config(**{**FLAGS, "vocab_size": len(vocabulary(number)), **flags})).eval()


def lay_out(folder: Path, languages: list[str], *, announced: str | None = None, **flags: object) -> Path:
    """Write a checkpoint whose weights are those of the announced language, by default the first."""
    announced = announced or languages[0]
    for number, language in enumerate(languages):
        model = model_of(number, **flags)
        with torch.no_grad():
            model.lm_head.weight.mul_(20)  # so that texts have other tokens than the blank
        model.save_adapter(folder, language)
        if language == announced:
            model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    vocabularies = {language: vocabulary(number) for number, language in enumerate(languages)}
    (folder / "vocab.json").write_text(json.dumps(vocabularies))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "target_lang": announced, "word_delimiter_token": "|"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, **config}))
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    return folder
