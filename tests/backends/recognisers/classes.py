"""What opens each speech-recognition class of the installed transformers, by a configuration of each."""

import json
from pathlib import Path
from typing import NamedTuple

from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from raysp.backends import own
from raysp.backends.hugging_face import describing
from raysp.backends.hugging_face.padded_batches import PADDED
from raysp.backends.hugging_face.recogniser_families import REFUSED, Family
from raysp.backends.hugging_face.recogniser_files import is_recogniser
from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.registry import architectures_of, capabilities_of, config_class
from tests.backends.recognisers.tiny_ctc import with_mels
from tests.models.oracles import transformers

MAPS = ("SPEECH_SEQ_2_SEQ", "CTC", "RNNT", "TDT", "MULTIMODAL_LM")
WHISPER_SAMPLES = 480_000
TIMED = {Capability.CTC, Capability.TRANSDUCER}
PADDED_BATCHES = "in padded batches"
NO_RECOGNISERS = {"dia", "pop2piano", "vibevoice"}
"""Model types of these maps that write audio or notes."""


def classes() -> dict[str, str]:
    """Return the classes that write what is said in a recording, by model type."""
    auto = transformers.models.auto.modeling_auto
    images = {*auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    found = {}
    for name in MAPS:
        for model_type, cls in getattr(auto, f"MODEL_FOR_{name}_MAPPING_NAMES").items():
            if name != "MULTIMODAL_LM" or model_type not in images:
                found.setdefault(model_type, cls)
    return {model_type: cls for model_type, cls in sorted(found.items()) if model_type not in NO_RECOGNISERS}


class Facts(NamedTuple):
    """Columns of the table of classes, besides the classes."""

    opened: str
    """What opens a class, or the reason why nothing does."""
    times: str = ""
    languages: str = ""


def facts(model_type: str, cls: str, folder: Path) -> Facts:
    """Return the facts of a class, by its configuration."""
    with_mels()
    folder.mkdir(parents=True)
    values = {"model_type": model_type, "architectures": [cls]}
    (folder / "config.json").write_text(json.dumps(values))
    if not own.unread(folder):
        gives = {*capabilities_of(architectures_of(model_type)[cls])}
        return Facts("raysp", "words" if gives & TIMED else "", _adapters(config_class(model_type)()))
    try:
        config = transformers.AutoConfig.for_model(model_type).to_dict()
        (folder / "config.json").write_text(json.dumps({**config, **values}, default=str))
        kind = describing.kind_of(folder)
        times = "words" if kind.head in TIMED else ""
        if is_recogniser(kind):
            together = PADDED_BATCHES if model_type in PADDED else "one window a pass"
            return Facts(f"transformers, {together}", times, _languages(kind.family))
        fixed = WHISPER_SAMPLES if model_type == describing.WHISPER else None
        extractor = getattr(transformers, FEATURE_EXTRACTOR_MAPPING_NAMES[model_type])()
        describing._check(folder, kind, describing._frames(folder, kind, extractor, fixed), fixed)
    except CheckpointError as error:
        return Facts(f"refused: {REFUSED.get(model_type) or error}")
    if fixed:
        return Facts("transformers, padded to 30 s", "words, by CTranslate2", "named or detected")
    return Facts(f"transformers, {PADDED_BATCHES if model_type in PADDED else 'rows of one length a pass'}", times)


def _adapters(config: object) -> str:
    """Return whether a model of raysp has adapters of languages."""
    return "named, with adapters" if hasattr(config, "adapter_attn_dim") else ""


def _languages(family: Family) -> str:
    """Return how a family takes and finds languages."""
    named = "named" if "language" in family.takes else ""
    return f"{named} or detected".removeprefix(" or ") if family.language_of else named
