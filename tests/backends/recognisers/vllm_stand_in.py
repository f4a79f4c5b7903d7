"""A stand-in of vLLM's offline call with audio: it checks arguments, and answers by transformers, one prompt a pass."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import transformers

assert os.environ["VLLM_BATCH_INVARIANT"] == "1"
RATE = 16_000
calls = []
"""Numbers of prompts of the calls of `generate`."""


@dataclass(kw_only=True)
class SamplingParams:
    """Arguments of a search; others are refused, as by vLLM."""

    temperature: float
    max_tokens: int
    min_tokens: int
    logprobs: int
    ignore_eos: bool
    stop_token_ids: list
    allowed_token_ids: list | None
    detokenize: bool


class LLM:
    """An engine of one model."""

    def __init__(self, model, *, dtype, trust_remote_code, seed, limit_mm_per_prompt, enable_prefix_caching):
        assert type(model) is str
        assert (trust_remote_code, seed, enable_prefix_caching) == (False, 0, False)
        assert limit_mm_per_prompt == {"audio": 1}
        [name] = json.loads((Path(model) / "config.json").read_text())["architectures"]
        self.model = getattr(transformers, name).from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(model)

    def generate(self, prompts, sampling_params, *, use_tqdm):
        assert use_tqdm is False
        calls.append(len(prompts))
        return [SimpleNamespace(outputs=[self._completion(prompt, sampling_params)]) for prompt in prompts]

    def _completion(self, prompt, params):
        assert prompt.keys() == {"prompt_token_ids", "multi_modal_data"}
        wave, rate = prompt["multi_modal_data"]["audio"]
        assert (wave.dtype, wave.ndim, rate) == (np.float32, 1, RATE)
        assert (params.temperature, params.ignore_eos, params.detokenize, params.logprobs) == (0, True, False, 0)
        inputs = self._inputs(prompt["prompt_token_ids"], wave)
        options = {"max_new_tokens": params.max_tokens, "min_new_tokens": params.min_tokens}
        allowed = params.allowed_token_ids
        every = range(self.model.config.get_text_config(decoder=True).vocab_size)
        self.model.generation_config.suppress_tokens = allowed and sorted({*every} - {*allowed})
        with torch.inference_mode():
            made = self.model.generate(
                **inputs, **options, do_sample=False, eos_token_id=params.stop_token_ids, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        ids = made.sequences[0, -len(made.logits) :].tolist()
        scores = torch.stack(made.logits)[:, 0].float().log_softmax(-1)
        logprobs = [{token: SimpleNamespace(logprob=float(row[token]))} for token, row in zip(ids, scores, strict=True)]
        return SimpleNamespace(token_ids=ids, logprobs=logprobs)

    def _inputs(self, ids, wave):
        audio = getattr(self.processor, "audio_token_id", None)
        if audio is None:
            inputs = self.processor(audio=wave, language="en", sampling_rate=RATE)
            del inputs["audio_chunk_index"]
            return {**inputs, "decoder_input_ids": torch.tensor([ids])}
        assert ids.count(audio) == 1
        text = self.processor.tokenizer.decode(ids)
        return self.processor(text=[text], audio=[wave], audio_kwargs={"sampling_rate": RATE}, return_tensors="pt")
