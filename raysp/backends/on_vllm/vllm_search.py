"""Search of the texts of a recogniser by vLLM's offline engine.

Written against the documentation of vLLM (`LLM.generate` with audio), and never run on a GPU: tests run a stand-in of
that call.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from raysp.backends.finding import VLLM, package_version
from raysp.backends.hugging_face.decoded_texts import end_tokens
from raysp.backends.hugging_face.describing import read
from raysp.backends.hugging_face.recogniser import Tokens
from raysp.backends.hugging_face.recogniser_families import TextRequest
from raysp.backends.hugging_face.recogniser_files import RecogniserFiles

ENVIRONMENT = {
    "VLLM_BATCH_INVARIANT": "1",  # a text must not depend on its batch
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine ends with the process of the actor
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for results
    "VLLM_NO_USAGE_STATS": "1",
}
FIRST_TOKENS = 8


class VllmSearch:
    """Search by vLLM.

    Args:
        files: the files of a checkpoint.
        dtype: dtype of weights and arithmetic.

    Raises:
        CheckpointError: vLLM cannot load the checkpoint.
    """

    def __init__(self, files: RecogniserFiles, *, dtype: str) -> None:
        os.environ |= ENVIRONMENT  # read when vLLM is imported
        import vllm

        self.files, self.dtype, self.lock = files, getattr(torch, dtype), threading.Lock()
        self.parameters = vllm.SamplingParams
        # A cache of prompts would make what is computed for a recording depend on those before it.
        options = {"seed": 0, "limit_mm_per_prompt": {"audio": 1}, "enable_prefix_caching": False}
        maker = partial(vllm.LLM, str(files.folder), dtype=dtype, trust_remote_code=False, **options)
        self.model = read(files.folder, maker, package_version(VLLM))

    def __call__(self, waves: Sequence[np.ndarray], request: TextRequest, options: Mapping[str, Any]) -> list[Tokens]:
        """Return the tokens of each recording; see `raysp.backends.hugging_face.recogniser.Search`."""
        rate = self.files.extractor.sampling_rate
        prompt = self._prompt(waves[0][:rate], request)
        prompts = [{"prompt_token_ids": prompt, "multi_modal_data": {"audio": (wave, rate)}} for wave in waves]
        parameters = self.parameters(**self._parameters(options))
        with self.lock:
            outputs = self.model.generate(prompts, parameters, use_tqdm=False)
        return [_scored(output.outputs[0]) for output in outputs]

    def _prompt(self, wave: np.ndarray, request: TextRequest) -> list[int]:
        """Return the tokens of a prompt with one token for the recording, which vLLM repeats."""
        processor = self.files.processor
        inputs = self.files.kind.family.inputs(processor, wave, request)
        [ids] = inputs.get("input_ids", inputs.get("decoder_input_ids")).tolist()
        audio = getattr(processor, "audio_token_id", None)
        return [token for place, token in enumerate(ids) if token != audio or ids[place - 1 : place] != [audio]]

    def _parameters(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `SamplingParams` of a greedy search; its ends are those of the checkpoint alone."""
        merged = {**self.files.settings, **options}
        left_out = {*(merged.get("suppress_tokens") or ())}
        size = self.files.kind.config.get_text_config(decoder=True).vocab_size
        return {
            "temperature": 0,
            "max_tokens": merged["max_new_tokens"],
            "min_tokens": merged.get("min_new_tokens") or 0,
            "logprobs": 0,  # of the token that is taken
            "ignore_eos": True,
            "stop_token_ids": sorted(end_tokens(self.files.settings.get("eos_token_id"), options)),
            "allowed_token_ids": [token for token in range(size) if token not in left_out] if left_out else None,
            "detokenize": False,
        }

    def first_scores(self, waves: Sequence[np.ndarray], request: TextRequest) -> np.ndarray:
        """Return the log-probabilities of the first row's first tokens (K,)."""
        options = {"max_new_tokens": FIRST_TOKENS, "min_new_tokens": FIRST_TOKENS}
        return np.array(self(waves, request, options)[0].log_probs)


def _scored(text: Any) -> Tokens:  # noqa: ANN401 - of vLLM
    ids = text.token_ids
    return Tokens(ids, [scores[token].logprob for token, scores in zip(ids, text.logprobs, strict=True)])
