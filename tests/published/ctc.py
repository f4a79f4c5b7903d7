"""Layouts of recognisers with a CTC head."""

from typing import Any

from tests.published.layout import FLAX, LETTERS, PICKLE, SAFETENSORS, TENSORFLOW, TOKENS, Layout

OUTPUTS = ("Transcript", "Align", "Embedding")
FRONT: dict[str, Any] = {
    "do_normalize": True,
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "sampling_rate": 16000,
}
"""preprocessor_config.json of 2021, without the type of the feature extractor."""
TYPED = {**FRONT, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
LM_FRONT = {**TYPED, "processor_class": "Wav2Vec2ProcessorWithLM"}
LARGE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
OLD = {
    "gradient_checkpointing": True,
    "hidden_dropout_prob": 0.1,
    "feat_extract_dropout": 0.0,
    "num_feat_extract_layers": 7,
    "mask_channel_length": 10,
    "mask_channel_min_space": 1,
    "mask_channel_other": 0.0,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "mask_time_min_space": 1,
    "mask_time_other": 0.0,
    "mask_time_selection": "static",
}
"""Keys of config.json that no model reads."""
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TUTORIAL_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]"}
LANGUAGE_MODEL = (
    "language_model/attrs.json",
    "language_model/lm.binary",
    "language_model/unigrams.txt",
    "alphabet.json",
)
ATTRS = '{"alpha": 0.5, "beta": 1.5, "unk_score_offset": -10.0, "score_boundary": true}'
ALPHABET_1 = "abcdefghijklmnopqrstuvwxyz"


def letters(tokens: str, first: tuple[str, ...] = ("<pad>", "<s>", "</s>", "<unk>", "|")) -> dict[str, int]:
    """Return a vocabulary that begins with special tokens."""
    return {token: index for index, token in enumerate([*first, *tokens])}


def tutorial(tokens: str) -> dict[str, int]:
    """Return a vocabulary as the well-known tutorial of fine-tuning makes it: specials at its end, space as "|"."""
    return {token: index for index, token in enumerate(["|", *tokens, "[UNK]", "[PAD]"])}


UPPER = letters("ETAONIHSRDLUMWCFGYPBVK'XJQZ")
BASE_960H = {
    "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "do_lower_case": False,
    "return_attention_mask": False, "do_normalize": True,
}  # fmt: skip


def grosman(vocab: dict[str, int], *files: str, weights: tuple[str, ...] = (PICKLE, FLAX), **values: Any) -> Layout:
    """Return a layout of jonatasgrosman/wav2vec2-large-xlsr-53-*: no tokenizer_config.json."""
    return Layout(
        "Wav2Vec2ForCTC",
        (*LETTERS, *files, *weights),
        outputs=OUTPUTS,
        fields={**LARGE, "vocab_size": len(vocab), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        written=OLD,
        vocab=vocab,
        special=SPECIAL,
        **{"front": FRONT, **values},
    )


def tuned(vocab: dict[str, int], weights: tuple[str, ...], *files: str, **values: Any) -> Layout:
    """Return a layout of a fine-tuned XLSR or XLS-R model, as the tutorial saves it."""
    pad = vocab.get("[PAD]", vocab.get("<pad>", 0))
    tokenizer = {
        "unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]", "do_lower_case": False,
        "word_delimiter_token": "|",
    }  # fmt: skip
    return Layout(
        "Wav2Vec2ForCTC",
        (*TOKENS, *files, *weights),
        outputs=OUTPUTS,
        fields={**LARGE, "pad_token_id": pad, "vocab_size": len(vocab), **values.pop("fields", {})},
        vocab=vocab,
        **{"front": TYPED, "tokenizer": tokenizer, "special": TUTORIAL_SPECIAL, "written": OLD, **values},
    )


PICKLES = (PICKLE,)
SAFE = (SAFETENSORS,)
BOTH = (PICKLE, SAFETENSORS)
WITH_LM = {"front": LM_FRONT, "contents": {"language_model/attrs.json": ATTRS}}

CTC: dict[str, Layout] = {
    "facebook/wav2vec2-base-960h": Layout(
        "Wav2Vec2ForCTC",
        (*TOKENS, "feature_extractor_config.json", *BOTH, TENSORFLOW),
        outputs=OUTPUTS,
        fields={"vocab_size": 32, "pad_token_id": 0},
        written={"gradient_checkpointing": False, "hidden_dropout_prob": 0.1, "num_feat_extract_layers": 7},
        front={**TYPED, "return_attention_mask": False},
        vocab=UPPER,
        tokenizer=BASE_960H,
        special=SPECIAL,

    ),
    "facebook/hubert-large-ls960-ft": Layout(
        "HubertForCTC",
        (*TOKENS, *BOTH, TENSORFLOW),
        outputs=OUTPUTS,
        fields={**LARGE, "vocab_size": 32, "pad_token_id": 0},
        written={"tokenizer_class": "Wav2Vec2CTCTokenizer", "gradient_checkpointing": False},
        front=TYPED,
        vocab=UPPER,
        tokenizer={"processor_class": "Wav2Vec2Processor", "word_delimiter_token": "|", **SPECIAL},
        special=SPECIAL,
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-english": grosman(
        letters("'-" + ALPHABET_1), *LANGUAGE_MODEL, "eval.py", weights=(*BOTH, FLAX), **WITH_LM
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-german": grosman(
        letters("'-" + ALPHABET_1 + "ßàáâãäçèéêëíñóôöùúûüōœ"[:10]), *LANGUAGE_MODEL, **WITH_LM
    ),
    "MahmoudAshraf/mms-300m-1130-forced-aligner": Layout(
        "Wav2Vec2ForCTC",
        (*TOKENS, SAFETENSORS),
        outputs=OUTPUTS,
        fields={**LARGE, "vocab_size": 31, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        front=TYPED,
        vocab=letters("aienoutsrmkldghybpwcvjzf'qx", ("<blank>", "<pad>", "</s>", "<unk>")),
        tokenizer={
            "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<blank>",
            "word_delimiter_token": None, "do_lower_case": False, "replace_word_delimiter_char": " ",
            "target_lang": None, "tokenizer_class": "Wav2Vec2CTCTokenizer",
        },
        special={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<blank>", "unk_token": "<unk>"},

    ),
}  # fmt: skip
