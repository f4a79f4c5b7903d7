"""Features of every extractor against those of transformers; rows of a batch, kinds of waveforms, and refusals."""

import numpy as np
import pytest
import torch
import transformers

import raysp.models
from raysp import CheckpointError
from raysp.models import ParakeetFeatureExtractor, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor


def speechlike(num_samples, seed=0):
    """Noise whose spectrum falls by 12 dB an octave, that comes and goes."""
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    low = np.cumsum(noise - noise.mean()) * 0.001
    wave = (0.1 * noise + low) * (0.5 + 0.5 * np.sin(np.arange(num_samples) / 4000))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


WAVES = [*(speechlike(n, seed=n) for n in (16_000, 5_000, 9_037)), 1e-4 * speechlike(1_601) + np.float32(0.2)]
"""Of several lengths, the last one faint and with an offset."""
TOLERANCES = {"Wav2Vec2": 1e-6, "SeamlessM4T": 1e-4, "Parakeet": 1e-4}
CUT = {"padding": "max_length", "truncation": True}
FILLED = {"padding_value": 0.5}
NARROW = {"feature_size": 20, "sampling_rate": 4000, "hop_length": 40, "win_length": 100, "n_fft": 128}
CASES = [
    ("Wav2Vec2", FILLED, {"padding": "longest", "pad_to_multiple_of": 128}),
    ("Wav2Vec2", {**FILLED, "do_normalize": False}, {"padding": False}),
    ("Wav2Vec2", {**FILLED, "return_attention_mask": True}, {**CUT, "max_length": 6_000, "pad_to_multiple_of": 64}),
    ("SeamlessM4T", FILLED, {}),
    ("SeamlessM4T", FILLED, {"return_tensors": "pt", "pad_to_multiple_of": None}),
    ("SeamlessM4T", FILLED, {**CUT, "max_length": 40, "return_attention_mask": False}),
    *(("Parakeet", settings, {}) for settings in ({}, {"feature_size": 128}, {"preemphasis": 0.0}, NARROW)),
]


@pytest.mark.parametrize(("kind", "settings", "options"), CASES)
def test_features_equal_theirs(kind, settings, options):
    """Of many recordings, and of one alone."""
    name, of_theirs = f"{kind}FeatureExtractor", {"return_tensors": "pt"} if kind == "Parakeet" else {}
    ours, theirs = (getattr(library, name)(**settings) for library in (raysp.models, transformers))
    for given in (WAVES, WAVES[1:2]):
        found = ours(given, sampling_rate=ours.sampling_rate, **options)
        expected = theirs(given, sampling_rate=ours.sampling_rate, **of_theirs, **options)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert kind == "Wav2Vec2" or type(found[key]) is type(value)
            for mine, other in zip(found[key], value, strict=True):
                assert mine.dtype == other.dtype
                np.testing.assert_allclose(mine, other, atol=TOLERANCES[kind], rtol=TOLERANCES[kind])


@pytest.mark.parametrize("kind", ["Wav2Vec2", "SeamlessM4T"])
def test_a_row_of_a_batch_is_as_it_is_alone(kind):
    extractor, key = {
        "Wav2Vec2": (Wav2Vec2FeatureExtractor(), "input_values"),
        "SeamlessM4T": (SeamlessM4TFeatureExtractor(padding_value=1.0), "input_features"),
    }[kind]
    rows = [torch.from_numpy(wave) for wave in (*WAVES, np.zeros(2_000, np.float32))]
    found = extractor.extract(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([*map(len, rows)]))
    for row, values, mask in zip(rows, found[key], found["attention_mask"], strict=True):
        alone = extractor.extract(row[None], torch.tensor([len(row)]))
        assert torch.equal(values[: len(alone[key][0])], alone[key][0])
        assert mask.sum() == alone["attention_mask"].sum()


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


def test_settings_and_waveforms_that_cannot_be_are_refused():
    waveforms, log_mels, wave = Wav2Vec2FeatureExtractor(), SeamlessM4TFeatureExtractor(), WAVES[1]
    for error, call, message in (
        (ValueError, lambda: waveforms(wave, sampling_rate=8000), "is 8000, this checkpoint expects 16000"),
        (ValueError, lambda: log_mels(wave, sampling_rate=8000), "is 8000, this checkpoint expects 16000"),
        (ValueError, lambda: waveforms(np.zeros((1, 2, 100))), r"expected \(T,\) or \(B, T\)"),
        (ValueError, lambda: log_mels(np.zeros((1, 1, 1, 2000))), r"expected \(T,\) or \(B, T\) or \(B, C, T\)"),
        (ValueError, lambda: waveforms(WAVES, return_tensors="pt"), "cannot form a tensor: pass padding=True"),
        (ValueError, lambda: log_mels(wave[:399]), r"shape \(399,\), expected"),
        (ValueError, lambda: log_mels(wave, truncation=True), "max_length"),
        (AttributeError, lambda: waveforms(wave).labels, "no entry 'labels', expected one of: input_values"),
        (CheckpointError, lambda: SeamlessM4TFeatureExtractor(stride=0), "stride of the feature extractor is 0"),
        (CheckpointError, lambda: ParakeetFeatureExtractor(hop_length=0), "hop_length of the"),
        (CheckpointError, lambda: ParakeetFeatureExtractor(n_fft=256), "n_fft is 256 and win_length"),
    ):
        with pytest.raises(error, match=message):
            call()
