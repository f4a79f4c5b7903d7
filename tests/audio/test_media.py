"""MP4, Matroska, ADTS and ASF: delay, duration, damage, joined streams."""

import io
import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, decode, decode_all, read_header
from tests.audio.test_decoding import encode as store
from tests.corpora import DEMO

RATE = 16_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Read some seconds of speech; their number of frames fits no frame size."""
    rows = pq.read_table(sorted((DEMO / "audio").glob("*.parquet"))[0]).column("audio").to_pylist()[:6]
    parts = [decode(row["bytes"], sample_rate=RATE) for row in rows]
    return np.concatenate(parts).astype(np.float32)[:50_123]


def encode(
    samples: np.ndarray, container: str, codec: str, rate: int = RATE, channels: int = 1, **muxing: Any
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container, **muxing) as media:
        layout = "mono" if channels == 1 else "stereo"
        stream = media.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(
            stream.codec.audio_formats[0], layout, rate, frame_size=960 if rate > RATE else 1024
        )
        frame = av.AudioFrame.from_ndarray(np.repeat(samples[None], channels, 0), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            media.mux(stream.encode(part))
        media.mux(stream.encode(None))
    return file.getvalue()


def lag_of(found: np.ndarray, expected: np.ndarray) -> int:
    """Return the delay in samples at which two recordings agree best."""
    size = 1 << 18
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size)), size)
    best = int(np.argmax(product))
    return best - size if best > size // 2 else best


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", RATE),
        ("ipod", "aac", RATE),
        ("mov", "aac", 48_000),
        ("mp4", "alac", RATE),
        ("mp4", "flac", RATE),
        ("mp4", "libopus", 48_000),
        ("mp4", "libmp3lame", RATE),
        ("matroska", "aac", RATE),
        ("matroska", "flac", RATE),
        ("matroska", "libopus", 48_000),
        ("matroska", "pcm_s16le", RATE),
        ("webm", "libopus", 48_000),
    ],
)
def test_delay_and_duration_are_right_to_a_millisecond(speech, container, codec, rate):
    data = encode(speech, container, codec, rate)
    found = decode(data, sample_rate=RATE)
    assert abs(len(found) - len(speech)) <= 16
    assert abs(lag_of(found, speech)) <= 16
    assert read_header(data).seconds == pytest.approx(len(speech) / RATE, abs=0.1)


@pytest.mark.parametrize(
    ("container", "codec"), [("ipod", "aac"), ("matroska", "aac"), ("webm", "libopus"), ("adts", "aac")]
)
def test_a_cut_recording_is_an_error_or_shorter(speech, container, codec):
    data = encode(speech, container, codec, 48_000 if codec == "libopus" else RATE)
    for share in (0.0, 0.01, 0.3, 0.6, 0.95, 0.999):
        [found] = decode_all([Excerpt(data[: max(12, int(share * len(data)))])], DecodeOptions(RATE))
        if isinstance(found, AudioError):
            # An MP4 that ends in its list of streams has none.
            assert found.error_type in ("corrupt_audio", "unsupported_format")
            assert str(found).isprintable()
        else:
            assert len(found) <= len(speech) + 2048


def test_damage_inside_is_an_error_or_samples(speech):
    data = bytearray(encode(speech, "ipod", "aac"))
    for seed in range(20):
        damaged = data.copy()
        for place in np.random.default_rng(seed).integers(8, len(data), 40):
            damaged[place] ^= 255
        [found] = decode_all([Excerpt(bytes(damaged))], DecodeOptions(RATE))
        if isinstance(found, AudioError):
            assert found.error_type in ("corrupt_audio", "unsupported_format", "invalid_audio", "out_of_memory")
        else:
            assert np.isfinite(found).all()


def test_a_film_without_sound_is_unsupported():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as media:
        stream = media.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 16
        media.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        media.mux(stream.encode(None))
    with pytest.raises(AudioError, match="MP4 without an audio stream") as caught:
        decode(file.getvalue(), sample_rate=RATE)
    assert caught.value.error_type == "unsupported_format"


@pytest.fixture(scope="module")
def recordings(speech) -> dict[str, bytes]:
    """Encode a recording in each container."""
    media = {name: encode(speech, *how) for name, how in MEDIA.items()}
    with_unknown_size = encode(speech, "webm", "libopus", 48_000)
    place = with_unknown_size.index(b"\x18\x53\x80\x67") + 4
    assert with_unknown_size[place] == 1  # a size of eight bytes
    stream = with_unknown_size[:place] + b"\x01" + b"\xff" * 7 + with_unknown_size[place + 8 :]
    return {**media, "live webm": stream, **{name: store(speech, RATE, name) for name in ("FLAC", "MP3", "WAV")}}


MEDIA = {
    "mp4": ("mp4", "aac"),
    "m4a": ("ipod", "aac"),
    "adts": ("adts", "aac"),
    "webm": ("webm", "libopus", 48_000),
    "matroska": ("matroska", "flac"),
}
OTHERS = ["live webm", "FLAC", "MP3", "WAV"]


@pytest.mark.parametrize("first", [*MEDIA, *OTHERS])
def test_streams_joined_with_those_of_containers_of_pyav_are_one_recording(recordings, first):
    for second in (first, "m4a", "webm", "FLAC"):
        joined = recordings[first] + recordings[second]
        expected = sum(len(decode(recordings[one], sample_rate=RATE)) for one in (first, second))
        for given in (joined, io.BytesIO(joined)):
            found = decode(given, sample_rate=RATE)
            assert abs(len(found) - expected) <= (2048 if first == second == "adts" else 32), second
        counted = read_header(joined, counted=True)
        assert counted.num_frames is None or abs(counted.seconds * RATE - expected) <= 1600


@pytest.mark.parametrize("first", MEDIA)
def test_unknown_data_behind_a_container_of_pyav_is_corrupt_and_tags_are_not(recordings, first):
    whole, num_samples = recordings[first], len(decode(recordings[first], sample_rate=RATE))
    for tag in (b"TAG" + bytes(125), bytes(3000)):
        assert len(decode(whole + tag, sample_rate=RATE)) == num_samples
    with pytest.raises(AudioError, match=r"follow the samples, and are not a stream|FFmpeg reports") as caught:
        decode(whole + np.random.default_rng(0).bytes(20_000), sample_rate=RATE)
    assert caught.value.error_type == "corrupt_audio"


def with_number(data: bytes, name: bytes, offset: int, number: int) -> bytes:
    """Return an MP4 with another number of four bytes in one of its boxes."""
    place = data.index(name) + offset
    return data[:place] + struct.pack(">I", number) + data[place + 4 :]


DAMAGE = {
    "duration of the track": ("ipod", lambda data: with_number(data, b"mdhd", 20, RATE)),
    "duration of packets": ("ipod", lambda data: with_number(data, b"stts", 16, 512)),
    "packets without duration": ("ipod", lambda data: with_number(data, b"stts", 16, 0)),
    "number of packets": ("ipod", lambda data: with_number(data, b"stsz", 12, 10)),
    "zeros in a cluster": ("matroska", lambda data: data[:40_000] + bytes(4096) + data[44_096:]),
    "bytes lost from a cluster": ("matroska", lambda data: data[:40_000] + data[41_000:]),
    "the end lost": ("matroska", lambda data: data[:40_000]),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_recording_of_which_only_a_part_decodes_is_corrupt(speech, how):
    container, damage = DAMAGE[how]
    data = encode(speech, container, "aac" if container == "ipod" else "pcm_s16le")
    assert len(decode(data, sample_rate=RATE)) == pytest.approx(len(speech), abs=16)
    for given in (damage(data), io.BytesIO(damage(data))):
        with pytest.raises(AudioError, match="announces") as caught:
            decode(given, sample_rate=RATE)
        assert caught.value.error_type == "corrupt_audio"
    assert read_header(damage(data), counted=True).num_frames is None


@pytest.mark.parametrize("options", [{}, {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}])
def test_unknown_data_behind_an_mp4_is_no_box_of_it(speech, recordings, options):
    data = encode(speech, "mp4", "aac", options=options)
    joined = data + b"TAG" + b"x" * 125 + recordings["FLAC"]
    expected = len(decode(data, sample_rate=RATE)) + len(speech)
    assert len(decode(joined, sample_rate=RATE)) == pytest.approx(expected, abs=16)


@pytest.mark.parametrize("codec", ["libopus", "flac"])
@pytest.mark.parametrize("place", [1500, -300])
def test_an_ogg_whose_first_or_last_page_is_damaged_is_corrupt(speech, codec, place):
    data = bytearray(encode(speech[: RATE * 3 // 2], "ogg", codec, 48_000 if codec == "libopus" else RATE))
    assert len(decode(bytes(data), sample_rate=RATE)) == pytest.approx(RATE * 3 // 2, abs=160)
    data[place] ^= 1
    with pytest.raises(AudioError, match=r"the page at byte .* is damaged") as caught:
        decode(bytes(data), sample_rate=RATE)
    assert caught.value.error_type == "corrupt_audio"


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def test_the_comment_of_itunes_gives_delay_and_end(speech):
    data = encode(speech, "ipod", "aac").replace(b"edts", b"free")
    comment = f" 00000000 {1024:08X} {0:08X} {len(speech):016X} 00000000".encode()
    names = box(b"mean", bytes(4), b"com.apple.iTunes") + box(b"name", bytes(4), b"iTunSMPB")
    items = box(b"ilst", box(b"----", names, box(b"data", struct.pack(">II", 1, 0), comment)))
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    more = box(b"udta", box(b"meta", bytes(4), handler, items))
    place = data.index(b"moov") - 4
    size = int.from_bytes(data[place : place + 4], "big")
    assert place + size == len(data)
    data = data[:place] + struct.pack(">I", size + len(more)) + data[place + 4 :] + more
    found = decode(data.replace(b"udta", b"free", 1) if data.count(b"udta") > 1 else data, sample_rate=RATE)
    assert (len(found), lag_of(found, speech)) == (len(speech), 0)


def test_a_list_of_edits_may_leave_out_sound(speech):
    data = encode(speech, "ipod", "aac")
    place = data.index(b"elst") + 12
    whole = int.from_bytes(data[place : place + 4], "big")  # units of a second depend on FFmpeg
    shortened = with_number(data, b"elst", 12, whole // 2)
    assert len(decode(shortened, sample_rate=RATE)) == pytest.approx(len(speech) / 2, abs=16)
