"""Models of transformers on the stand-in device: features of a batch are made on it, or before it is taken."""

import threading

import numpy as np
import pytest
import torch
import transformers

import raysp
from raysp.backends.hugging_face import models
from raysp.backends.hugging_face.models import known_features
from raysp.models.features.processors import pad
from raysp.ops.labelling import Batch
from tests.backends import theirs
from tests.device.conftest import assert_same
from tests.device.stand_in import NAME, counted
from tests.ops.test_labelling import block_of

EXTRACTORS = {
    "Whisper": transformers.WhisperFeatureExtractor(),
    "Wav2Vec2": transformers.Wav2Vec2FeatureExtractor(),
    "Wav2Vec2 with a mask": transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True),
    "SeamlessM4T": transformers.SeamlessM4TFeatureExtractor(),
}


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_features_on_the_device_are_those_of_the_cpu_without_a_copy_or_a_wait(kind):
    features = known_features(EXTRACTORS[kind])
    waves = [*theirs.waves([16_000, 9_001, 30_400]), np.zeros(16_000, np.float32)]
    expected = features(*pad(waves))
    on_device = [one.to(NAME) for one in pad(waves)]
    features(*on_device)  # constants are made
    with counted() as counts:
        found = features(*on_device)
    assert (counts.waits, counts.copies_in, counts.copies_out) == ({}, {}, {})
    for name, value in expected.items():
        assert found[name].device.type == NAME
        torch.testing.assert_close(found[name].cpu(), value, atol=1e-5, rtol=1e-5)


CASES = {
    "Whisper": (theirs.tiny_whisper, [raysp.Transcript(), raysp.Embedding()], True),
    "WavLM": (lambda folder: theirs.tiny_waveform_model(folder, "WavLMForCTC"), [raysp.Transcript(words=True)], True),
    "Speech2Text": (lambda folder: theirs.tiny_writer(folder, "Speech2Text"), [raysp.Transcript()], False),
    "AST": (theirs.tiny_spectrogram_classifier, [raysp.Classes()], False),
}


def counting(generate, generated):
    """Return a `generate` that adds what it counted to a list."""

    def counted_generate(*args, **options):
        with counted() as counts:
            ids = generate(*args, **options)
        generated.append(counts)
        return ids

    return counted_generate


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("kind", CASES)
def test_the_host_computes_no_features_while_the_device_is_held(kind, tmp_path, monkeypatch):
    make, outputs, is_known = CASES[kind]
    folder = make(tmp_path)
    waves = [(32767 * wave).astype(np.int16) for wave in theirs.waves([16_000, 16_000, 9_600])]
    options = {"window_seconds": 1.2} if kind == "AST" else {}
    expected = theirs.labelling(folder, *outputs, **options)(block_of(waves))[0].to_pylist()
    op = theirs.labelling(folder, *outputs, device=NAME, **options)
    held, passes, generated = [], [], []
    original, run = models.features_of, Batch.forward

    def features_of(*given, **options):
        held.append("copy" not in threading.current_thread().name)
        return original(*given, **options)

    def forward(*given):
        with counted() as counts:
            result = run(*given)
        passes.append(counts)
        return result

    for cls in (transformers.WhisperForConditionalGeneration, transformers.Speech2TextForConditionalGeneration):
        monkeypatch.setattr(cls, "generate", counting(cls.generate, generated))
    monkeypatch.setattr(models, "features_of", features_of)
    monkeypatch.setattr(Batch, "forward", forward)
    op(block_of(waves))  # constants are made
    held.clear()
    passes.clear()
    generated.clear()
    with counted() as of_batch:
        rows = op(block_of(waves))[0].to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert_same(rows, expected)
    assert held == ([] if is_known else [False] * 3)
    from_device = [one for counts in passes for one in (*counts.copies_out, *counts.waits)]
    assert [one for one in from_device if "hugging_face/features" in one] == []
    assert [one for counts in passes for one in counts.copies_out if "hugging_face" in one] == []
    ours = of_batch.waits + of_batch.blocking
    for counts in generated:
        ours -= counts.waits + counts.blocking
    assert [one for one in ours if one.endswith(("__call__", "<dictcomp>")) and "/hugging_face/" in one] == []
