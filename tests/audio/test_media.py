"""Containers that FFmpeg reads (MP4, Matroska, ADTS, Ogg): delay, duration, clock, tracks, damage, joined streams."""

import io
import struct

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, TooLong, decode, decode_all, read_header
from tests.audio.recordings import RATE, encode, muxed, timed
from tests.corpora import DEMO

TONE = (np.sin(np.arange(48_000 * 2) * 0.05) * 8000).astype(np.int16)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Read some seconds of speech; their number of frames fits no frame size."""
    rows = pq.read_table(sorted((DEMO / "audio").glob("*.parquet"))[0]).column("audio").to_pylist()[:6]
    parts = [decode(row["bytes"], sample_rate=RATE) for row in rows]
    return np.concatenate(parts).astype(np.float32)[:50_123]


def corrupt(audio: object, match: str | None = None) -> None:
    with pytest.raises(AudioError, match=match) as caught:
        decode(audio, sample_rate=RATE)
    assert caught.value.error_type == "corrupt_audio"


def lag_of(found: np.ndarray, expected: np.ndarray) -> int:
    """Return the delay in samples at which two recordings agree best."""
    size = 1 << 18
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size)), size)
    best = int(np.argmax(product))
    return best - size if best > size // 2 else best


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        *(("mp4", "aac", RATE), ("ipod", "aac", RATE), ("mov", "aac", 48_000), ("mp4", "alac", RATE)),
        *(("mp4", "flac", RATE), ("mp4", "libopus", 48_000), ("mp4", "libmp3lame", RATE), ("matroska", "aac", RATE)),
        *(("matroska", "flac", RATE), ("matroska", "pcm_s16le", RATE), ("webm", "libopus", 48_000)),
    ],
)
def test_delay_and_duration_are_right_to_a_millisecond(speech, container, codec, rate):
    data = muxed(speech, container, codec, rate)
    found = decode(data, sample_rate=RATE)
    assert abs(len(found) - len(speech)) <= 16
    assert abs(lag_of(found, speech)) <= 16
    assert read_header(data).seconds == pytest.approx(len(speech) / RATE, abs=0.1)


def sounding(samples: np.ndarray) -> np.ndarray:
    """Return the tenths of a second that are not silent."""
    whole = samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)
    return np.flatnonzero(np.square(whole.astype(np.float64)).mean(1) > 1e-4) / 10


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("mp4", "aac"), ("ogg", "libopus")])
def test_a_pause_in_the_times_of_packets_is_silence(container, codec):
    found = decode(timed(container, codec, [[(0, TONE), (7, TONE)]]), sample_rate=16_000)
    assert len(found) / 16_000 == pytest.approx(9, abs=0.15)
    heard = sounding(found)
    assert heard[heard < 4].max() == pytest.approx(1.9, abs=0.15)
    assert heard[heard > 4].min() == pytest.approx(7, abs=0.15)


@pytest.mark.parametrize(("container", "codec"), [("matroska", "flac"), ("mp4", "aac")])
def test_audio_that_begins_after_its_film_is_late(container, codec):
    heard = sounding(decode(timed(container, codec, [[(1.5, TONE)]], film=True), sample_rate=16_000))
    assert heard.min() == pytest.approx(1.5, abs=0.15)


def test_a_time_of_years_allocates_nothing():
    audio = timed("matroska", "flac", [[(0, TONE), (3e8, TONE)]])
    [found] = decode_all([Excerpt(audio)], DecodeOptions(16_000))
    assert isinstance(found, TooLong)
    assert len(decode(audio, sample_rate=16_000, duration=5)) == 5 * 16_000


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "libopus")])
def test_several_audio_tracks_are_an_error_that_names_them(container, codec):
    with pytest.raises(AudioError, match="with 2 audio tracks") as caught:
        decode(timed(container, codec, [[(0, TONE)], [(0, np.zeros_like(TONE))]]), sample_rate=16_000)
    assert caught.value.error_type == "unsupported_format"


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


@pytest.mark.parametrize(("first", "second"), [(16_000, 48_000), (44_100, 22_050)])
def test_aac_of_two_rates_follows_one_another_without_silence(speech, first, second):
    one, other = muxed(speech, "adts", "aac", first), muxed(speech, "adts", "aac", second, 2)
    parts = [decode(part, sample_rate=RATE) for part in (one, other)]
    joined = decode(one + other, sample_rate=RATE)
    assert len(joined) == sum(map(len, parts))
    assert np.abs(joined[-len(parts[1]) :] - parts[1]).max() < 1e-4


@pytest.mark.parametrize("kind", ["MP3", "AAC"])
def test_a_hole_in_frames_without_a_container_is_an_error(speech, kind):
    samples = np.tile(speech, 6)
    data = encode(samples, RATE, "MP3") if kind == "MP3" else muxed(samples, "adts", "aac", 48_000)
    place = len(data) // 3
    for hole in (bytes(6_000), np.random.default_rng(7).bytes(6_000)):
        corrupt(data[:place] + hole + data[place + len(hole) :])


FORMS = {
    "m4a": ("ipod", "aac"),
    "adts": ("adts", "aac"),
    "webm": ("webm", "libopus", 48_000),
    "matroska": ("matroska", "flac"),
}


@pytest.fixture(scope="module")
def recordings(speech) -> dict[str, bytes]:
    """Recordings in each container, one of them with a size that is unknown, as of a live stream."""
    media = {name: muxed(speech, *how) for name, how in FORMS.items()}
    place = media["webm"].index(b"\x18\x53\x80\x67") + 4
    assert media["webm"][place] == 1  # a size of eight bytes
    live = media["webm"][:place] + b"\x01" + b"\xff" * 7 + media["webm"][place + 8 :]
    return {**media, "live webm": live, **{name: encode(speech, RATE, name) for name in ("FLAC", "MP3", "WAV")}}


@pytest.mark.parametrize("first", [*FORMS, "live webm", "FLAC", "MP3", "WAV"])
def test_streams_joined_with_those_of_containers_of_ffmpeg_are_one_recording(recordings, first):
    for second in {first, "m4a", "webm", "FLAC"}:
        joined = recordings[first] + recordings[second]
        expected = sum(len(decode(recordings[one], sample_rate=RATE)) for one in (first, second))
        for given in (joined, io.BytesIO(joined)):
            found = decode(given, sample_rate=RATE)
            assert abs(len(found) - expected) <= (2048 if first == second == "adts" else 32), second
        counted = read_header(joined, counted=True)
        assert counted.num_frames is None or abs(counted.seconds * RATE - expected) <= 1600


@pytest.mark.parametrize("first", FORMS)
def test_unknown_data_behind_a_container_of_ffmpeg_is_corrupt_and_tags_are_not(recordings, first):
    whole, num_samples = recordings[first], len(decode(recordings[first], sample_rate=RATE))
    for tag in (b"TAG" + bytes(125), bytes(3000)):
        assert len(decode(whole + tag, sample_rate=RATE)) == num_samples
    corrupt(whole + np.random.default_rng(0).bytes(20_000), r"follow the samples, and are not a stream|FFmpeg reports")


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
    data = muxed(speech, container, "aac" if container == "ipod" else "pcm_s16le")
    assert len(decode(data, sample_rate=RATE)) == pytest.approx(len(speech), abs=16)
    for given in (damage(data), io.BytesIO(damage(data))):
        corrupt(given, "announces")
    assert read_header(damage(data), counted=True).num_frames is None


@pytest.mark.parametrize("options", [{}, {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}])
def test_unknown_data_behind_an_mp4_is_no_box_of_it(speech, recordings, options):
    data = muxed(speech, "mp4", "aac", options=options)
    joined = data + b"TAG" + b"x" * 125 + recordings["FLAC"]
    expected = len(decode(data, sample_rate=RATE)) + len(speech)
    assert len(decode(joined, sample_rate=RATE)) == pytest.approx(expected, abs=16)


@pytest.mark.parametrize("codec", ["libopus", "flac"])
@pytest.mark.parametrize("place", [1500, -300])
def test_an_ogg_whose_first_or_last_page_is_damaged_is_corrupt(speech, codec, place):
    data = bytearray(muxed(speech[: RATE * 3 // 2], "ogg", codec, 48_000 if codec == "libopus" else RATE))
    assert len(decode(bytes(data), sample_rate=RATE)) == pytest.approx(RATE * 3 // 2, abs=160)
    data[place] ^= 1
    corrupt(bytes(data), r"the page at byte .* is damaged")
