"""The clock of containers, what stands before a recording, odd chunks, and several tracks."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, TooLong, decode, decode_all, read_header
from tests.audio.test_decoding import encode, noise

RATE = 48_000
TONE = (np.sin(np.arange(RATE * 2) * 0.05) * 8000).astype(np.int16)


def muxed(container: str, codec: str, tracks: list[list[tuple[float, np.ndarray]]], *, film: bool = False) -> bytes:
    """Make a container of tracks, each of parts that begin at given seconds, behind a film that begins at 0."""
    file, packets = io.BytesIO(), []
    with av.open(file, "w", format=container) as media:
        if film:
            video = media.add_stream("mpeg4", rate=10)
            video.width = video.height = 16
            for number in range(20):
                frame = av.VideoFrame(16, 16, "yuv420p")
                frame.pts = number
                packets += video.encode(frame)
            packets += video.encode(None)
        for parts in tracks:
            stream = media.add_stream(codec, rate=RATE, layout="mono")
            context = stream.codec_context
            context.open()
            size = context.frame_size or 960
            for seconds, samples in parts:
                for place in range(0, len(samples), size):
                    piece = np.zeros((1, size), np.int16)
                    piece[0, : len(samples) - place] = samples[place : place + size]
                    is_float = context.format.name.startswith("flt")
                    frame = av.AudioFrame.from_ndarray(
                        piece.astype(np.float32) / 32768 if is_float else piece, context.format.name, "mono"
                    )
                    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                    frame.pts = round(seconds * RATE) + place
                    packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted((one for one in packets if one.dts is not None), key=lambda one: one.dts * one.time_base):
            media.mux(packet)
    return file.getvalue()


def sounding(samples: np.ndarray) -> np.ndarray:
    """Return the tenths of a second that are not silent."""
    whole = samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)
    return np.flatnonzero(np.square(whole.astype(np.float64)).mean(1) > 1e-4) / 10


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("mp4", "aac"), ("ogg", "libopus")])
def test_a_pause_in_the_times_of_packets_is_silence(container, codec):
    found = decode(muxed(container, codec, [[(0, TONE), (7, TONE)]]), sample_rate=16_000)
    assert len(found) / 16_000 == pytest.approx(9, abs=0.15)
    heard = sounding(found)
    assert heard[heard < 4].max() == pytest.approx(1.9, abs=0.15)
    assert heard[heard > 4].min() == pytest.approx(7, abs=0.15)


@pytest.mark.parametrize(("container", "codec"), [("matroska", "flac"), ("mp4", "aac")])
def test_audio_that_begins_after_its_film_is_late(container, codec):
    heard = sounding(decode(muxed(container, codec, [[(1.5, TONE)]], film=True), sample_rate=16_000))
    assert heard.min() == pytest.approx(1.5, abs=0.15)


def test_pages_that_are_lost_are_silence_and_joined_streams_follow_one_another():
    whole = encode(noise(RATE * 4), RATE, "OGG", "VORBIS")
    places = [place for place in range(len(whole)) if whole.startswith(b"OggS", place)]
    lost = whole[: places[6]] + whole[places[8] :]
    samples = decode(lost, sample_rate=16_000)
    assert len(samples) == pytest.approx(len(decode(whole, sample_rate=16_000)), abs=200)
    assert len(decode(lost + whole, sample_rate=16_000)) == pytest.approx(2 * 64_000, abs=400)


def test_a_time_of_years_allocates_nothing():
    audio = muxed("matroska", "flac", [[(0, TONE), (3e8, TONE)]])
    [found] = decode_all([Excerpt(audio)], DecodeOptions(16_000))
    assert isinstance(found, TooLong)
    assert len(decode(audio, sample_rate=16_000, duration=5)) == 5 * 16_000


def tag(num_bytes: int) -> bytes:
    """Make an ID3v2 tag in which sync words of MPEG lie."""
    body = b"PRIV" + num_bytes.to_bytes(4, "big") + b"\0\0" + b"\xff\xfb" * (num_bytes // 2)
    return b"ID3\x03\0\0" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


APE = b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in (2000, 64, 1, 0xA0000000)) + bytes(8 + 64)
FRONTS = {"small": tag(62), "cover": tag(100_000), "two": tag(62) + tag(5000), "ape": APE, "zeros": bytes(3000)}
FRONTS["zeros behind a tag"] = tag(62) + bytes(417)
FORMATS = ["WAV", "RF64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "adts", "ipod", "webm"]


@pytest.mark.parametrize("container", FORMATS)
def test_tags_and_zeros_before_a_recording_change_nothing(container):
    if container.isupper() or container == "RF64":
        audio = encode(noise(RATE), RATE, container)
    else:
        audio = muxed(container, "libopus" if container == "webm" else "aac", [[(0, TONE)]])
    expected = decode(audio, sample_rate=16_000)
    for name, front in FRONTS.items():
        np.testing.assert_array_equal(decode(front + audio, sample_rate=16_000), expected, err_msg=name)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "libopus")])
def test_several_audio_tracks_are_an_error_that_names_them(container, codec):
    with pytest.raises(AudioError, match="with 2 audio tracks") as caught:
        decode(muxed(container, codec, [[(0, TONE)], [(0, np.zeros_like(TONE))]]), sample_rate=16_000)
    assert caught.value.error_type == "unsupported_format"


@pytest.mark.parametrize(("subtype", "rate"), [("VORBIS", 8_000), ("VORBIS", 44_100), ("OPUS", 48_000)])
def test_short_ogg_has_as_many_frames_as_were_encoded(subtype, rate):
    for num_frames in (160, 2_487, 9_600, 16_000, 24_001):
        samples = noise(num_frames, dtype="float32")
        data = encode(samples, rate, "OGG", subtype)
        decoded = decode(data, sample_rate=rate)
        np.testing.assert_allclose(decoded, soundfile.read(io.BytesIO(data), dtype="float32")[0], atol=1e-4)
        assert len(decoded) == num_frames
        assert read_header(data, counted=True).num_frames == pytest.approx(num_frames, abs=312)  # Opus has a delay
        np.testing.assert_array_equal(decode(data * 2, sample_rate=rate), np.concatenate([decoded, decoded]))


def adts(rate, *, channels=1):
    """Encode two seconds of a tone as AAC without a container."""
    file = io.BytesIO()
    with av.open(file, "w", format="adts") as media:
        stream = media.add_stream("aac", rate=rate, layout="mono" if channels == 1 else "stereo")
        tone = (np.sin(np.arange(rate * 2) * 800 / rate) * 0.3).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.repeat(tone[None], channels, 0), "fltp", stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in [*av.AudioResampler("fltp", stream.layout, rate, 1024).resample(frame), None]:
            media.mux(stream.encode(part))
    return file.getvalue()


@pytest.mark.parametrize(("first", "second"), [(16_000, 48_000), (44_100, 22_050)])
def test_aac_of_two_rates_follows_one_another_without_silence(first, second):
    parts = [decode(adts(rate, channels=channels), sample_rate=16_000) for rate, channels in ((first, 1), (second, 2))]
    joined = decode(adts(first) + adts(second, channels=2), sample_rate=16_000)
    assert len(joined) == sum(map(len, parts))
    assert np.abs(joined[-len(parts[1]) :] - parts[1]).max() < 1e-4


@pytest.mark.parametrize("kind", ["MP3", "AAC"])
def test_a_hole_in_frames_without_a_container_is_an_error(kind):
    data = encode(noise(16_000 * 20, dtype="float32"), 16_000, "MP3") if kind == "MP3" else adts(48_000) * 10
    place = len(data) // 3
    for hole in (bytes(6_000), np.random.default_rng(7).bytes(6_000)):
        with pytest.raises(AudioError) as raised:
            decode(data[:place] + hole + data[place + len(hole) :], sample_rate=16_000)
        assert raised.value.error_type == "corrupt_audio"


def test_an_mp3_may_begin_within_a_frame_and_stand_in_a_wav():
    audio = encode(noise(RATE), RATE, "MP3")
    with av.open(io.BytesIO(audio), format="mp3") as media:
        plain = audio[next(media.demux(audio=0)).pos :]
    num_samples = len(decode(plain, sample_rate=16_000))
    assert abs(len(decode(plain[100:], sample_rate=16_000)) - num_samples) <= 800
    head = b"\x55\0" + b"\x01\0" + RATE.to_bytes(4, "little") + (8000).to_bytes(4, "little")
    head += b"\x01\0\0\0\x0c\0\x01\0\x02\0\0\0\x80\x01\x01\0\x71\x05"
    riff = b"WAVEfmt " + len(head).to_bytes(4, "little") + head + b"data" + len(plain).to_bytes(4, "little") + plain
    riff = b"RIFF" + len(riff).to_bytes(4, "little") + riff
    assert abs(len(decode(riff, sample_rate=16_000)) - num_samples) <= 800


@pytest.mark.parametrize("order", ["fmt data fmt data", "fmt data data", "data fmt"])
def test_chunks_in_an_odd_order_are_no_part_of_a_recording(order):
    audio = encode(noise(16_000))
    chunks = {"fmt": audio[12:36], "data": audio[36:]}
    body = b"WAVE" + b"".join(chunks[name] for name in order.split())
    with pytest.raises(AudioError):
        decode(b"RIFF" + len(body).to_bytes(4, "little") + body, sample_rate=16_000)


@pytest.mark.parametrize("bits", [2, 5])
def test_g726_in_a_wav_is_decoded(bits):
    file = io.BytesIO()
    tone = TONE[::6].copy()
    with av.open(file, "w", format="wav") as media:
        stream = media.add_stream("g726", rate=8000, layout="mono", options={"code_size": str(bits)})
        frame = av.AudioFrame.from_ndarray(tone[None], "s16", "mono")
        frame.sample_rate = 8000
        media.mux(stream.encode(frame))
        media.mux(stream.encode(None))
    found = decode(file.getvalue(), sample_rate=8000)
    assert abs(len(found) - len(tone)) <= 8
    assert np.corrcoef(found[: len(tone)], tone[: len(found)])[0, 1] > 0.9
