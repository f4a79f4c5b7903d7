"""Layouts of recognisers with phonemes, with adapters of languages, by transformers alone, and of tutorials."""

from typing import Any

from tests.published.ctc import (
    BASE_960H,
    BOTH,
    LANGUAGE_MODEL,
    LARGE,
    OUTPUTS,
    PICKLES,
    SAFE,
    SPECIAL,
    TUTORIAL_SPECIAL,
    TYPED,
    UPPER,
    WITH_LM,
    letters,
    tuned,
    tutorial,
)
from tests.published.encoders import UNMASKED
from tests.published.layout import PICKLE, TOKENS, Layout

LATIN = "abcdefghijklmnopqrstuvwxyz"
SEQUENCES = {
    "content": "<s>",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": True,
    "__type": "AddedToken",
}


def event(tokens: str, *files: str, weights: tuple[str, ...] = PICKLES, **values: Any) -> Layout:
    """Return a layout of the robust speech event of 2022: sentence tokens beyond vocab.json, which the head has."""
    vocab = tutorial(tokens)
    start, end = len(vocab), len(vocab) + 1
    extra = [SEQUENCES, {**SEQUENCES, "content": "</s>"}] * 3
    return tuned(
        vocab,
        weights,
        "added_tokens.json",
        *files,
        fields={"vocab_size": len(vocab) + 2},
        added={"<s>": start, "</s>": end},
        special={**TUTORIAL_SPECIAL, "additional_special_tokens": extra},
        **values,
    )


PHONEMES = letters("", ("<pad>", "<s>", "</s>", "<unk>")) | {
    token: index + 4
    for index, token in enumerate(
        ["n", "s", "t", "ə", "l", "a", "i", "k", "d", "m", "ɛ", "aɪ", "tʃ", "oː", "eɪ", "ts."]
    )
}
ESPEAK = {
    **SPECIAL, "do_lower_case": False, "word_delimiter_token": None, "phone_delimiter_token": " ",
    "phonemizer_lang": "en-us", "phonemizer_backend": "espeak", "do_phonemize": True, "return_attention_mask": True,
    "do_normalize": True, "tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer",
}  # fmt: skip


def phonemes(builds: str, files: tuple[str, ...], **values: Any) -> Layout:
    """Return a layout of a recogniser of phonemes."""
    vocab = values.pop("vocab", PHONEMES)
    return Layout(
        builds,
        (*TOKENS, *files),
        outputs=OUTPUTS,
        fields={**LARGE, "vocab_size": len(vocab), "pad_token_id": 0},
        written={"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"},
        vocab=vocab,
        special=SPECIAL,
        front=TYPED,
        **{"tokenizer": ESPEAK, **values},
    )


def adapted(languages: dict[str, str], **values: Any) -> Layout:
    """Return a layout of MMS: one encoder, and adapters with a head and a vocabulary for each language."""
    vocab = {name: letters(tokens, ("<pad>", "<s>", "</s>", "<unk>", "|")) for name, tokens in languages.items()}
    return Layout(
        "Wav2Vec2ForCTC",
        (*TOKENS, *BOTH, *(f"adapter.{name}.{kind}" for name in languages for kind in ("bin", "safetensors"))),
        outputs=OUTPUTS,
        fields={**LARGE, "vocab_size": len(vocab["eng"]), "pad_token_id": 0, "adapter_attn_dim": 8},
        vocab=vocab,
        special=SPECIAL,
        front=TYPED,
        tokenizer={
            **SPECIAL, "do_lower_case": False, "word_delimiter_token": "|", "replace_word_delimiter_char": " ",
            "target_lang": "eng", "tokenizer_class": "Wav2Vec2CTCTokenizer", "clean_up_tokenization_spaces": True,
        },

        **values,
    )  # fmt: skip


LANGUAGES = {"eng": "-'" + LATIN, "deu": LATIN + "äöüß", "tur": LATIN + "çğıöşü", "uzb-script_cyrillic": "абвгдежзий"}
BY_TRANSFORMERS = {
    "written": {"tokenizer_class": "Wav2Vec2CTCTokenizer"},
    "vocab": UPPER,
    "tokenizer": BASE_960H,
    "special": SPECIAL,
    "backend": "transformers",
}
HEAD = {"vocab_size": 32, "pad_token_id": 0}

FURTHER: dict[str, Layout] = {
    "Yehor/wav2vec2-xls-r-300m-uk-with-small-lm": event(
        "'-абвгдежзийклмнопрстуфхцчшщьюяєіїґ", *LANGUAGE_MODEL, weights=BOTH, **WITH_LM
    ),
    "facebook/wav2vec2-lv-60-espeak-cv-ft": phonemes("Wav2Vec2ForCTC", (PICKLE,)),
    "microsoft/unispeech-1350-en-353-fr-ft-1h": phonemes(
        "UniSpeechForCTC",
        (PICKLE,),
        vocab={**PHONEMES, "|": len(PHONEMES)},
        tokenizer={**ESPEAK, "word_delimiter_token": "|"},
    ),
    "facebook/mms-1b-all": adapted(LANGUAGES),
    "asapp/sew-d-tiny-100k-ft-ls100h": Layout(
        "SEWDForCTC", (*TOKENS, *BOTH), outputs=OUTPUTS, fields=HEAD, vocab=UPPER, special=SPECIAL, front=UNMASKED,
        tokenizer={**BASE_960H, "tokenizer_class": "Wav2Vec2CTCTokenizer"},
    ),
    "patrickvonplaten/wavlm-libri-clean-100h-base-plus": Layout(
        "WavLMForCTC", (*TOKENS, PICKLE, "training_args.bin"), outputs=OUTPUTS, fields=HEAD, front=UNMASKED,
        **BY_TRANSFORMERS,
    ),
    "ylacombe/w2v-bert-2.0-mongolian-colab-CV16.0": Layout(
        "Wav2Vec2BertForCTC",
        (*event("", weights=SAFE).files, "training_args.bin", "runs/events.out.tfevents"),
        outputs=OUTPUTS,
        fields={"vocab_size": 42, "pad_token_id": 37, "add_adapter": True},
        vocab={token: index for index, token in enumerate(["|", *"абвгдежзийклмнопрстуфхцчшъыьэюяёөү"])}
        | {"—": 35, "[UNK]": 36, "[PAD]": 37, "«": 38, "»": 39},
        added={"<s>": 40, "</s>": 41},
        special=TUTORIAL_SPECIAL,
        front={
            "feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "num_mel_bins": 80,
            "padding_side": "right", "padding_value": 1, "return_attention_mask": True, "sampling_rate": 16000,
            "stride": 2, "processor_class": "Wav2Vec2BertProcessor",
        },
        tokenizer={
            **TUTORIAL_SPECIAL, "do_lower_case": False, "word_delimiter_token": "|", "replace_word_delimiter_char": " ",
            "target_lang": None, "tokenizer_class": "Wav2Vec2CTCTokenizer", "clean_up_tokenization_spaces": True,
            "added_tokens_decoder": {
                str(index): {"content": token, "lstrip": True, "normalized": False, "rstrip": True, "special": False}
                for index, token in ((36, "[UNK]"), (37, "[PAD]"))
            } | {
                str(index): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "special": True}
                for index, token in ((40, "<s>"), (41, "</s>"))
            },
        },
    ),
}  # fmt: skip
