"""Layouts of the recognisers that WhisperX aligns with, by language, besides those of `ctc.py`."""

from typing import Any

from tests.published.ctc import (
    BOTH,
    LANGUAGE_MODEL,
    OUTPUTS,
    PICKLES,
    SAFE,
    SPECIAL,
    TUTORIAL_SPECIAL,
    WITH_LM,
    grosman,
    letters,
    tuned,
    tutorial,
)
from tests.published.layout import FLAX, Layout

LATIN = "abcdefghijklmnopqrstuvwxyz"
HAN = "".join(chr(0x4E00 + 7 * index) for index in range(300))
KANA = "".join(map(chr, range(0x3041, 0x3097)))
HANGUL = "".join(chr(0xAC00 + 9 * index) for index in range(300))
DEVANAGARI = "".join(map(chr, range(0x0905, 0x094E)))
SEQUENCES = {
    "content": "<s>",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": True,
    "__type": "AddedToken",
}


def sprint(tokens: str, **values: Any) -> Layout:
    """Return a layout of the XLSR fine-tuning week of 2021: a pickle and a copy for JAX."""
    return tuned(tutorial(tokens), (*PICKLES, FLAX), **values)


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


ALIGNERS: dict[str, Layout] = {
    "jonatasgrosman/wav2vec2-large-xlsr-53-japanese": grosman(letters(KANA + HAN), facts="memory"),
    "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn": grosman(letters("'" + HAN), facts="memory"),
    "jonatasgrosman/wav2vec2-large-xlsr-53-dutch": grosman(
        letters("'-" + LATIN + "àáâäçèéêëíïöü"), *LANGUAGE_MODEL, facts="memory", **WITH_LM
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-portuguese": grosman(
        letters("'-" + LATIN + "àáâãçéêíóôõúü"), *LANGUAGE_MODEL, facts="memory", **WITH_LM
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-arabic": grosman(
        letters("".join(map(chr, range(0x0621, 0x0653)))), facts="memory"
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-polish": grosman(
        letters("'-" + LATIN + "óąćęłńśźż"), *LANGUAGE_MODEL, facts="memory", **WITH_LM
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-hungarian": grosman(letters("-" + LATIN + "áéíóöúüőű"), facts="memory"),
    "jonatasgrosman/wav2vec2-large-xlsr-53-finnish": grosman(letters("'-" + LATIN + "äåö"), facts="memory"),
    "jonatasgrosman/wav2vec2-large-xlsr-53-persian": grosman(
        letters("".join(map(chr, range(0x0621, 0x064B))) + "پچژکگی‌"), facts="memory"
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-greek": grosman(
        letters("αβγδεζηθικλμνξοπρςστυφχψωάέήίόύώϊϋΐΰ"), facts="memory"
    ),
    "Yehor/wav2vec2-xls-r-300m-uk-with-small-lm": event(
        "'-абвгдежзийклмнопрстуфхцчшщьюяєіїґ", *LANGUAGE_MODEL, weights=BOTH, **WITH_LM
    ),
    "comodoro/wav2vec2-xls-r-300m-cs-250": event(LATIN + "áčďéěíňóřšťúůýž"),
    "comodoro/wav2vec2-xls-r-300m-sk-cv8": event(LATIN + "áäčďéíĺľňóôŕšťúýž"),
    "mpoyraz/wav2vec2-xls-r-300m-cv7-turkish": event(LATIN + "çöüğış", *LANGUAGE_MODEL, **WITH_LM),
    "saattrupdan/wav2vec2-xls-r-300m-ftspeech": event(LATIN + "åæéøü0123456789"),
    "imvladikon/wav2vec2-xls-r-300m-hebrew": event("אבגדהוזחטיךכלםמןנסעףפץצקרשת'\""),
    "nguyenvulebinh/wav2vec2-base-vi-vlsp2020": tuned(
        letters(LATIN + "àáâãèéêìíòóôõùúýăđĩũơư"), PICKLES, "added_tokens.json", "model_handling.py", *LANGUAGE_MODEL,
        facts="page", special=SPECIAL, added={"<s>": 1, "</s>": 2}, tokenizer={**SPECIAL, "word_delimiter_token": "|"},
        **WITH_LM,
    ),
    "kresnik/wav2vec2-large-xlsr-korean": sprint(HANGUL),
    "kingabzpro/wav2vec2-large-xls-r-300m-Urdu": event(
        "".join(map(chr, range(0x0621, 0x0653))) + "ٹپچڈڑژکگںھہیے", *LANGUAGE_MODEL, weights=BOTH, **WITH_LM
    ),
    "anuragshas/wav2vec2-large-xlsr-53-telugu": sprint("".join(map(chr, range(0x0C05, 0x0C4E)))),
    "theainerd/Wav2Vec2-large-xlsr-hindi": sprint(DEVANAGARI),
    "softcatala/wav2vec2-large-xlsr-catala": sprint("'-·" + LATIN + "àçèéíïòóúü"),
    "gvs/wav2vec2-large-xlsr-malayalam": sprint("".join(map(chr, range(0x0D05, 0x0D4E)))),
    "NbAiLab/nb-wav2vec2-1b-bokmaal-v2": event(LATIN + "åæéøüó", *LANGUAGE_MODEL, weights=BOTH, **WITH_LM),
    "NbAiLab/nb-wav2vec2-1b-nynorsk": event(LATIN + "åæéøüò", *LANGUAGE_MODEL, weights=BOTH, **WITH_LM),
    "anton-l/wav2vec2-large-xlsr-53-slovenian": sprint(LATIN + "čšž"),
    "classla/wav2vec2-xls-r-parlaspeech-hr": event(LATIN + "ćčđšž"),
    "gigant/romanian-wav2vec2": event(LATIN + "âîășț", *LANGUAGE_MODEL, **WITH_LM),
    "stefan-it/wav2vec2-large-xlsr-53-basque": sprint(LATIN + "ñ"),
    "ifrz/wav2vec2-large-xlsr-galician": sprint(LATIN + "áéíñóúü"),
    "xsway/wav2vec2-large-xlsr-georgian": sprint("".join(map(chr, range(0x10D0, 0x10F1)))),
    "jimregan/wav2vec2-large-xlsr-latvian-cv": sprint(LATIN + "āčēģīķļņšūž"),
    "Khalsuu/filipino-wav2vec2-l-xls-r-300m-official": event(LATIN + "ñ"),
    "alvanlii/wav2vec2-BERT-cantonese": Layout(
        "Wav2Vec2BertForCTC",
        (*event(HAN, weights=SAFE).files, "training_args.bin"),
        outputs=OUTPUTS,
        fields={"vocab_size": 304, "pad_token_id": 302, "add_adapter": True, "adapter_stride": 2},
        vocab={token: index for index, token in enumerate([*HAN, "|", "[UNK]", "[PAD]"])} | {"a": 303},
        special=TUTORIAL_SPECIAL,
        front={
            "feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "num_mel_bins": 80,
            "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 16000,
            "stride": 2, "processor_class": "Wav2Vec2BertProcessor",
        },
        tokenizer={
            **TUTORIAL_SPECIAL, "do_lower_case": False, "word_delimiter_token": "|", "replace_word_delimiter_char": " ",
            "target_lang": None, "tokenizer_class": "Wav2Vec2CTCTokenizer", "clean_up_tokenization_spaces": True,
            "model_max_length": 1000000000000000019884624838656,
        },
    ),
}  # fmt: skip
