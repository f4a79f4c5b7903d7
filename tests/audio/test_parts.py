"""Parts of one recording that are decoded one after the other, and the samples before the damage of a recording."""

import io
import struct

import numpy as np
import pytest

from raysp import AudioError, audio
from raysp.audio import DecodeOptions, Excerpt
from raysp.audio.isolation import Decoder
from raysp.audio.stream_decoding import LastStream, decode_chunks
from raysp.audio.waveforms import join
from tests.audio.recordings import RATE, encode, muxed, noise

OPTIONS = DecodeOptions(RATE)
FORMS = {"m4a": ("ipod", "aac"), "webm": ("webm", "libopus", 48_000), "matroska": ("matroska", "flac")}
NAMES = [*FORMS, "adts", "ogg", "flac", "mp3", "wav", "joined", "damaged", "cut"]


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as one:
        yield one


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    """Recordings in several formats, of which some are joined or damaged."""
    signal = noise(50_123, dtype="float32")
    named = {name: muxed(signal, *how) for name, how in FORMS.items()} | {"adts": muxed(signal, "adts", "aac")}
    named |= {name: encode(signal, RATE, name.upper()) for name in ("ogg", "flac", "mp3", "wav")}
    mp3, m4a = named["mp3"], named["m4a"]
    damaged = mp3[: len(mp3) // 2] + bytes(4000) + mp3[len(mp3) // 2 + 4000 :]
    return named | {"joined": mp3 + named["flac"] + mp3, "damaged": damaged, "cut": m4a[: 2 * len(m4a) // 3]}


def outcome(excerpt: Excerpt, last: LastStream | None = None) -> object:
    try:
        return join(decode_chunks(excerpt, OPTIONS, last))
    except AudioError as error:
        return error.error_type, str(error)


@pytest.mark.parametrize("name", NAMES)
def test_parts_equal_those_of_a_stream_of_their_own(recordings, decoder, name):
    starts = [0.0, 0.4, 0.4, 0.65, 1.30002, 1.30002, 1.0, 2.9, 3.0, 0.1, 3.2, 9.0, 0.2]
    parts = [*((start, 0.25) for start in starts), (0.1, 0.2), (0.3, 0.0), (0.31, None), (0.5, 0.1), (0.6, 1.0)]
    last, data = LastStream(), recordings[name]
    excerpts = [Excerpt(data, *part, key=name) for part in parts]
    for excerpt, isolated in zip(excerpts, decoder.decode_all(excerpts, OPTIONS), strict=True):
        alone, behind = outcome(excerpt), outcome(excerpt, last)
        assert type(alone) is type(behind), excerpt.offset
        np.testing.assert_array_equal(behind, alone, err_msg=str(excerpt.offset))
        isolated = (isolated.error_type, str(isolated)) if isinstance(isolated, AudioError) else isolated
        np.testing.assert_array_equal(isolated, alone, err_msg=str(excerpt.offset))


def test_a_part_of_another_recording_does_not_go_on_with_the_last_one(recordings, decoder):
    parts = [(name, start) for start in (0.0, 0.2, 1.7) for name in NAMES]
    excerpts = [Excerpt(io.BytesIO(recordings[name]), start, 0.3, key=name) for name, start in parts]
    for (name, start), found in zip(parts, decoder.decode_all(excerpts, OPTIONS), strict=True):
        expected = outcome(Excerpt(recordings[name], start, 0.3))
        found = (found.error_type, str(found)) if isinstance(found, AudioError) else found
        np.testing.assert_array_equal(found, expected, err_msg=f"{name} {start}")


class Counting(io.BytesIO):
    num_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.num_bytes += len(data)
        return data


@pytest.mark.parametrize("name", ["mp3", "m4a", "ogg"])
def test_neighbours_in_order_read_a_recording_once(name):
    samples = noise(RATE * 120, dtype="float32")
    data = muxed(samples, "ipod", "aac") if name == "m4a" else encode(samples, RATE, name.upper())
    file, last = Counting(data), LastStream()
    # Ends and starts round to other frames, so that neighbours may share one.
    for number in range(130):
        assert len(outcome(Excerpt(file, number / 7, 1 / 7 + 1 / RATE, key=name), last)) > 2000
    assert file.num_bytes < len(data)


LENGTH = 1_300_000
"""More than the samples that are decoded at once."""
NOISE = noise(LENGTH)


def cut(num_bytes: int) -> bytes:
    return encode(NOISE, RATE, "FLAC")[:num_bytes]


def flipped(place: int) -> bytes:
    raw = bytearray(encode(NOISE, RATE, "FLAC"))
    raw[place] ^= 0xFF
    return bytes(raw)


def with_nan(place: int) -> bytes:
    raw = bytearray(encode(NOISE / np.float32(32768), RATE, "WAV", "FLOAT"))
    start = len(raw) - 4 * (LENGTH - place)
    raw[start : start + 4] = struct.pack("<f", float("nan"))
    return bytes(raw)


def prefix(chunks) -> tuple[np.ndarray, AudioError]:
    """Return the samples before the error, and the error."""
    found = []
    with pytest.raises(AudioError) as caught:
        found.extend(chunks)
    return np.concatenate(found), caught.value


@pytest.mark.parametrize("sample_rate", [16_000, 8_000])
@pytest.mark.parametrize(
    ("damage", "place", "error_type"),
    [
        (cut, 2_100_000, "corrupt_audio"),
        (flipped, 150_000, "corrupt_audio"),
        (flipped, 2_100_000, "corrupt_audio"),
        (with_nan, 1_200_000, "invalid_audio"),
    ],
)
def test_the_prefix_is_the_result_for_a_file_of_the_frames_before_the_damage(
    decoder, damage, place, error_type, sample_rate
):
    raw, options = damage(place), DecodeOptions(sample_rate, keep_prefix=True)
    found, error = prefix(audio.decode_chunks(Excerpt(raw), options))
    assert error.error_type == error_type
    with pytest.raises(AudioError) as usual:
        audio.decode(raw, sample_rate=sample_rate)
    assert str(error) == str(usual.value)
    num_frames = round(len(found) * RATE / sample_rate)
    assert num_frames == place if damage is with_nan else place / 3 < num_frames < LENGTH
    frames = NOISE[:num_frames]
    same = encode(frames / np.float32(32768), RATE, "WAV", "FLOAT") if damage is with_nan else encode(frames)
    expected = audio.decode(same, sample_rate=sample_rate)
    isolated, _ = prefix(decoder.decode_chunks(Excerpt(raw), options))
    for one in (found, isolated):
        assert (one.dtype, one.tobytes()) == (expected.dtype, expected.tobytes())


@pytest.mark.parametrize("length", [160_000, LENGTH])
def test_frames_that_are_decoded_behind_the_damage_are_not_kept(length):
    quiet = NOISE[:length] // 1000
    raw, num_bytes = encode(quiet, RATE, "FLAC"), 3000
    half, earlier = len(raw) // 2, len(raw) // 4
    damaged = raw[:half] + raw[earlier : earlier + num_bytes] + raw[half + num_bytes :]
    found, error = prefix(audio.decode_chunks(Excerpt(damaged), DecodeOptions(RATE, keep_prefix=True)))
    assert error.error_type == "corrupt_audio"
    assert 0 <= length // 2 - len(found) < 8192
    np.testing.assert_array_equal(found, quiet[: len(found)])
