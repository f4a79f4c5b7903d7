import contextlib
import io
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, TooLong, decode, decode_chunks, read_header
from raysp.audio.container import SOUND_FILES
from raysp.audio.waveforms import INT16_SUBTYPES

CONTAINERS = SOUND_FILES | {"MP3", "OGG"}


def encode(samples, sample_rate=16000, container="WAV", subtype=None):
    """Encode in short writes (libsndfile's Vorbis encoder overflows its stack on a long one)."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(file, "w", sample_rate, channels, subtype=subtype, format=container) as sound:
        for start in range(0, len(samples), 16000):
            sound.write(samples[start : start + 16000])
    return file.getvalue()


def noise(num_frames, channels=None, seed=0, dtype="int16"):
    shape = num_frames if channels is None else (num_frames, channels)
    samples = np.random.default_rng(seed).normal(0, 3000, shape).clip(-32768, 32767).astype(np.int16)
    return samples if dtype == "int16" else (samples / 32768).astype(dtype)


def wav(data=bytes(2000), *, sample_rate=16000, channels=1, bits=16, tag=1, claimed_bytes=None):
    """Build a WAV by hand, with a given header."""
    frame_bytes = channels * bits // 8
    fmt = struct.pack(
        "<HHIIHH", tag, channels, sample_rate, sample_rate * frame_bytes & 0xFFFFFFFF, frame_bytes & 0xFFFF, bits
    )
    claimed = len(data) if claimed_bytes is None else claimed_bytes
    head = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", claimed)
    return b"RIFF" + struct.pack("<I", min(len(head) + claimed, 0xFFFFFFFF)) + head + data


def with_flac_streaminfo(flac, *, num_frames=None, sample_rate=None):
    """Rewrite what a FLAC claims: 20 bits of rate, 3 of channels, 5 of depth, 36 of length from byte 18."""
    fields = int.from_bytes(flac[18:26], "big")
    if num_frames is not None:
        fields = fields >> 36 << 36 | num_frames
    if sample_rate is not None:
        fields = fields & (1 << 44) - 1 | sample_rate << 44
    return flac[:18] + fields.to_bytes(8, "big") + flac[26:]


def same(samples, expected, container):
    """Compare samples with those of libsndfile: bit for bit, a tenth of a step of 16 bits where PyAV decodes."""
    atol = 0.1 / 32768 if container in ("MP3", "OGG") else 0.0
    np.testing.assert_allclose(samples, expected, rtol=0, atol=atol)


def error_type(audio, **options):
    with pytest.raises(AudioError) as caught:
        decode(audio, **{"sample_rate": 16000, **options})
    assert str(caught.value).isprintable()
    return caught.value.error_type


WRITABLE = [
    (container, subtype)
    for container in sorted(CONTAINERS)
    for subtype in soundfile.available_subtypes(container)
    if (container, subtype) not in {("AIFF", "DWVW_12"), ("WAV", "MPEG_LAYER_III")}  # listed, not implemented
    and subtype not in {"MPEG_LAYER_I", "MPEG_LAYER_II"}
]


@pytest.mark.parametrize(("container", "subtype"), WRITABLE)
def test_every_container_and_codec_is_decoded_and_int16_only_where_it_loses_nothing(container, subtype):
    rate = 48_000 if subtype == "OPUS" else 16_000
    audio = encode(noise(16000), rate, container, subtype)
    samples = decode(audio, sample_rate=rate)
    # A seek after the read fails where a codec has none.
    with soundfile.SoundFile(io.BytesIO(audio)) as sound, contextlib.suppress(soundfile.LibsndfileError):
        whole = np.empty(sound.frames, np.float32)
        sound.read(out=whole)
    assert samples.dtype == (np.int16 if subtype in INT16_SUBTYPES else np.float32)
    expected = whole * np.float32(32768) if subtype in INT16_SUBTYPES else whole
    same(samples, expected, container)


def aiff_of_no_channels():
    aiff = bytearray(encode(noise(100), 16000, "AIFF"))
    place = aiff.find(b"COMM") + 8
    aiff[place : place + 2] = b"\0\0"
    return bytes(aiff)


def with_value(value, place, subtype, sample_rate):
    samples = noise(1_100_000, dtype="float64")
    samples[place] = value
    return encode(samples, sample_rate, "WAV", subtype)


def made_flac():
    flac = encode(noise(40000), 16000, "FLAC")
    return flac[: len(flac) // 2]


OUTCOMES = {
    "no_audio": [None, b"", bytearray(), memoryview(b"")],
    "unsupported_format": [
        *(b"<html><body>404</body></html>", b"#EXTM3U\nhttp://x/y.mp3\n", b"\x1b[2Jhello", b"RIFF____AVI ", b"x"),
        wav(tag=0x161),  # Windows Media
        *(encode(noise(4000, dtype="float32"), 16000, name) for name in ("VOC", "SVX", "PAF")),
    ],
    "corrupt_audio": [
        *(encode(noise(100))[:cut] for cut in (5, 11, 13, 30, 40)),
        wav(tag=0x55),  # MPEG layer 3, without frames
        made_flac(),
    ],
    "invalid_audio": [
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
    for number, audio in enumerate(OUTCOMES[expected]):
        assert error_type(audio) == expected, number


def test_rates_that_a_recording_may_have_are_labelled():
    for rate in (100, 1000, 1_092_676, 10_000_000):
        samples = decode(wav(bytes(20000), sample_rate=rate), sample_rate=16000)
        assert len(samples) == round(10000 * 16000 / rate)
    for container in ("WAV", "AIFF", "AU", "CAF", "W64"):
        assert decode(encode(np.zeros(0, np.int16), 44100, container), sample_rate=16000).shape == (0,)


@pytest.mark.parametrize(
    ("sample_rate", "channels"), [(8000, 1), (16000, 2), (22050, 3), (44100, 2), (48000, 8), (192000, 1), (1000, 32)]
)
def test_rates_and_channels_equal_mean_and_soxr_of_the_whole(sample_rate, channels):
    audio = encode(noise(30000, channels), sample_rate, "WAV", "PCM_24")
    whole, _ = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    mono = whole.mean(axis=1, dtype=np.float32)
    expected = mono if sample_rate == 16000 else soxr.resample(mono, sample_rate, 16000, quality="HQ")
    np.testing.assert_array_equal(decode(audio, sample_rate=16000), expected)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "AIFF"])
@pytest.mark.parametrize(("sample_rate", "chunk_samples"), [(8000, 7000), (16000, 1 << 20)])
def test_channels_that_cancel_each_other_are_invalid_and_not_silence(
    container, chunk_samples, sample_rate, monkeypatch
):
    monkeypatch.setattr("raysp.audio.stream_decoding.CHUNK_SAMPLES", chunk_samples)
    one = noise(20_000)
    audio = encode(np.stack([one, -one], 1), 16_000, container)
    with pytest.raises(AudioError, match=r"2 channels that cancel each other: .* Decode\(channel=0\)") as caught:
        decode(audio, sample_rate=sample_rate)
    assert caught.value.error_type == "invalid_audio"
    assert len(decode(audio, sample_rate=sample_rate, channel=1)) == len(one) * sample_rate // 16_000
    with pytest.raises(AudioError, match=r"stream 2, at byte .*: 2 channels that cancel"):
        decode(encode(one, 16_000, container) + audio, sample_rate=sample_rate)


@pytest.mark.parametrize(
    ("container", "sample_rate"), [("WAV", 16000), ("FLAC", 44100), ("MP3", 16000), ("OGG", 44100)]
)
def test_a_long_recording_is_the_same_in_chunks(container, sample_rate, monkeypatch):
    audio = encode(noise(180_000, 2), sample_rate, container)
    whole, _ = soundfile.read(io.BytesIO(audio), dtype="float32")
    mono = whole.mean(axis=1, dtype=np.float32)
    expected = mono if sample_rate == 16000 else soxr.resample(mono, sample_rate, 16000, quality="HQ")
    monkeypatch.setattr("raysp.audio.stream_decoding.CHUNK_SAMPLES", 1 << 16)
    chunks = list(decode_chunks(Excerpt(audio), DecodeOptions(16000)))
    assert len(chunks) > 1
    same(np.concatenate(chunks), expected, container)
    np.testing.assert_array_equal(decode(audio, sample_rate=16000), np.concatenate(chunks))


def test_an_offset_from_zero_does_not_hide_channels_that_cancel_each_other():
    one = noise(20_000).astype(np.float32) / 32768 / 4
    with pytest.raises(AudioError, match="2 channels that cancel each other: their mean is"):
        decode(encode(np.stack([one + 0.2, -one + 0.2], 1), 16_000, "WAV", "FLOAT"), sample_rate=16_000)
    for offsets in ([0.2, -0.2], [0.2, 0.2], [0.4, -0.3]):
        for channels in ([one, one], [one * 0, one * 0]):
            frames = np.stack(channels, 1) + np.float32(offsets)
            assert len(decode(encode(frames, 16_000, "WAV", "FLOAT"), sample_rate=16_000)) == len(one)


@pytest.mark.parametrize("places", [(0, 1.4), (1.4, 2.8), (4, 5.5)], ids=str)
def test_a_part_whose_channels_cancel_each_other_is_not_lost_in_silence(places, monkeypatch):
    monkeypatch.setattr("raysp.audio.stream_decoding.CHUNK_SAMPLES", 7000)
    frames = np.stack([noise(16_000 * 8)] * 2, 1)
    begin, end = (round(16_000 * one) for one in places)
    frames[begin:end, 1] *= -1
    with pytest.raises(
        AudioError, match=r"2 channels that cancel each other: their mean is silent in 1\.[0-5] seconds"
    ):
        decode(encode(frames), sample_rate=16_000)
    assert len(decode(encode(frames), sample_rate=16_000, channel=0)) == len(frames)


@pytest.mark.parametrize(("seconds", "level"), [(0.9, 1.0), (4.0, 0.001)], ids=["short", "quiet"])
def test_a_short_or_quiet_part_whose_channels_cancel_each_other_is_mixed(seconds, level):
    frames = np.stack([noise(16_000 * 8)] * 2, 1)
    part = frames[: round(16_000 * seconds)]
    part[:] = part * level * [1, -1]
    assert len(decode(encode(frames), sample_rate=16_000)) == len(frames)


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
    assert error_type(encode(frames), channel=3) == "invalid_audio"
    assert error_type(encode(frames), channel=-1) == "invalid_audio"


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


def test_a_false_header_sizes_no_allocation():
    flac = encode(noise(40000), 16000, "FLAC")
    for audio, num_samples in (
        (wav(bytes(1000), claimed_bytes=0xFFFFFFFE), 500),
        (wav(bytes(2000 * 50), channels=1000, claimed_bytes=0xFFFFFF00), 50),
        (with_flac_streaminfo(flac, num_frames=2**36 - 1), 40000),
        (with_flac_streaminfo(flac, num_frames=0), 40000),  # unknown
        (with_flac_streaminfo(flac, num_frames=10), 40000),
    ):
        assert len(decode(audio, sample_rate=16000)) == num_samples


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
    for chunk in decode_chunks(Excerpt(audio), DecodeOptions(8000)): pass
run(first)
before = highest_resident_bytes()
for audio in others: run(audio)
print((highest_resident_bytes() - before) // 2**20)
"""


