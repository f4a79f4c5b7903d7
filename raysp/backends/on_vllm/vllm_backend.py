"""The backend `vllm`: recognisers with prompts, options and texts as by transformers, searched by vLLM."""

from dataclasses import replace
from pathlib import Path

from raysp.backends.finding import VLLM
from raysp.backends.hugging_face import text_options
from raysp.backends.hugging_face.describing import kind_of
from raysp.backends.hugging_face.recogniser import Recogniser
from raysp.backends.hugging_face.recogniser_files import RecogniserFiles
from raysp.backends.hugging_face.recogniser_settings import DEPENDENT, FILE, USED
from raysp.backends.on_vllm.vllm_search import VllmSearch
from raysp.errors import CheckpointError
from raysp.models.base.configuration import read_json
from raysp.models.labelled_passes import CheckpointSummary

FAMILIES = ("cohere_asr", "glmasr", "qwen2_5_omni", "qwen2_audio", "qwen3_asr")
"""Model types of which vLLM documents prompts with one token for a recording."""
APPLIED = (
    "bos_token_id", "decoder_start_token_id", "eos_token_id", "max_new_tokens", "min_new_tokens", "pad_token_id",
    "remove_invalid_values", "renormalize_logits", "suppress_tokens",
)  # fmt: skip
"""Settings of generation_config.json that a search by vLLM has too."""


class VllmModels:
    """Backend of recognisers that vLLM runs."""

    check_writing = staticmethod(text_options.check_writing)

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint and return its description; vLLM is not imported.

        Raises:
            CheckpointError: files are missing or damaged, or vLLM does not run the model or its settings.
        """
        return _described(_files(folder))

    def load(self, folder: Path, *, dtype: str, device: str) -> Recogniser:
        """Load a checkpoint.

        Raises:
            CheckpointError: as `describe`, or vLLM cannot load it.
        """
        files = _files(folder)
        return Recogniser(files, _described(files), VllmSearch(files, dtype=dtype), device=device)


def _described(files: RecogniserFiles) -> CheckpointSummary:
    return replace(files.describe(), backend=VLLM, alone="")


def _files(folder: Path) -> RecogniserFiles:
    """Return the files of a checkpoint that vLLM runs."""
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"{folder}: model type {model_type!r} with backend={VLLM!r}, expected one of {', '.join(FAMILIES)}; leave "
            "backend out"
        )
    files = RecogniserFiles(folder, kind_of(folder))
    for name in sorted({*USED, *DEPENDENT} - {*APPLIED} & {*files.settings}):
        raise CheckpointError(
            f"{folder}: {FILE} has {name}={files.settings[name]!r}, which vLLM does not apply as transformers does: "
            f"leave backend={VLLM!r} out, or remove {name} from {FILE} (max_new_tokens takes the place of max_length)"
        )
    return files
