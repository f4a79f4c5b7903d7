"""Processors of transformers that have parts which no transcript needs, such as those for images."""

from pathlib import Path
from typing import Any

import transformers

from raysp.backends.hugging_face.describing import DIRECT

EXTRACTOR = transformers.AutoFeatureExtractor
PARTS: dict[str, Any] = {
    "audio_processor": EXTRACTOR,
    "feature_extractor": EXTRACTOR,
    "tokenizer": transformers.AutoTokenizer,
}
"""Parts of a processor that a transcript needs, with the classes that read them."""


def load_processor(folder: Path, name: str | None) -> Any:  # noqa: ANN401 - a class of transformers
    """Return the processor of a folder; parts that no transcript needs are None, so that no package for them is needed.

    Args:
        folder: the model folder.
        name: class of the processor; None: transformers names none for the model type.
    """
    cls = name and getattr(transformers, name)
    if not cls or {*cls.get_attributes()} <= {*PARTS}:
        return transformers.AutoProcessor.from_pretrained(folder, **DIRECT)
    settings, _ = cls.get_processor_dict(folder, **DIRECT)
    unchecked: Any = type(cls.__name__, (cls,), {"check_argument_for_proper_class": lambda *_: None})
    parts = [PARTS[part].from_pretrained(folder, **DIRECT) if part in PARTS else None for part in cls.get_attributes()]
    return unchecked.from_args_and_dict(parts, settings)
