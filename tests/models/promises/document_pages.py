"""What pages of the models' documents need to run with either library: recordings, random checkpoints, comparisons."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import raysp.models
from tests.models.decoder_oracles import perturbed
from tests.models.oracles import transformers

SAMPLE_RATE = 16_000
FIRST_ROW_SAMPLES = 93_680  # 292 frames, as the page of SEW-D has it
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]


class Recordings:
    """Rows of a data set of recordings, as far as the pages use it."""

    features = {"audio": SimpleNamespace(sampling_rate=SAMPLE_RATE)}  # noqa: RUF012

    def __init__(self, rows):
        self.rows = rows

    def sort(self, column):
        return Recordings(sorted(self.rows, key=lambda row: row[column]))

    def __getitem__(self, key):
        if isinstance(key, int):
            return self.rows[key]
        return {name: [row[name] for row in self.rows[key]] for name in self.rows[0]}


def recording(samples, seed):
    noise = np.random.default_rng(seed).normal(0.0, 0.1, samples)
    return (noise + 0.3 * np.sin(np.arange(samples) * (0.05 + 0.02 * seed))).astype(np.float32)


def load_dataset(name, config, *, split):
    assert (config, split) == ("clean", "validation")
    waves = [recording(FIRST_ROW_SAMPLES, 0), recording(59_760, 1)]
    text = {"librispeech_asr_demo": "A BAD CAB", "librispeech_asr_dummy": "a cat sat"}[name.partition("/")[2]]
    rows = [
        {"id": f"row-{index}", "audio": {"array": wave, "sampling_rate": SAMPLE_RATE}, "text": text}
        for index, wave in enumerate(waves)
    ]
    return Recordings(
        rows[::-1] if name.endswith("demo") else rows
    )  # the pages of the one sort it, of the other do not


def publish(name, model, extractor=None):
    """Put a random model of theirs where a page names it, with its processor where one is given."""
    model.save_pretrained(name)
    if extractor is not None:
        with open("letters.json", "w") as file:
            json.dump({token: index for index, token in enumerate(LETTERS)}, file)
        tokenizer = transformers.Wav2Vec2CTCTokenizer("letters.json")
        is_waves = isinstance(extractor, transformers.Wav2Vec2FeatureExtractor)
        kind = transformers.Wav2Vec2Processor if is_waves else transformers.Wav2Vec2BertProcessor
        kind(extractor, tokenizer).save_pretrained(name)


def both(page):
    """Run a page with either library; returns what ours and theirs show."""
    return page(raysp.models), page(transformers)


def assert_same(ours, theirs, tolerance=1e-4):
    """Compare the values of a page with transformers: tensors up to rounding, everything else exactly."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(
                ours[name], expected, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: n + m
            )
        elif isinstance(expected, float):
            assert ours[name] == pytest.approx(expected, abs=tolerance, rel=tolerance), name
        else:
            assert ours[name] == expected, name


def assert_same_architecture(ours, theirs):
    """Hold names and shapes of weights to theirs."""
    expected = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected


def random_model(cls, **flags):
    torch.manual_seed(0)
    return perturbed(cls(cls.config_class(**flags)))


def waves_extractor():
    return transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def log_mel_extractor():
    return transformers.SeamlessM4TFeatureExtractor(padding_value=1.0)
