"""Opus by PyAV: the samples of libsndfile, and all that is irregular as without PyAV."""

import io
from fractions import Fraction

import numpy as np
import pytest
import soxr

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, decode, decode_chunks, opus
from raysp.audio.opus import Irregular, packet_samples
from raysp.audio.parsing.ogg import checksum
from raysp.audio.source import open_reader
from tests.audio.test_decoding import encode, noise

av = pytest.importorskip("av")
RATE = 48_000
STEP = 1 / 32768
SPEECH = soxr.resample(noise(48_000).astype(np.float32) / 32768, 16_000, RATE)


def by_libopus(num_channels: int, bit_rate: int, application: str, frame_duration: str) -> bytes:
    file, layout = io.BytesIO(), "mono" if num_channels == 1 else "stereo"
    options = {"application": application, "frame_duration": frame_duration}
    with av.open(file, "w", format="ogg") as media:
        stream = media.add_stream("libopus", rate=RATE, layout=layout, options=options)
        stream.bit_rate = bit_rate
        samples = np.stack([SPEECH * (1 - 0.5 * one) for one in range(num_channels)], axis=1)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        resampler = av.AudioResampler("flt", layout, RATE, frame_size=round(48 * float(frame_duration)))
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            media.mux(stream.encode(part))
        media.mux(stream.encode(None))
    return file.getvalue()


def outcome(audio, **options) -> tuple[np.ndarray, str]:
    """Return the samples of a recording, those before its damage, and the error."""
    found: list[np.ndarray] = [np.empty(0, np.float32)]
    try:
        for chunk in decode_chunks(Excerpt(audio, **options), DecodeOptions(RATE, keep_prefix=True, max_seconds=100.0)):
            found.append(chunk)
    except AudioError as error:
        return np.concatenate(found), f"{error.error_type}: {error}"
    return np.concatenate(found), ""


def same_with_and_without(audio, monkeypatch, **options) -> tuple[np.ndarray, str]:
    found, error = outcome(audio, **options)
    with monkeypatch.context() as patch:
        patch.setattr(opus, "is_available", lambda: False)
        expected, expected_error = outcome(audio, **options)
    assert error == expected_error
    assert len(found) == len(expected)
    # After a seek, or at a joint, samples of an older libsndfile differ by up to 0.7 of a step.
    np.testing.assert_allclose(found, expected, rtol=0, atol=STEP)
    return found, error


def is_decoded_by_pyav(audio: bytes) -> bool:
    source = opus.open_opus(open_reader(audio))
    return source is not None and len(source.read(1 << 40)) > 0 and not source.has_given_up


def pages_of(audio: bytes) -> list[bytes]:
    pages, place = [], 0
    while place < len(audio):
        sizes = audio[place + 27 : place + 27 + audio[place + 26]]
        pages.append(audio[place : place + 27 + len(sizes) + sum(sizes)])
        place += len(pages[-1])
    return pages


def changed(page: bytes, place: int, new: bytes) -> bytes:
    page = page[:place] + new + page[place + len(new) :]
    return page[:22] + checksum(page).to_bytes(4, "little") + page[26:]


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize(
    ("bit_rate", "application", "frame_duration"),
    [
        *((12_000, "voip", "20"), (24_000, "voip", "60"), (32_000, "audio", "20"), (96_000, "audio", "20")),
        *((64_000, "lowdelay", "2.5"), (64_000, "lowdelay", "5")),
    ],
)
def test_samples_are_those_of_libsndfile(monkeypatch, num_channels, bit_rate, application, frame_duration):
    audio = by_libopus(num_channels, bit_rate, application, frame_duration)
    assert is_decoded_by_pyav(audio)
    found, error = same_with_and_without(audio, monkeypatch)
    assert (len(found), error) == (len(SPEECH), "")
    same_with_and_without(io.BytesIO(audio), monkeypatch)


@pytest.mark.parametrize("num_frames", [0, 1, 312, 960, 961, 5000, 48_000, 143_999])
def test_durations_are_those_of_libsndfile(monkeypatch, num_frames):
    audio = encode(SPEECH[:num_frames], RATE, "OGG", "OPUS")
    found, _ = same_with_and_without(audio, monkeypatch)
    assert len(found) == num_frames
    assert is_decoded_by_pyav(audio) or num_frames < 2


