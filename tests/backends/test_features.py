"""Features of known extractors of transformers, computed for whole batches, and where those of others are computed."""

import numpy as np
import pytest
import torch
import transformers

from raysp.backends.hugging_face.models import known_features
from raysp.models.features.processors import pad
from tests.models.features.test_seamless import TOLERANCE, speechlike

RATE = 16_000
WHISPER = {"feature_size": 80}
EXTRACTORS = {
    "Whisper": transformers.WhisperFeatureExtractor(**WHISPER),
    "Whisper large-v3": transformers.WhisperFeatureExtractor(feature_size=128),
    "Wav2Vec2": transformers.Wav2Vec2FeatureExtractor(),
    "Wav2Vec2 with a mask": transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True, padding_value=1.0),
    "Wav2Vec2 as it is": transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
    "SeamlessM4T": transformers.SeamlessM4TFeatureExtractor(),
    "SeamlessM4T without a mask": transformers.SeamlessM4TFeatureExtractor(
        padding_value=1, return_attention_mask=False
    ),
}


SILENCE = np.zeros(9000, np.float32)
WAVES = {
    "a tenth of a second": [speechlike(1600, 1)],
    "thirty seconds": [speechlike(30 * RATE, 3)],
    "almost thirty seconds": [speechlike(30 * RATE - 161, 5)],
    "silence": [SILENCE],
    "several lengths": [*(speechlike(count, 6) for count in (4800, 65_600, 27_200)), SILENCE],
    "a quiet row": [1e-4 * speechlike(20_800, 7), speechlike(32_000, 8)],
}
ROUNDINGS = 4e-3
"""Of silence in the original of SeamlessM4T, which divides by a variance of zero; here silence is zero."""


def of_batch(extractor, waves, **options):
    found = extractor(list(waves), sampling_rate=RATE, return_tensors="pt", **options)
    return dict(found)


@pytest.mark.parametrize("kind", EXTRACTORS)
@pytest.mark.parametrize("waves", WAVES.values(), ids=WAVES)
def test_features_of_a_batch_are_those_of_the_original(kind, waves):
    extractor = EXTRACTORS[kind]
    padded, lengths = pad(waves)
    expected = of_batch(extractor, waves, **({} if "Whisper" in kind else {"padding": True}))
    found = known_features(extractor)(padded, lengths)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        for wave, row, other in zip(waves, found[name], value, strict=True):
            tolerance = (TOLERANCE if wave.any() else ROUNDINGS) if "Seamless" in kind else 1e-5
            torch.testing.assert_close(row, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", ["Whisper", "Wav2Vec2 with a mask", "SeamlessM4T"])
def test_features_of_a_row_do_not_depend_on_its_batch(kind):
    waves, features = WAVES["several lengths"], known_features(EXTRACTORS[kind])
    batch = features(*pad(waves))
    for place, wave in enumerate(waves):
        for name, value in features(*pad([wave])).items():
            frames = value.shape[-1] if value.ndim < 3 or kind == "Whisper" else value.shape[1]
            of_row = batch[name][place]
            of_row = of_row[..., :frames] if value.ndim < 3 or kind == "Whisper" else of_row[:frames]
            assert torch.equal(of_row, value[0])


class Subclass(transformers.WhisperFeatureExtractor):
    """An extractor of somebody's own."""


@pytest.mark.parametrize(
    "extractor",
    [
        Subclass(**WHISPER),
        transformers.WhisperFeatureExtractor(**WHISPER, return_attention_mask=True),
        transformers.Wav2Vec2FeatureExtractor(padding_side="left"),
        transformers.Speech2TextFeatureExtractor(),
    ],
)
def test_an_extractor_that_is_not_known_computes_its_features_itself(extractor):
    assert known_features(extractor) is None
