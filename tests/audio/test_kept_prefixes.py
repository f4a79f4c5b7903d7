"""Samples of damaged recordings before the damage."""

import io
import struct

import numpy as np
import pytest
import soundfile

from raysp import AudioError, audio
from raysp.audio import DecodeOptions, Excerpt
from raysp.audio.isolation import Decoder

RATE, LENGTH = 16_000, 160_000
NOISE = (np.random.default_rng(0).standard_normal(LENGTH) * 3000).astype(np.int16)


def encoded(samples: np.ndarray, container: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=container, subtype=subtype)
    return file.getvalue()


def cut(num_bytes: int) -> bytes:
    return encoded(NOISE)[:num_bytes]


def flipped(place: int) -> bytes:
    raw = bytearray(encoded(NOISE))
    raw[place] ^= 0xFF
    return bytes(raw)


def with_nan(place: int) -> bytes:
    raw = bytearray(encoded(NOISE / np.float32(32768), "WAV", "FLOAT"))
    start = len(raw) - 4 * (LENGTH - place)
    raw[start : start + 4] = struct.pack("<f", float("nan"))
    return bytes(raw)


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as one:
        yield one


def prefix(chunks) -> tuple[np.ndarray, AudioError]:
    """Return the samples before the error, and the error."""
    found = []
    with pytest.raises(AudioError) as caught:
        found.extend(chunks)
    return np.concatenate(found), caught.value


@pytest.mark.parametrize(("sample_rate", "chunk_samples"), [(16_000, 1 << 20), (8_000, 30_000)])
@pytest.mark.parametrize(
    ("raw", "error_type"),
    [(cut(100_000), "corrupt_audio"), (flipped(150_000), "corrupt_audio"), (with_nan(70_000), "invalid_audio")],
    ids=["cut", "flipped", "nan"],
)
def test_the_prefix_is_the_result_for_a_file_of_the_frames_before_the_damage(
    monkeypatch, decoder, raw, error_type, sample_rate, chunk_samples
):
    options = DecodeOptions(sample_rate, keep_prefix=True)
    isolated, _ = prefix(decoder.decode_chunks(Excerpt(raw), options))
    monkeypatch.setattr("raysp.audio.stream_decoding.CHUNK_SAMPLES", chunk_samples)
    found, error = prefix(audio.decode_chunks(Excerpt(raw), options))
    assert error.error_type == error_type
    with pytest.raises(AudioError) as usual:
        audio.decode(raw, sample_rate=sample_rate)
    assert str(error) == str(usual.value)
    num_frames = round(len(found) * RATE / sample_rate)
    assert 30_000 < num_frames < LENGTH
    assert num_frames == 70_000 or error_type == "corrupt_audio"
    container, subtype = ("FLAC", "PCM_16") if error_type == "corrupt_audio" else ("WAV", "FLOAT")
    frames = NOISE[:num_frames] if container == "FLAC" else NOISE[:num_frames] / np.float32(32768)
    expected = audio.decode(encoded(frames, container, subtype), sample_rate=sample_rate)
    assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())
    assert (isolated.dtype, isolated.tobytes()) == (found.dtype, found.tobytes())


@pytest.mark.parametrize("chunk_samples", [1 << 20, 30_000])
def test_frames_that_are_decoded_behind_the_damage_are_not_kept(monkeypatch, chunk_samples):
    monkeypatch.setattr("raysp.audio.stream_decoding.CHUNK_SAMPLES", chunk_samples)
    quiet = NOISE // 1000
    raw, num_bytes = encoded(quiet), 3000
    half, earlier = len(raw) // 2, len(raw) // 4
    damaged = raw[:half] + raw[earlier : earlier + num_bytes] + raw[half + num_bytes :]
    found, error = prefix(audio.decode_chunks(Excerpt(damaged), DecodeOptions(RATE, keep_prefix=True)))
    assert error.error_type == "corrupt_audio"
    assert len(found) == 77_824
    np.testing.assert_array_equal(found, quiet[: len(found)])


@pytest.mark.slow
def test_bad_files_have_the_same_prefix_in_a_process_of_their_own_and_the_same_error_as_without(shared, decoder):
    num_kept = 0
    for file in sorted((shared / "data" / "bad").iterdir()):
        raw, options, outcomes = file.read_bytes(), DecodeOptions(RATE, keep_prefix=True), []
        for one in (audio, decoder):
            samples, error = [], ""
            try:
                for chunk in one.decode_chunks(Excerpt(raw), options):
                    samples.append(chunk.tobytes())
            except AudioError as found:
                error = str(found)
            outcomes.append((b"".join(samples), error))
        assert outcomes[0] == outcomes[1], file.name
        [usual] = audio.decode_all([Excerpt(raw)], DecodeOptions(RATE))
        assert outcomes[0][1] == (str(usual) if isinstance(usual, AudioError) else ""), file.name
        num_kept += bool(outcomes[0][0] and outcomes[0][1])
    assert num_kept == 5
