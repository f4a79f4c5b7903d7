"""Layouts of encoders: pre-trained ones and those without a head."""

from typing import Any

from tests.published.ctc import BASE_960H, BOTH, LARGE, SAFE, SPECIAL, TYPED, UPPER, letters
from tests.published.ctc import FRONT as UNTYPED
from tests.published.layout import CONFIG, FLAX, FRONT, PAGE, PICKLE, TENSORFLOW, TOKENS, Layout

UNMASKED = {**TYPED, "return_attention_mask": False}


def encoder(builds: str, files: tuple[str, ...], *, large: bool = False, **values: Any) -> Layout:
    """Return a layout of an encoder for embeddings."""
    fields = {**(LARGE if large else {}), **values.pop("fields", {})}
    front = TYPED if large else UNMASKED
    return Layout(builds, files, outputs=("Embedding",), fields=fields, **{"front": front, **values})


def pre_trained(files: tuple[str, ...], *, builds: str = "Wav2Vec2ForPreTraining", **values: Any) -> Layout:
    """Return a layout of an encoder with its quantizer and projections."""
    return encoder(builds, files, **{"facts": PAGE, **values})


ENCODERS: dict[str, Layout] = {
    "facebook/wav2vec2-base": pre_trained(
        (*TOKENS, PICKLE), front=UNTYPED, vocab=UPPER, tokenizer=BASE_960H, special=SPECIAL,
    ),
    "facebook/wav2vec2-large": pre_trained((*TOKENS, PICKLE), vocab=UPPER, tokenizer=BASE_960H, special=SPECIAL),
    "facebook/wav2vec2-large-lv60": pre_trained(
        (*TOKENS, PICKLE, FLAX), large=True, vocab=UPPER, tokenizer=BASE_960H, special=SPECIAL
    ),
    "facebook/wav2vec2-large-robust": pre_trained((*FRONT, PICKLE), large=True),
    "facebook/wav2vec2-large-xlsr-53": pre_trained((*FRONT, PICKLE, FLAX), large=True, front=TYPED),
    "facebook/wav2vec2-xls-r-300m": pre_trained((*FRONT, PICKLE), large=True),
    "facebook/wav2vec2-xls-r-300m@refs/pr/2": pre_trained((*FRONT, *BOTH), large=True),
    "facebook/wav2vec2-xls-r-1b": pre_trained((*FRONT, PICKLE), large=True),
    "facebook/wav2vec2-xls-r-2b": pre_trained((*FRONT, PICKLE), large=True),
    "facebook/mms-300m": pre_trained((*FRONT, PICKLE), large=True),
    "facebook/mms-1b": pre_trained((*FRONT, PICKLE), large=True),
    "facebook/mms-1b@refs/pr/6": pre_trained((*FRONT, *BOTH), large=True),
    "nguyenvulebinh/wav2vec2-base-vi": pre_trained(
        (*TOKENS, "added_tokens.json", PICKLE),
        vocab=letters("aăâbcdđeêghiklmnoôơpqrstuưvxy"),
        added={"<s>": 31, "</s>": 32},
        special={**SPECIAL, "additional_special_tokens": [{"content": "<s>", "lstrip": False, "normalized": True}] * 6},
        tokenizer={**SPECIAL, "tokenizer_class": "Wav2Vec2CTCTokenizer", "word_delimiter_token": "|"},
    ),
    "microsoft/unispeech-large-1500h-cv": pre_trained((*FRONT, PICKLE), builds="UniSpeechForPreTraining", large=True),
    "microsoft/unispeech-large-multi-lingual-1500h-cv": pre_trained(
        (*FRONT, PICKLE), builds="UniSpeechForPreTraining", large=True
    ),
    "facebook/hubert-base-ls960": encoder(
        "HubertModel", (*FRONT, PICKLE, TENSORFLOW), written={"tokenizer_class": "Wav2Vec2CTCTokenizer"}, facts=PAGE
    ),
    "facebook/hubert-base-ls960@refs/pr/2": encoder("HubertModel", (*FRONT, *BOTH, TENSORFLOW), facts=PAGE),
    "facebook/hubert-large-ll60k": encoder("HubertModel", (*FRONT, PICKLE, TENSORFLOW), large=True),
    "utter-project/mHuBERT-147": encoder(
        "HubertModel", (*FRONT, *SAFE), facts=PAGE, fields={"feat_proj_layer_norm": False, "conv_pos_batch_norm": True}
    ),
    "ntu-spml/distilhubert": encoder(
        "HubertModel", (*FRONT, *BOTH), facts=PAGE, fields={"feat_proj_layer_norm": False},
    ),
    "TencentGameMate/chinese-hubert-base": encoder(
        "HubertModel", (*FRONT, PICKLE, "chinese-hubert-base-fairseq-ckpt.pt")
    ),
    "rinna/japanese-hubert-base": encoder("HubertModel", (*FRONT, *BOTH, "fairseq/model.pt")),
    "facebook/w2v-bert-2.0": encoder(
        "Wav2Vec2BertModel", (*FRONT, "conformer_shaw.pt", *SAFE), facts=PAGE,
        fields={"vocab_size": None, "use_intermediate_ffn_before_adapter": False, "add_adapter": False},
        front={
            "feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "num_mel_bins": 80,
            "padding_side": "right", "padding_value": 1, "return_attention_mask": True, "sampling_rate": 16000,
            "stride": 2,
        },
    ),
    "asapp/sew-d-tiny-100k": encoder("SEWDModel", (*FRONT, PICKLE)),
    "microsoft/wavlm-base-plus": encoder("WavLMModel", (*FRONT, PICKLE), backend="transformers", facts=PAGE),
    "microsoft/wavlm-base-plus@refs/pr/1": encoder("WavLMModel", (*FRONT, *BOTH), backend="transformers", facts=PAGE),
    "microsoft/wavlm-large": encoder("WavLMModel", (*FRONT, PICKLE), large=True, backend="transformers", facts=PAGE),
    "microsoft/unispeech-sat-base-plus": encoder(
        "UniSpeechSatForPreTraining", (*CONFIG, "preprocessor_config.json", PICKLE), backend="transformers"
    ),
    "facebook/data2vec-audio-base": encoder("Data2VecAudioModel", (*FRONT, PICKLE), backend="transformers"),
    "facebook/wav2vec2-conformer-rel-pos-large": pre_trained(
        (*FRONT, PICKLE), builds="Wav2Vec2ConformerForPreTraining", large=True, backend="transformers", facts="memory",
        fields={"position_embeddings_type": "relative"},
    ),
}  # fmt: skip
