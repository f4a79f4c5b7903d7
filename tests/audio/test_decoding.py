"""Recordings of one stream: samples as of libsndfile and soxr, the types of errors, channels, limits, parts."""

import contextlib
import functools
import io
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, TooLong, decode, decode_chunks
from raysp.audio.container import SOUND_FILES
from raysp.audio.waveforms import INT16_SUBTYPES
from tests.audio.recordings import encode, muxed, noise, wav, with_flac_streaminfo

CONTAINERS = SOUND_FILES | {"MP3", "OGG"}
CHUNK = 1 << 20
"""Samples of all channels that are decoded at once."""


def same(samples, expected, container):
    """Compare samples with those of libsndfile: bit for bit, a tenth of a step of 16 bits where PyAV decodes."""
    atol = 0.1 / 32768 if container in ("MP3", "OGG") else 0.0
    np.testing.assert_allclose(samples, expected, rtol=0, atol=atol)


WRITABLE = [
    (container, subtype)
    for container in sorted(CONTAINERS)
    for subtype in soundfile.available_subtypes(container)
    if (container, subtype) not in {("AIFF", "DWVW_12"), ("WAV", "MPEG_LAYER_III")}  # listed, not implemented
    and subtype not in {"MPEG_LAYER_I", "MPEG_LAYER_II"}
]


@pytest.mark.parametrize("container", sorted(CONTAINERS))
def test_every_codec_of_a_container_is_decoded_and_to_int16_only_where_it_loses_nothing(container):
    for subtype in [subtype for name, subtype in WRITABLE if name == container]:
        rate = 48_000 if subtype == "OPUS" else 16_000
        audio = encode(noise(16000), rate, container, subtype)
        samples = decode(audio, sample_rate=rate)
        # A seek after the read fails where a codec has none.
        with soundfile.SoundFile(io.BytesIO(audio)) as sound, contextlib.suppress(soundfile.LibsndfileError):
            whole = np.empty(sound.frames, np.float32)
            sound.read(out=whole)
        assert samples.dtype == (np.int16 if subtype in INT16_SUBTYPES else np.float32), subtype
        same(samples, whole * np.float32(32768) if subtype in INT16_SUBTYPES else whole, container)


def aiff_of_no_channels():
    aiff = bytearray(encode(noise(100), 16000, "AIFF"))
    place = aiff.find(b"COMM") + 8
    aiff[place : place + 2] = b"\0\0"
    return bytes(aiff)


def with_value(value, place, subtype, sample_rate):
    samples = noise(1_100_000, dtype="float64")
    samples[place] = value
    return encode(samples, sample_rate, "WAV", subtype)


