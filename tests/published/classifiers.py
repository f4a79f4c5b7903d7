"""Layouts of classifiers of recordings and frames, and of speaker models."""

from typing import Any

from tests.published.ctc import BOTH, LARGE, TYPED
from tests.published.encoders import UNMASKED
from tests.published.layout import FRONT, PICKLE, Layout

LANGUAGES = ["ara", "cmn", "eng", "spa", "fra", "mlg", "swe", "por", "vie", "ful"]


def classes(names: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def superb(names: list[str], builds: str = "Wav2Vec2ForSequenceClassification", **values: Any) -> Layout:
    """Return a layout of superb/*: a learned sum of all layers."""
    return Layout(
        builds,
        values.pop("files", (*FRONT, PICKLE)),
        fields={"use_weighted_layer_sum": True, **classes(names), **values.pop("fields", {})},
        **{"front": UNMASKED, "outputs": ("Classes", "Embedding"), **values},
    )


EMOTIONS = ["neu", "hap", "ang", "sad"]

CLASSIFIERS: dict[str, Layout] = {
    "facebook/mms-lid-126": Layout(
        "Wav2Vec2ForSequenceClassification",
        (*FRONT, "langs.txt", *BOTH),
        outputs=("Classes", "Embedding"),
        fields={**LARGE, **classes(LANGUAGES)},
        front=TYPED,

    ),
    "superb/wav2vec2-base-superb-er": superb(EMOTIONS),
    "superb/hubert-large-superb-er": superb(EMOTIONS, "HubertForSequenceClassification", fields=LARGE, front=TYPED),
    "anton-l/wav2vec2-base-superb-sv": superb([], "Wav2Vec2ForXVector", outputs=("Embedding",)),
    "anton-l/wav2vec2-base-superb-sd": superb(
        ["LABEL_0", "LABEL_1"], "Wav2Vec2ForAudioFrameClassification", outputs=("Segments", "Embedding")
    ),
    "microsoft/wavlm-base-plus-sv": superb(
        [], "WavLMForXVector", outputs=("Embedding",), backend="transformers"
    ),
    "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim": Layout(
        "SpeechRegression",
        (*FRONT, "LICENSE", *BOTH, "vocab.json"),
        outputs=("Classes", "Embedding"),
        fields={**LARGE, **classes(["arousal", "dominance", "valence"]), "num_labels": 3},
        written={
            "architectures": ["Wav2Vec2ForSpeechClassification"], "finetuning_task": "wav2vec2_reg",
            "pooling_mode": "mean", "problem_type": "regression",
        },
        front=UNMASKED,

    ),
}  # fmt: skip
