"""Models of transformers on the stand-in device: features of a batch are made on it, or before it is taken."""

import numpy as np
import pytest
import torch
import transformers

import raysp
from raysp.backends.hugging_face.models import known_features
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
    padded = torch.nn.utils.rnn.pad_sequence([*map(torch.from_numpy, waves)], batch_first=True)
    given = padded, torch.tensor([*map(len, waves)])
    expected = features(*given)
    on_device = [one.to(NAME) for one in given]
    features(*on_device)  # constants are made
    with counted() as counts:
        found = features(*on_device)
    assert (counts.waits, counts.copies_in, counts.copies_out) == ({}, {}, {})
    for name, value in expected.items():
        assert found[name].device.type == NAME
        torch.testing.assert_close(found[name].cpu(), value, atol=1e-5, rtol=1e-5)


CASES = {
    "Whisper": (theirs.tiny_whisper, [raysp.Transcript(), raysp.Embedding()]),
    "WavLM": (lambda folder: theirs.tiny_waveform_model(folder, "WavLMForCTC"), [raysp.Transcript(words=True)]),
}


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("kind", CASES)
def test_labels_are_those_of_the_cpu_and_features_come_from_no_value_of_the_device(kind, tmp_path):
    make, outputs = CASES[kind]
    folder = make(tmp_path)
    waves = [(32767 * wave).astype(np.int16) for wave in theirs.waves([16_000, 16_000, 9_600])]
    expected = theirs.labelling(folder, *outputs)(block_of(waves))[0].to_pylist()
    op = theirs.labelling(folder, *outputs, device=NAME)
    op(block_of(waves))  # constants are made
    with counted() as counts:
        rows = op(block_of(waves))[0].to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert_same(rows, expected)
    assert [one for one in (*counts.copies_out, *counts.waits) if "hugging_face/features" in one] == []
