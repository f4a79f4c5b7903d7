import numpy as np
import pytest
import torch
import transformers

from raysp import CheckpointError
from raysp.models import SeamlessM4TFeatureExtractor

TOLERANCE = 1e-4  # in natural logarithms of energy, or in deviations


def speechlike(num_samples, seed=0):
    """Noise whose spectrum falls by 12 dB an octave, that comes and goes."""
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    low = np.cumsum(noise - noise.mean()) * 0.001
    wave = (0.1 * noise + low) * (0.5 + 0.5 * np.sin(np.arange(num_samples) / 4000))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


WAVES = {
    "speechlike": speechlike(32123),
    "faint, with an offset": 1e-4 * speechlike(9000) + np.float32(0.2),
    "silence, then speech": np.concatenate([np.zeros(4000, np.float32), speechlike(4000)]),
    "shortest": speechlike(560),
    "an odd number of frames": speechlike(400 + 160 * 20),
}


theirs = transformers.SeamlessM4TFeatureExtractor


def test_log_mels_are_those_of_theirs():
    extractor = SeamlessM4TFeatureExtractor(stride=1, do_normalize_per_mel_bins=False)
    for name, wave in WAVES.items():
        expected = theirs()._extract_fbank_features(wave)
        found = extractor(wave, pad_to_multiple_of=None)["input_features"][0]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_tensors": "pt", "pad_to_multiple_of": None},
        {"padding": "max_length", "max_length": 40, "truncation": True, "return_attention_mask": False},
    ],
)
def test_a_call_of_many_equals_theirs(options):
    waves = [speechlike(n, seed=n) for n in (16000, 5000, 9120)]
    expected = theirs(padding_value=0.5)(waves, sampling_rate=16000, **options)
    found = SeamlessM4TFeatureExtractor(padding_value=0.5)(waves, sampling_rate=16000, **options)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, atol=TOLERANCE, rtol=0)


def test_waveforms_come_as_arrays_lists_and_tensors_of_one_channel_or_more():
    extractor = SeamlessM4TFeatureExtractor()
    wave, other = speechlike(2000), speechlike(2000, seed=1)
    expected = extractor([wave, other])["input_features"]
    for same in (
        np.stack([wave, other]),
        torch.from_numpy(np.stack([wave, other])),
        [wave.tolist(), other.tolist()],
        [np.stack([wave, other]), np.stack([other, wave])],
        np.stack([np.stack([wave, other]), np.stack([other, wave])]).astype(np.float64),
    ):
        assert (extractor(same)["input_features"] == expected).all()
    for one in (wave, wave.tolist(), torch.from_numpy(wave)):
        assert (extractor(one)["input_features"] == expected[:1]).all()


def test_wrong_waveforms_are_refused():
    for wave, options, message in (
        (speechlike(2000), {"sampling_rate": 8000}, "sampling_rate is 8000, this checkpoint expects 16000"),
        (speechlike(399), {}, r"shape \(399,\), expected"),
        (np.zeros((1, 1, 1, 2000)), {}, r"expected \(T,\) or \(B, T\) or \(B, C, T\)"),
        (speechlike(2000), {"truncation": True}, "max_length"),
    ):
        with pytest.raises(ValueError, match=message):
            SeamlessM4TFeatureExtractor()(wave, **options)
    with pytest.raises(CheckpointError, match="stride of the feature extractor is 0"):
        SeamlessM4TFeatureExtractor(stride=0)
