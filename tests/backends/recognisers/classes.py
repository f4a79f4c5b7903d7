"""What opens each speech-recognition class of the installed transformers, by a configuration of each."""

import json
from pathlib import Path

from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from raysp.backends import own
from raysp.backends.hugging_face import describing
from raysp.backends.hugging_face.padded_batches import PADDED
from raysp.backends.hugging_face.recogniser_files import is_recogniser
from raysp.errors import CheckpointError
from tests.backends.recognisers.tiny_ctc import with_mels
from tests.models.oracles import transformers

MAPS = ("SPEECH_SEQ_2_SEQ", "CTC", "RNNT", "TDT", "MULTIMODAL_LM")
WHISPER_SAMPLES = 480_000
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


def opened(model_type: str, cls: str, folder: Path) -> str:
    """Return what opens a class, or why nothing does."""
    with_mels()
    folder.mkdir(parents=True)
    values = {"model_type": model_type, "architectures": [cls]}
    (folder / "config.json").write_text(json.dumps(values))
    if not own.unread(folder):
        return "raysp"
    try:
        config = transformers.AutoConfig.for_model(model_type).to_dict()
        (folder / "config.json").write_text(json.dumps({**config, **values}, default=str))
        kind = describing.kind_of(folder)
        if is_recogniser(kind):
            return f"transformers, {PADDED_BATCHES if model_type in PADDED else 'one window a pass'}"
        fixed = WHISPER_SAMPLES if model_type == describing.WHISPER else None
        extractor = getattr(transformers, FEATURE_EXTRACTOR_MAPPING_NAMES[model_type])()
        describing._check(folder, kind, describing._frames(folder, kind, extractor, fixed), fixed)
    except CheckpointError as error:
        return f"refused: {str(error).partition('config.json: ')[2] or error}"
    if fixed:
        return "transformers, padded to 30 s"
    return f"transformers, {PADDED_BATCHES if model_type in PADDED else 'rows of one length a pass'}"
