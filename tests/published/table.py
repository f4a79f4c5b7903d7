"""The table of published layouts, by hub id, some with a revision."""

from typing import Any

from tests.models.encoder.many_languages import vocabulary
from tests.models.tokenizers.phonemes import PHONEMES, SETTINGS
from tests.published.layout import CONFIG, FRONT, LETTERS, PICKLE, SAFETENSORS, TOKENS, Layout

BOTH = (PICKLE, SAFETENSORS)
FLAX, TENSORFLOW = "flax_model.msgpack", "tf_model.h5"
UNTYPED: dict[str, Any] = {
    "do_normalize": True, "feature_size": 1, "padding_side": "right", "padding_value": 0.0,
    "return_attention_mask": True, "sampling_rate": 16000,
}  # fmt: skip
"""preprocessor_config.json of 2021, without the type of the feature extractor."""
TYPED = {**UNTYPED, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
UNMASKED = {**TYPED, "return_attention_mask": False}
SEAMLESS = {
    "feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "num_mel_bins": 80,
    "padding_side": "right", "padding_value": 1, "return_attention_mask": True, "sampling_rate": 16000, "stride": 2,
}  # fmt: skip
LARGE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
OLD = {"gradient_checkpointing": True, "hidden_dropout_prob": 0.1, "mask_time_selection": "static"}
"""Keys of config.json that no model reads."""


def classes(names: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def letters(tokens: str, first: tuple[str, ...] = ("<pad>", "<s>", "</s>", "<unk>", "|")) -> dict[str, int]:
    """Return a vocabulary that begins with special tokens."""
    return {token: index for index, token in enumerate([*first, *tokens])}


# Recognisers with a CTC head

TEXTS = ("Transcript", "Align", "Embedding")
LATIN = "abcdefghijklmnopqrstuvwxyz"
UPPER = letters("ETAONIHSRDLUMWCFGYPBVK'XJQZ")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TUTORIAL = {**SPECIAL, "unk_token": "[UNK]", "pad_token": "[PAD]"}
BASE_960H = {**SPECIAL, "do_lower_case": False, "return_attention_mask": False, "do_normalize": True}
LANGUAGE_MODEL = (
    "language_model/attrs.json", "language_model/lm.binary", "language_model/unigrams.txt", "alphabet.json",
)  # fmt: skip
ATTRS = '{"alpha": 0.5, "beta": 1.5, "unk_score_offset": -10.0, "score_boundary": true}'
WITH_LM = {
    "front": {**TYPED, "processor_class": "Wav2Vec2ProcessorWithLM"},
    "contents": {"language_model/attrs.json": ATTRS},
}


def grosman(vocab: dict[str, int], *weights: str) -> Layout:
    """Return a layout of jonatasgrosman/wav2vec2-large-xlsr-53-*: no tokenizer_config.json."""
    return Layout(
        "Wav2Vec2ForCTC",
        (*LETTERS, *LANGUAGE_MODEL, *weights),
        outputs=TEXTS,
        fields={**LARGE, "vocab_size": len(vocab), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        written=OLD,
        vocab=vocab,
        special=SPECIAL,
        **WITH_LM,
    )


LANGUAGES = ["eng", "deu", "tur", "uzb-script_cyrillic"]
CTC = {
    "facebook/wav2vec2-base-960h": Layout(
        "Wav2Vec2ForCTC",
        (*TOKENS, "feature_extractor_config.json", *BOTH, TENSORFLOW),
        outputs=TEXTS,
        fields={"vocab_size": 32, "pad_token_id": 0},
        written={"gradient_checkpointing": False, "hidden_dropout_prob": 0.1, "num_feat_extract_layers": 7},
        front=UNMASKED,
        vocab=UPPER,
        tokenizer=BASE_960H,
        special=SPECIAL,
    ),
    "jonatasgrosman/wav2vec2-large-xlsr-53-english": grosman(letters("'-" + LATIN), *BOTH, FLAX),
    "jonatasgrosman/wav2vec2-large-xlsr-53-german": grosman(letters("'-" + LATIN + "ßàáâãäçèéê"), PICKLE, FLAX),
    "MahmoudAshraf/mms-300m-1130-forced-aligner": Layout(
        "Wav2Vec2ForCTC",
        (*TOKENS, SAFETENSORS),
        outputs=TEXTS,
        fields={**LARGE, "vocab_size": 31, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        front=TYPED,
        vocab=letters("aienoutsrmkldghybpwcvjzf'qx", ("<blank>", "<pad>", "</s>", "<unk>")),
        tokenizer={
            **SPECIAL, "pad_token": "<blank>", "word_delimiter_token": None, "do_lower_case": False,
            "replace_word_delimiter_char": " ", "target_lang": None, "tokenizer_class": "Wav2Vec2CTCTokenizer",
        },
        special={**SPECIAL, "pad_token": "<blank>"},
    ),
    "facebook/wav2vec2-lv-60-espeak-cv-ft": Layout(
        "Wav2Vec2ForCTC",
        (*TOKENS, PICKLE),
        outputs=TEXTS,
        fields={**LARGE, "vocab_size": len(PHONEMES), "pad_token_id": 0},
        written={"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"},
        vocab={token: index for index, token in enumerate(PHONEMES)},
        special=SPECIAL,
        front=TYPED,
        tokenizer={**SETTINGS, "do_lower_case": False, "return_attention_mask": True, "do_normalize": True},
    ),
    "facebook/mms-1b-all": Layout(
        "many_languages",
        (*TOKENS, SAFETENSORS, *(f"adapter.{name}.safetensors" for name in LANGUAGES)),
        outputs=TEXTS,
        vocab={name: vocabulary(number) for number, name in enumerate(LANGUAGES)},
        tokenizer={"target_lang": "eng"},
    ),
    "ylacombe/w2v-bert-2.0-mongolian-colab-CV16.0": Layout(
        "Wav2Vec2BertForCTC",
        (*TOKENS, "added_tokens.json", SAFETENSORS, "training_args.bin", "runs/events.out.tfevents"),
        outputs=TEXTS,
        fields={"vocab_size": 42, "pad_token_id": 37, "add_adapter": True},
        vocab=letters("абвгдежзийклмнопрстуфхцчшъыьэюяёөү", ("|",))
        | {"—": 35, "[UNK]": 36, "[PAD]": 37, "«": 38, "»": 39},
        added={"<s>": 40, "</s>": 41},
        special=TUTORIAL,
        front={**SEAMLESS, "processor_class": "Wav2Vec2BertProcessor"},
        tokenizer={
            **TUTORIAL, "do_lower_case": False, "word_delimiter_token": "|", "replace_word_delimiter_char": " ",
            "target_lang": None, "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "added_tokens_decoder": {
                str(index): {"content": token, "lstrip": index < 40, "rstrip": index < 40, "normalized": False,
                             "special": index >= 40}
                for index, token in ((36, "[UNK]"), (37, "[PAD]"), (40, "<s>"), (41, "</s>"))
            },
        },
    ),
}  # fmt: skip

# Encoders, classifiers of recordings and frames, speaker models

EMBEDDING, CLASSES, SPEAKERS = ("Embedding",), ("Classes", "Embedding"), ("Embedding", "Turns")


def superb(builds: str, names: list[str], outputs: tuple[str, ...], **values: Any) -> Layout:
    """Return a layout of superb/*: a learned sum of all layers."""
    fields = {"use_weighted_layer_sum": True, **classes(names)}
    return Layout(builds, (*FRONT, PICKLE), fields=fields, front=UNMASKED, outputs=outputs, **values)


ENCODERS = {
    "facebook/wav2vec2-base": Layout(
        "Wav2Vec2ForPreTraining", (*TOKENS, PICKLE), outputs=EMBEDDING, front=UNTYPED, vocab=UPPER, tokenizer=BASE_960H,
        special=SPECIAL,
    ),
    "facebook/hubert-base-ls960": Layout(
        "HubertModel", (*FRONT, PICKLE, TENSORFLOW), outputs=EMBEDDING, front=UNMASKED,
        written={"tokenizer_class": "Wav2Vec2CTCTokenizer"},
    ),
    "facebook/w2v-bert-2.0": Layout(
        "Wav2Vec2BertModel", (*FRONT, "conformer_shaw.pt", SAFETENSORS), outputs=EMBEDDING, front=SEAMLESS,
        fields={"vocab_size": None, "use_intermediate_ffn_before_adapter": False, "add_adapter": False},
    ),
    "facebook/mms-lid-126": Layout(
        "Wav2Vec2ForSequenceClassification", (*FRONT, "langs.txt", *BOTH), outputs=CLASSES, front=TYPED,
        fields={**LARGE, **classes(["ara", "cmn", "eng", "spa", "fra", "mlg", "swe", "por", "vie", "ful"])},
    ),
    "superb/wav2vec2-base-superb-er": superb(
        "Wav2Vec2ForSequenceClassification", ["neu", "hap", "ang", "sad"], CLASSES
    ),
    "anton-l/wav2vec2-base-superb-sd": superb(
        "Wav2Vec2ForAudioFrameClassification", ["LABEL_0", "LABEL_1"], ("Segments", *SPEAKERS)
    ),
    "microsoft/wavlm-base-plus-sv": superb("WavLMForXVector", [], SPEAKERS, backend="transformers"),
    "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim": Layout(
        "SpeechRegression",
        (*FRONT, "LICENSE", *BOTH, "vocab.json"),
        outputs=CLASSES,
        fields={**LARGE, **classes(["arousal", "dominance", "valence"]), "num_labels": 3},
        written={
            "architectures": ["Wav2Vec2ForSpeechClassification"], "finetuning_task": "wav2vec2_reg",
            "pooling_mode": "mean", "problem_type": "regression",
        },
        front=UNMASKED,
    ),
}  # fmt: skip

# Models that write texts, and those that transformers runs

WHISPER_FILES = (
    *FRONT, "generation_config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json",
    "merges.txt", "normalizer.json", "special_tokens_map.json", "vocab.json", SAFETENSORS,
)  # fmt: skip
MBART_TOKENS = {**SPECIAL, "sep_token": "</s>", "cls_token": "<s>", "mask_token": "<mask>"}
PROCESSED = (*CONFIG, "processor_config.json", "tokenizer_config.json", "tokenizer.json", SAFETENSORS)
PROMPTED = (*PROCESSED, "generation_config.json", "chat_template.jinja")
WRITTEN = ("Transcript", "Embedding")


def translator(*weights: str) -> Layout:
    """Return a layout of XLS-R with an mBART-50 decoder, without one of the two names of the head's weight."""
    return Layout(
        "translation",
        (*FRONT, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
         "sentencepiece.bpe.model", *weights),
        outputs=WRITTEN,
        written={"untied": "decoder.model.decoder.embed_tokens.weight"},
        tokenizer={**MBART_TOKENS, "src_lang": "en_XX", "tgt_lang": None, "tokenizer_class": "MBart50Tokenizer"},
        special=MBART_TOKENS,
    )  # fmt: skip


def whisper(*files: str, **values: Any) -> Layout:
    windows = {"window_seconds": 2, "overlap_seconds": 0.5}
    return Layout("whisper", (*WHISPER_FILES, *files), outputs=WRITTEN, backend="transformers", label=windows, **values)


SEQUENCES = {
    "facebook/wav2vec2-xls-r-300m-21-to-en": translator(PICKLE),
    "facebook/wav2vec2-xls-r-300m-en-to-15@refs/pr/3": translator(*BOTH),
    "nvidia/parakeet-ctc-1.1b": Layout("parakeet", (*PROCESSED, "parakeet-ctc-1.1b.nemo"), outputs=WRITTEN),
    "nvidia/parakeet-tdt-0.6b-v3": Layout(
        "parakeet_tdt", (*PROCESSED, "generation_config.json", "parakeet-tdt-0.6b-v3.nemo"), outputs=WRITTEN
    ),
    "Qwen/Qwen3-ASR-1.7B-hf": Layout("qwen3_asr", PROMPTED, outputs=("Transcript",), backend="transformers"),
    "CohereLabs/cohere-transcribe-03-2026": Layout(
        "cohere_asr", PROMPTED, outputs=("Transcript",), backend="transformers", language="de"
    ),
    "openai/whisper-tiny.en": whisper(PICKLE, TENSORFLOW, written={"english": True}),
    "openai/whisper-small": whisper(PICKLE, TENSORFLOW),
    "openai/whisper-large-v3-turbo": whisper(),
}

TABLE: dict[str, Layout] = {**CTC, **ENCODERS, **SEQUENCES}
