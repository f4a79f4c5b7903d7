"""Speech models under their Hugging Face names, resolved when first used: importing this package imports no torch."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysp.models.loading import CheckpointSummary as CheckpointSummary
    from raysp.models.loading import LoadedCheckpoint as LoadedCheckpoint
    from raysp.models.loading import check_checkpoint as check_checkpoint
    from raysp.models.loading import checkpoint_files as checkpoint_files
    from raysp.models.loading import load_checkpoint as load_checkpoint
    from raysp.models.loading import load_model as load_model
    from raysp.models.processors import Wav2Vec2FeatureExtractor as Wav2Vec2FeatureExtractor
    from raysp.models.processors import Wav2Vec2Processor as Wav2Vec2Processor
    from raysp.models.tokenization import Wav2Vec2CTCTokenizer as Wav2Vec2CTCTokenizer
    from raysp.models.unispeech import UniSpeechConfig as UniSpeechConfig
    from raysp.models.unispeech import UniSpeechForCTC as UniSpeechForCTC
    from raysp.models.unispeech import UniSpeechModel as UniSpeechModel

_MODULE_OF = {
    "CheckpointSummary": "loading",
    "LoadedCheckpoint": "loading",
    "UniSpeechConfig": "unispeech",
    "UniSpeechForCTC": "unispeech",
    "UniSpeechModel": "unispeech",
    "Wav2Vec2CTCTokenizer": "tokenization",
    "Wav2Vec2FeatureExtractor": "processors",
    "Wav2Vec2Processor": "processors",
    "check_checkpoint": "loading",
    "checkpoint_files": "loading",
    "load_checkpoint": "loading",
    "load_model": "loading",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Import the module that defines a public name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