@pytest.mark.parametrize(
    "options", [{"offset": 1.0}, {"offset": 0.5, "duration": 0.7}, {"offset": 2.99}, {"offset": 9.0}]
)
def test_parts_are_those_of_libsndfile(monkeypatch, options):
    whole = encode(SPEECH, RATE, "OGG", "OPUS")
    same_with_and_without(whole, monkeypatch, **options)
    same_with_and_without(whole[: len(whole) * 2 // 3], monkeypatch, **options)


@pytest.mark.lengthy
def test_joined_streams_are_those_of_libsndfile(monkeypatch):
    mono, stereo = encode(SPEECH, RATE, "OGG", "OPUS"), by_libopus(2, 32_000, "audio", "20")
    other, vorbis = encode(noise(16_000), 16_000, "OGG", "OPUS"), encode(noise(16_000), 16_000, "OGG", "VORBIS")
    for audio in (mono + stereo, mono + mono, stereo + other + mono, mono + vorbis + mono, vorbis + mono):
        assert len(same_with_and_without(audio, monkeypatch)[0]) > len(SPEECH)


@pytest.mark.slow
def test_damage_is_told_as_without_pyav(monkeypatch):
    audio = by_libopus(1, 32_000, "audio", "20")
    pages = pages_of(audio)
    assert len(pages) >= 5
    rng = np.random.default_rng(0)
    cases = [audio[: int(cut)] for cut in rng.integers(60, len(audio), 12)]
    for place in rng.integers(0, len(audio), 24):
        cases.append(audio[:place] + bytes([audio[place] ^ 0x55]) + audio[place + 1 :])
    cases += [b"".join(pages[:n] + pages[n + 1 :]) for n in range(len(pages))]
    cases += [b"".join([*pages[:n], pages[n], *pages[n:]]) for n in range(len(pages))]
    cases += [b"".join([*pages[:3], rng.bytes(3000), *pages[3:]]), audio + rng.bytes(500), audio + bytes(4000)]
    cases.append(b"".join([*pages[:-1], changed(pages[-1], 5, b"\0")]))  # without an end
    for shift in (-3000, -100, 100, 3000):
        for n in (2, len(pages) - 1):
            position = int.from_bytes(pages[n][6:14], "little") + shift
            page = changed(pages[n], 6, max(0, position).to_bytes(8, "little"))
            cases.append(b"".join([*pages[:n], page, *pages[n + 1 :]]))
    for n in (2, len(pages) - 1):  # packets that do not decode, with right checksums
        begin = 27 + pages[n][26]
        cases.append(b"".join([*pages[:n], changed(pages[n], begin, b"\xff" * 400), *pages[n + 1 :]]))
    for head in (changed(pages[0], 28 + 16, b"\x00\x03"), changed(pages[0], 28 + 12, bytes(4))):  # a gain, no rate
        cases.append(b"".join([head, *pages[1:]]))
    assert not all(is_decoded_by_pyav(one) for one in cases)
    for one in cases:
        same_with_and_without(one, monkeypatch)


def test_the_samples_of_a_packet_are_counted_by_its_first_bytes():
    assert [packet_samples(bytes([config << 3])) for config in (0, 3, 12, 13, 16, 31)] == [
        480,
        2880,
        480,
        960,
        120,
        960,
    ]
    assert packet_samples(b"\xf9") == 1920
    assert packet_samples(b"\xfb\x03") == 2880
    for packet in (b"", b"\xfb", b"\xfb\x00", b"\xfb\x07"):
        with pytest.raises(Irregular):
            packet_samples(packet)


def test_without_pyav_opus_is_decoded_by_libsndfile(monkeypatch):
    monkeypatch.setattr(opus, "is_available", lambda: False)
    audio = encode(SPEECH, RATE, "OGG", "OPUS")
    assert opus.open_opus(open_reader(audio)) is None
    assert len(decode(audio, sample_rate=16_000)) == len(SPEECH) // 3
