"""Features of known extractors of transformers, computed for whole batches, are those of the original for each row."""

import numpy as np
import pytest
import torch
import transformers

from raysp.backends.hugging_face.models import known_features
from raysp.models.features.processors import pad
from tests.models.features.test_seamless import TOLERANCE, speechlike

RATE = 16_000
SEAMLESS = transformers.SeamlessM4TFeatureExtractor
EXTRACTORS = {
    "Whisper": transformers.WhisperFeatureExtractor(feature_size=80),
    "Whisper large-v3": transformers.WhisperFeatureExtractor(feature_size=128),
    "Wav2Vec2": transformers.Wav2Vec2FeatureExtractor(),
    "Wav2Vec2 with a mask": transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True, padding_value=1.0),
    "Wav2Vec2 as it is": transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
    "SeamlessM4T": SEAMLESS(),
    "SeamlessM4T without a mask": SEAMLESS(padding_value=1, return_attention_mask=False),
}
SILENCE = np.zeros(9000, np.float32)
BATCHES = [
    [speechlike(30 * RATE - 161, 5)],
    [SILENCE],
    [*(speechlike(count, 6) for count in (4800, 65_600, 27_200)), SILENCE],
    [1e-4 * speechlike(20_800, 7), speechlike(32_000, 8)],
]
ROUNDINGS = 4e-3
"""Of silence in the original of SeamlessM4T, which divides by a variance of zero; here silence is zero."""


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_features_of_a_batch_are_those_of_the_original(kind):
    extractor = EXTRACTORS[kind]
    features, options = known_features(extractor), {} if "Whisper" in kind else {"padding": True}
    for batch in BATCHES:
        expected = dict(extractor(batch, sampling_rate=RATE, return_tensors="pt", **options))
        found = features(*pad(batch))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            for wave, row, other in zip(batch, found[name], value, strict=True):
                tolerance = (TOLERANCE if wave.any() else ROUNDINGS) if "Seamless" in kind else 1e-5
                torch.testing.assert_close(row, other, atol=tolerance, rtol=tolerance)


def test_an_extractor_that_is_not_known_computes_its_features_itself():
    class Subclass(transformers.WhisperFeatureExtractor):
        """An extractor of somebody's own."""

    left = transformers.Wav2Vec2FeatureExtractor(padding_side="left")
    assert [known_features(one) for one in (Subclass(feature_size=80), left)] == [None, None]