def half_a_flac():
    flac = encode(noise(40000), 16000, "FLAC")
    return flac[: len(flac) // 2]


OUTCOMES = {
    "no_audio": lambda: [None, b"", bytearray(), memoryview(b"")],
    "unsupported_format": lambda: [
        *(b"<html><body>404</body></html>", b"#EXTM3U\nhttp://x/y.mp3\n", b"\x1b[2Jhello", b"RIFF____AVI ", b"x"),
        wav(tag=0x161),  # Windows Media
        *(encode(noise(4000, dtype="float32"), 16000, name) for name in ("VOC", "SVX", "PAF")),
    ],
    "corrupt_audio": lambda: [
        *(encode(noise(100))[:cut] for cut in (5, 11, 13, 30, 40)),
        wav(tag=0x55),  # MPEG layer 3, without frames
        half_a_flac(),
    ],
    "invalid_audio": lambda: [
        *(wav(sample_rate=rate) for rate in (0, 1, 99, 2_000_000_000, 4_000_000_000)),
        *(wav(channels=channels) for channels in (0, 1025, 65535)),
        aiff_of_no_channels(),
        with_value(np.nan, 0, "FLOAT", 16000),
        with_value(-np.inf, 1_099_999, "DOUBLE", 16000),
        with_value(np.inf, 1_099_999, "FLOAT", 44100),
    ],
}


@pytest.mark.parametrize("expected", OUTCOMES)
def test_bytes_that_are_no_recording_have_the_type_of_their_error(expected):
    for number, audio in enumerate(OUTCOMES[expected]()):
        with pytest.raises(AudioError) as caught:
            decode(audio, sample_rate=16000)
        assert caught.value.error_type == expected, number
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("container", "sample_rate", "channels", "num_frames"),
    [
        *(("WAV", rate, channels, 30_000) for rate, channels in ((8000, 1), (16000, 2), (22050, 3), (192000, 8))),
        *(("WAV", 16000, 2, CHUNK), ("FLAC", 44100, 2, CHUNK), ("OGG", 44100, 1, CHUNK + 999)),
    ],
)
def test_samples_are_mean_and_soxr_of_the_whole_also_in_chunks(container, sample_rate, channels, num_frames):
    audio = encode(noise(num_frames, channels), sample_rate, container)
    whole, _ = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    mono = whole.mean(axis=1, dtype=np.float32)
    expected = mono if sample_rate == 16000 else soxr.resample(mono, sample_rate, 16000, quality="HQ")
    chunks = list(decode_chunks(Excerpt(audio), DecodeOptions(16000)))
    assert (len(chunks) > 1) == (num_frames >= CHUNK)
    same(np.concatenate(chunks), expected, container)
    np.testing.assert_array_equal(decode(audio, sample_rate=16000), np.concatenate(chunks))


CANCEL = "2 channels that cancel each other: "


@pytest.mark.parametrize("container", ["WAV", "FLAC", "AIFF"])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_channels_that_cancel_each_other_are_invalid_and_not_silence(container, sample_rate):
    one = noise(20_000)
    audio = encode(np.stack([one, -one], 1), 16_000, container)
    with pytest.raises(AudioError, match=CANCEL + r".* Decode\(channel=0\)") as caught:
        decode(audio, sample_rate=sample_rate)
    assert caught.value.error_type == "invalid_audio"
    assert len(decode(audio, sample_rate=sample_rate, channel=1)) == len(one) * sample_rate // 16_000
    with pytest.raises(AudioError, match=r"stream 2, at byte .*: 2 channels that cancel"):
        decode(encode(one, 16_000, container) + audio, sample_rate=sample_rate)


def test_an_offset_from_zero_does_not_hide_channels_that_cancel_each_other():
    one = noise(20_000).astype(np.float32) / 32768 / 4
    with pytest.raises(AudioError, match=f"{CANCEL}their mean is"):
        decode(encode(np.stack([one + 0.2, -one + 0.2], 1), 16_000, "WAV", "FLOAT"), sample_rate=16_000)
    for offsets in ([0.2, -0.2], [0.4, -0.3]):
        for channels in ([one, one], [one * 0, one * 0]):
            frames = np.stack(channels, 1) + np.float32(offsets)
            assert len(decode(encode(frames, 16_000, "WAV", "FLOAT"), sample_rate=16_000)) == len(one)


EDGE = CHUNK / 2 / 16_000
"""Seconds of two channels after which the second chunk begins."""


@pytest.mark.parametrize(
    ("places", "level", "level_of_others", "is_error"),
    [
        ((0, 1.4), 1, 0.3, True),
        ((EDGE - 0.7, EDGE + 0.7), 1, 0.3, True),
        ((EDGE + 1, EDGE + 2.4), 1, 0.3, True),
        ((0, 0.9), 1, 0.1, False),
        ((0, 4), 0.001, 0.001, False),
        ((0, 1.4), 1, 1, False),
    ],
    ids=["first", "over an edge", "last", "short", "quiet", "small share"],
)
def test_a_long_and_loud_part_whose_channels_cancel_each_other_is_not_lost_in_silence(
    places, level, level_of_others, is_error
):
    mono = noise(round(16_000 * (EDGE + 3)))
    frames = np.stack([mono] * 2, 1) * level_of_others
    part = slice(*(round(16_000 * one) for one in places))
    frames[part] = mono[part, None] * level * [1, -1]
    audio = encode(frames.astype(np.int16))
    expected = pytest.raises(AudioError, match=CANCEL + r"their mean is silent in 1\.[0-5] seconds")
    with expected if is_error else contextlib.nullcontext():
        assert len(decode(audio, sample_rate=16_000)) == len(frames)
    assert len(decode(audio, sample_rate=16_000, channel=0)) == len(frames)