@pytest.mark.slow
def test_memory_depends_neither_on_claims_nor_on_length(tmp_path):
    hour = encode(np.zeros(16000 * 3600, np.int16), 16000, "FLAC")
    recordings = [
        encode(noise(16000 * 70), 16000, "FLAC"),
        wav(claimed_bytes=0xFFFFFFFE),
        wav(bytes(2048 * 5000), channels=1024, claimed_bytes=0xFFFFFFFE),
        with_flac_streaminfo(hour, num_frames=2**36 - 1),
        with_flac_streaminfo(hour, num_frames=0),
    ]
    assert len(hour) < 200_000  # 230 MB as float32
    for index, audio in enumerate(recordings):
        (tmp_path / str(index)).write_bytes(audio)
    paths = [str(tmp_path / str(index)) for index in range(len(recordings))]
    run = subprocess.run([sys.executable, "-c", PRINT_PEAK_GROWTH, *paths], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40  # five times a chunk, and the ten megabytes of the WAV


VALID = [
    encode(noise(1500), 16000, container, subtype)
    for container, subtype in [
        ("WAV", "PCM_16"),
        ("WAV", "IMA_ADPCM"),
        ("WAVEX", "FLOAT"),
        ("AIFF", "PCM_16"),
        ("AU", "ULAW"),
        ("CAF", "ALAC_16"),
        ("W64", "PCM_24"),
        ("NIST", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
    ]
]


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    audio=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(1, 3000)),
)
def test_mutated_recordings_raise_nothing_but_audio_errors(audio, changes, cut):
    mutated = bytearray(audio)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    with contextlib.suppress(AudioError, TooLong):
        samples = decode(mutated[:cut], sample_rate=16000, max_seconds=60)
        assert samples.dtype == np.int16 or np.isfinite(samples).all()


def test_headers_of_odd_files_match_the_manifest(shared):
    folder = shared / "data" / "odd"
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["soundfile_reads"]:
            found, header = entry["soundfile"], read_header((folder / entry["audio_filepath"]).read_bytes())
            rate = 48_000 if found["subtype"] == "OPUS" else found["sample_rate"]
            assert (header.sample_rate, header.channels) == (rate, found["channels"])
            assert (header.container, header.subtype) == (found["format"], found["subtype"])
            seconds = found["header_frames"] / found["sample_rate"]
            # FFmpeg 7 counts the padding at the end of an MP3.
            assert header.seconds == (pytest.approx(seconds, abs=0.2) if found["format"] in ("MP3", "OGG") else seconds)
