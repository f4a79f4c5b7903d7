"""Layouts of encoders: pre-trained ones and those without a head."""

from typing import Any

from tests.published.ctc import BASE_960H, LARGE, SAFE, SPECIAL, TYPED, UPPER
from tests.published.ctc import FRONT as UNTYPED
from tests.published.layout import FRONT, PICKLE, TENSORFLOW, TOKENS, Layout

UNMASKED = {**TYPED, "return_attention_mask": False}


def encoder(builds: str, files: tuple[str, ...], *, large: bool = False, **values: Any) -> Layout:
    """Return a layout of an encoder for embeddings."""
    fields = {**(LARGE if large else {}), **values.pop("fields", {})}
    front = TYPED if large else UNMASKED
    return Layout(builds, files, outputs=("Embedding",), fields=fields, **{"front": front, **values})


ENCODERS: dict[str, Layout] = {
    "facebook/wav2vec2-base": encoder(
        "Wav2Vec2ForPreTraining", (*TOKENS, PICKLE), front=UNTYPED, vocab=UPPER, tokenizer=BASE_960H, special=SPECIAL,
    ),
    "microsoft/unispeech-large-1500h-cv": encoder("UniSpeechForPreTraining", (*FRONT, PICKLE), large=True),
    "facebook/hubert-base-ls960": encoder(
        "HubertModel", (*FRONT, PICKLE, TENSORFLOW), written={"tokenizer_class": "Wav2Vec2CTCTokenizer"}
    ),
    "facebook/w2v-bert-2.0": encoder(
        "Wav2Vec2BertModel", (*FRONT, "conformer_shaw.pt", *SAFE),
        fields={"vocab_size": None, "use_intermediate_ffn_before_adapter": False, "add_adapter": False},
        front={
            "feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "num_mel_bins": 80,
            "padding_side": "right", "padding_value": 1, "return_attention_mask": True, "sampling_rate": 16000,
            "stride": 2,
        },
    ),
}  # fmt: skip