def test_channels_that_do_not_cancel_each_other_are_mixed():
    one, other = noise(20_000), noise(20_000, seed=1)
    for channels in (
        [one, other],
        [one, np.zeros_like(one)],
        [one, (-0.97 * one).astype(np.int16)],
        [np.zeros_like(one)] * 2,
        [one, -one, other],
        [one, *([np.zeros_like(one)] * 31)],
        [np.ones_like(one), -np.ones_like(one)],  # one step of 16 bits is silence
    ):
        frames = np.stack(channels, 1)
        expected = frames.astype(np.float32).mean(1) / np.float32(32768)
        np.testing.assert_allclose(decode(encode(frames), sample_rate=16000), expected, atol=1e-7)


def test_a_channel_can_be_chosen():
    frames = noise(5000, 3)
    for index in range(3):
        samples = decode(encode(frames), sample_rate=16000, channel=index)
        assert samples.dtype == np.int16
        np.testing.assert_array_equal(samples, frames[:, index])
    for index in (3, -1):
        with pytest.raises(AudioError) as caught:
            decode(encode(frames), sample_rate=16000, channel=index)
        assert caught.value.error_type == "invalid_audio"


def test_a_truncated_stream_is_decoded_up_to_its_end():
    samples = noise(40000)
    for container in ("WAV", "AIFF", "AU", "W64"):
        audio = encode(samples, 16000, container)
        found = decode(audio[: len(audio) // 2], sample_rate=16000)
        assert 19_000 < len(found) <= 20_000
        np.testing.assert_array_equal(found, samples[: len(found)])
    for container in ("MP3", "OGG"):
        audio = encode(noise(160_000), 16000, container)
        assert 60_000 < len(decode(audio[: len(audio) // 2], sample_rate=16000)) < 100_000


def test_too_long_is_counted_in_decoded_frames():
    audio = encode(noise(48000), 8000)
    assert len(decode(audio, sample_rate=16000, max_seconds=6.0)) == 96000
    with pytest.raises(TooLong, match=r"max_seconds=5.5; stopped after 5\.500 seconds") as caught:
        decode(audio, sample_rate=16000, max_seconds=5.5)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.seconds, again.max_seconds, str(again)) == (5.500125, 5.5, str(caught.value))
    flac = with_flac_streaminfo(encode(noise(40000), 16000, "FLAC"), num_frames=2**36 - 1)
    assert len(decode(flac, sample_rate=16000, max_seconds=3)) == 40000


PRINT_PEAK_GROWTH = """
import sys
from pathlib import Path
from raysp.audio import Excerpt, TooLong, DecodeOptions, decode, decode_chunks
from raysp.devices import highest_resident_bytes
first, *others = [Path(name).read_bytes() for name in sys.argv[1:]]
def run(audio):
    try: decode(audio, sample_rate=16000, max_seconds=60)
    except TooLong: pass
    return sum(len(chunk) for chunk in decode_chunks(Excerpt(audio), DecodeOptions(8000)))
run(first)
before = highest_resident_bytes()
print(*map(run, others))
print((highest_resident_bytes() - before) // 2**20)
"""


def test_memory_depends_neither_on_claims_nor_on_length(tmp_path):
    long = encode(np.zeros(16000 * 1500, np.int16), 16000, "FLAC")  # 96 MB as float32
    recordings = [
        encode(noise(16000 * 70), 16000, "FLAC"),
        wav(bytes(1000), claimed_bytes=0xFFFFFFFE),
        wav(bytes(2048 * 5000), channels=1024, claimed_bytes=0xFFFFFFFE),
        with_flac_streaminfo(long, num_frames=2**36 - 1),
        with_flac_streaminfo(long, num_frames=0),
    ]
    for index, audio in enumerate(recordings):
        (tmp_path / str(index)).write_bytes(audio)
    paths = [str(tmp_path / str(index)) for index in range(len(recordings))]
    run = subprocess.run([sys.executable, "-c", PRINT_PEAK_GROWTH, *paths], capture_output=True, text=True, check=True)
    samples, growth = run.stdout.splitlines()
    assert samples.split() == ["250", "2500", "12000000", "12000000"]
    assert int(growth) < 40  # five times a chunk, and the ten megabytes of the WAV


VALID = [
    *(("WAV", "PCM_16"), ("WAV", "IMA_ADPCM"), ("WAVEX", "FLOAT"), ("AIFF", "PCM_16"), ("AU", "ULAW")),
    *(("CAF", "ALAC_16"), ("W64", "PCM_24"), ("NIST", "PCM_16"), ("FLAC", "PCM_16")),
    *(("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
    *(("ipod", "aac"), ("adts", "aac"), ("webm", "libopus", 48_000), ("matroska", "aac")),
]


@functools.cache
def valid(form: tuple) -> bytes:
    return encode(noise(1500), 16_000, *form) if form[0].isupper() else muxed(noise(8_000, dtype="float32"), *form)


@settings(max_examples=200)
@given(
    form=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(1, 3000)),
)
def test_mutated_recordings_raise_nothing_but_audio_errors(form, changes, cut):
    mutated = bytearray(valid(form))
    for place, value in changes:
        mutated[place % len(mutated)] = value
    with contextlib.suppress(AudioError, TooLong):
        samples = decode(mutated[:cut], sample_rate=16000, max_seconds=60)
        assert samples.dtype == np.int16 or np.isfinite(samples).all()


SEEKING = [("WAV", "FLOAT"), ("WAV", "ULAW"), ("AIFF", "PCM_24"), ("FLAC", "PCM_16"), ("W64", "PCM_16")]
SKIPPING = [("WAV", "IMA_ADPCM"), ("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("CAF", "ALAC_16")]


@pytest.mark.parametrize(("container", "subtype"), SEEKING + SKIPPING)
def test_a_part_of_a_recording_is_its_frames_to_the_sample(container, subtype):
    rate = 48_000 if subtype == "OPUS" else 16_000
    audio = encode(noise(3 * rate, dtype="float32"), rate, container, subtype)
    whole = decode(audio, sample_rate=rate)
    for offset, duration in itertools.product([0, 1 / rate, 1.2345, 2.9], [None, 0, 1 / rate, 0.5, 9]):
        first = round(offset * rate)
        end = None if duration is None else first + round(duration * rate)
        found = decode(audio, sample_rate=rate, offset=offset, duration=duration)
        np.testing.assert_array_equal(found, whole[first:end], err_msg=f"{offset} {duration}")


def test_a_part_that_cannot_be_is_an_error():
    for offset, duration, message in (
        (-1, None, "offset of -1 seconds; expected a number from 0 on"),
        (float("nan"), None, "offset of nan seconds"),
        (float("inf"), None, "offset of inf seconds"),
        (0, -0.5, "duration of -0.5 seconds"),
        (0, float("nan"), "duration of nan seconds"),
        (1.5, None, "the file ends after 1.000 seconds; expected more than offset=1.5"),
    ):
        with pytest.raises(AudioError, match=message) as caught:
            decode(encode(noise(16_000)), sample_rate=16_000, offset=offset, duration=duration)
        assert caught.value.error_type == "invalid_audio"
