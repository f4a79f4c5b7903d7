"""Every option of `generate` on the stand-in device: the tokens and scores of the CPU."""

import dataclasses

import numpy as np
import pytest
import torch

from raysp.models import GenerationConfig, SpeechEncoderDecoderModel
from tests.device.conftest import assert_same
from tests.device.stand_in import NAME

OPTIONS = {
    "length": {"max_new_tokens": 5},
    "whole length": {"max_length": 7, "min_length": 4},
    "new tokens": {"max_new_tokens": 8, "min_new_tokens": 4},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 7, "top_p": 0.9, "max_new_tokens": 6},
    "likely tokens": {"do_sample": True, "min_p": 0.02, "max_new_tokens": 6},
    "several samples": {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 5},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.6, "max_new_tokens": 7},
    "early end": {"num_beams": 3, "early_stopping": True, "max_new_tokens": 7},
    "late end": {"num_beams": 3, "early_stopping": "never", "max_new_tokens": 7},
    "sampled beams": {"num_beams": 3, "do_sample": True, "max_new_tokens": 6},
    "repetition": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "max_new_tokens": 8},
    "repetition in beams": {"num_beams": 2, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "max_new_tokens": 8},
    "tokens left out": {"bad_words_ids": [[5], [6, 7]], "suppress_tokens": [8, 9], "max_new_tokens": 8},
    "first tokens left out": {"begin_suppress_tokens": [5, 6], "max_new_tokens": 5},
    "forced tokens": {"forced_bos_token_id": 7, "forced_eos_token_id": 3, "max_new_tokens": 5},
    "other special tokens": {
        "decoder_start_token_id": 5, "bos_token_id": 5, "eos_token_id": [6, 7], "pad_token_id": 1, "max_new_tokens": 6,
    },
    "scores": {"output_scores": True, "return_dict_in_generate": True, "use_cache": True, "max_new_tokens": 5},
    "scores of beams": {"output_scores": True, "return_dict_in_generate": True, "num_beams": 3, "max_new_tokens": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(checkpoints):
    folder = checkpoints("SpeechEncoderDecoderModel")
    here, there = (SpeechEncoderDecoderModel.from_pretrained(folder, device=device).eval() for device in ("cpu", NAME))
    return here, there


def written(model, **options: object) -> object:
    waves = torch.from_numpy((0.1 * np.random.default_rng(0).standard_normal((2, 12_000))).astype(np.float32))
    mask = torch.arange(12_000) < torch.tensor([[12_000], [9_000]])
    torch.manual_seed(3)
    found = model.generate(waves.to(model.device), mask.to(model.device), **options)
    if isinstance(found, torch.Tensor):
        return found.tolist()
    values = {name: found[name] for name in found.keys() if found[name] is not None}  # noqa: SIM118
    return {name: [one.tolist() for one in value] for name, value in values.items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_tokens_are_those_of_the_cpu(name, models):
    here, there = models
    assert_same(written(there, **OPTIONS[name]), written(here, **OPTIONS[name]))


def test_every_option_has_a_case():
    assert {name for options in OPTIONS.values() for name in options} == {
        field.name for field in dataclasses.fields(GenerationConfig)
    }
