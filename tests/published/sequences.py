"""Layouts of models that write texts, and of those that transformers runs."""

from typing import Any

from tests.published.ctc import BOTH, SAFE
from tests.published.layout import CONFIG, FRONT, PICKLE, TENSORFLOW, Layout

WHISPER_FILES = (
    *FRONT, "generation_config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json",
    "merges.txt", "normalizer.json", "special_tokens_map.json", "vocab.json",
)  # fmt: skip
TRANSLATOR_FILES = (
    *FRONT, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "sentencepiece.bpe.model"
)  # fmt: skip
WINDOWS = {"window_seconds": 2, "overlap_seconds": 0.5}
MBART_TOKENS = {
    "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
    "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
PROCESSED = (*CONFIG, "processor_config.json", "tokenizer_config.json")
PROMPTED = (*PROCESSED, "generation_config.json", "chat_template.jinja", "tokenizer.json", *SAFE)


def by_transformers(builds: str, files: tuple[str, ...], outputs: tuple[str, ...], **values: Any) -> Layout:
    return Layout(builds, files, outputs=outputs, backend="transformers", **values)


def translator(weights: tuple[str, ...], kept: str = "decoder.lm_head.weight", **values: Any) -> Layout:
    """Return a layout of XLS-R with an mBART-50 decoder, without one of the two names of the head's weight."""
    names = {"decoder.lm_head.weight", "decoder.model.decoder.embed_tokens.weight"}
    tokenizer = {**MBART_TOKENS, "src_lang": "en_XX", "tgt_lang": None, "tokenizer_class": "MBart50Tokenizer"}
    return Layout(
        "translation",
        (*TRANSLATOR_FILES, *weights),
        outputs=("Transcript", "Embedding"),
        written={"untied": (names - {kept}).pop()},
        tokenizer=tokenizer,
        special=MBART_TOKENS,
        **values,
    )


def whisper(*files: str, **values: Any) -> Layout:
    return by_transformers(
        "whisper", (*WHISPER_FILES, *SAFE, *files), ("Transcript", "Embedding"), label=WINDOWS, **values
    )


SEQUENCES: dict[str, Layout] = {
    "facebook/wav2vec2-xls-r-300m-21-to-en": translator((PICKLE,)),
    "facebook/wav2vec2-xls-r-300m-en-to-15@refs/pr/3": translator(BOTH),
    "nvidia/parakeet-ctc-1.1b": Layout(
        "parakeet",
        (*PROCESSED, "tokenizer.json", *SAFE, "parakeet-ctc-1.1b.nemo"),
        outputs=("Transcript", "Embedding"),
    ),
    "nvidia/parakeet-tdt-0.6b-v3": Layout(
        "parakeet_tdt",
        (*PROCESSED, "generation_config.json", "tokenizer.json", *SAFE, "parakeet-tdt-0.6b-v3.nemo"),
        outputs=("Transcript", "Embedding"),
    ),
    "Qwen/Qwen3-ASR-1.7B-hf": by_transformers("qwen3_asr", PROMPTED, ("Transcript",)),
    "CohereLabs/cohere-transcribe-03-2026": by_transformers("cohere_asr", PROMPTED, ("Transcript",), language="de"),
    "openai/whisper-tiny.en": whisper(PICKLE, TENSORFLOW, written={"english": True}),
    "openai/whisper-small": whisper(PICKLE, TENSORFLOW),
    "openai/whisper-large-v3-turbo": whisper(),
}
