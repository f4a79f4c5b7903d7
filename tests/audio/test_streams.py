"""Streams joined in one file, headers that count too few samples, and data before and behind the samples."""

import io
import itertools
import struct

import numpy as np
import pytest
import soundfile

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, decode, decode_all, decode_chunks, read_header
from raysp.audio.isolation import Decoder
from tests.audio.recordings import RATE, encode, muxed, noise, plain_mp3, wav, with_flac_streaminfo

FORMATS = [
    *(("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("WAV", None), ("WAV", "FLOAT")),
    *(("WAV", "IMA_ADPCM"), ("WAVEX", None), ("AIFF", None), ("AU", None), ("CAF", None), ("CAF", "ALAC_16")),
    *(("W64", None), ("RF64", None), ("NIST", None)),
]
FIRST, SECOND, STEREO = noise(20_000), noise(15_000, seed=1), noise(11_025, 2, seed=2)
TAG = b"TAG" + b"n" * 125
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 52, 1, 0x80000000) + bytes(8)
TAGS = {
    "ID3v1": TAG,
    "ID3v2": b"ID3\x03\0\0\0\0\x01\x00" + b"t" * 128,
    "APE": b"x" * 20 + APE,
    "Lyrics": b"LYRICSBEGININD0000211000" + b"000024LYRICS200" + TAG,
    "zeros": bytes(5000),
}


def samples(audio, **options) -> np.ndarray:
    found = decode(audio, sample_rate=RATE, **options)
    return found / np.float32(32768) if found.dtype == np.int16 else found


def same(audio: bytes, *parts: bytes) -> None:
    expected = np.concatenate([samples(part) for part in parts])
    for given in (audio, io.BytesIO(audio)):
        np.testing.assert_array_equal(samples(given), expected)


def corrupt(audio: bytes, match: str) -> None:
    with pytest.raises(AudioError, match=match) as caught:
        decode(audio, sample_rate=RATE)
    assert caught.value.error_type == "corrupt_audio"


def with_mp3_count(audio: bytes, change) -> bytes:
    place = max(audio.find(b"Xing"), audio.find(b"Info")) + 8
    number = int.from_bytes(audio[place : place + 4], "big")
    return audio[:place] + change(number).to_bytes(4, "big") + audio[place + 4 :]


def replaced(audio: bytes, place: int, number: int, num_bytes: int = 4, order: str = "big") -> bytes:
    return audio[:place] + number.to_bytes(num_bytes, order) + audio[place + num_bytes :]


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_joined_streams_are_one_recording_whatever_their_rates_and_channels_and_the_tags_between(container, subtype):
    one, other = encode(FIRST, RATE, container, subtype), encode(SECOND, RATE, container, subtype)
    stereo = encode(STEREO, 48_000 if subtype == "OPUS" else 22_050, container, subtype)
    same(one + stereo + other + one, one, stereo, other, one)
    same(stereo + one, stereo, one)
    for tag in TAGS.values():
        same(one + tag, one)
        same(one + tag + other, one, other)
    for of_other_format in (("FLAC", None), ("MP3", None), ("WAV", "FLOAT")):
        second = encode(SECOND, RATE, *of_other_format)
        same(one + second, one, second)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_a_counted_header_is_that_of_all_samples_or_counts_none(container, subtype):
    one, long = encode(FIRST, RATE, container, subtype), encode(noise(320_000) // 16, RATE, container, subtype)
    for audio in (one, one + one, one + long, long + one, one + TAGS["ID3v1"], one + TAGS["zeros"]):
        header = read_header(audio, counted=True)
        assert header == read_header(io.BytesIO(audio), counted=True)
        seconds = len(decode(audio, sample_rate=RATE)) / RATE
        assert header.num_frames is None or header.seconds == pytest.approx(seconds, rel=0.01)
    assert read_header(one, counted=True).num_frames == read_header(one).num_frames


def test_chunks_of_a_wav_that_are_no_samples_or_in_an_odd_order_are_no_part_of_it():
    one, other = encode(FIRST), encode(SECOND)
    chunks = b"LIST" + struct.pack("<I", 5) + b"INFOx\0" + b"id3 " + struct.pack("<I", 20) + b"ID3\3" + bytes(16)
    same(one + chunks, one)
    same(one + chunks + other, one, other)
    assert len(decode(wav(chunks, claimed_bytes=0), sample_rate=RATE)) == 0
    named = {"fmt": one[12:36], "data": one[36:]}
    for order in ("fmt data fmt data", "fmt data data", "data fmt"):
        body = b"WAVE" + b"".join(named[name] for name in order.split())
        with pytest.raises(AudioError):
            decode(b"RIFF" + len(body).to_bytes(4, "little") + body, sample_rate=RATE)


@pytest.mark.parametrize("claimed_bytes", [0, 1001, 38_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_whose_size_is_unset_or_too_small_is_decoded_to_its_end(claimed_bytes):
    data = FIRST.tobytes()
    same(wav(data, claimed_bytes=claimed_bytes), wav(data))
    if claimed_bytes < 39_000:  # the tag would be a few samples
        same(wav(data + TAG, claimed_bytes=claimed_bytes), wav(data))
    same(wav(data, claimed_bytes=claimed_bytes) + encode(SECOND), wav(data), encode(SECOND))


def test_other_headers_that_count_too_few_samples_are_not_believed():
    whole = {name: encode(FIRST, RATE, name) for name in ("AIFF", "AU", "CAF", "W64", "RF64", "NIST")}
    comm, ssnd = whole["AIFF"].find(b"COMM"), whole["AIFF"].find(b"SSND")
    caf, w64 = whole["CAF"].find(b"data") + 4, whole["W64"].find(b"data") + 16
    ds64 = whole["RF64"].find(b"ds64") + 16
    for audio, container in [
        *((replaced(whole["AIFF"], ssnd + 4, size), "AIFF") for size in (0, 8, 1008)),
        *((replaced(whole["AIFF"], comm + 10, number), "AIFF") for number in (0, 100)),
        *((replaced(whole["AU"], 8, size), "AU") for size in (0, 1000, 0xFFFFFFFF)),
        *((replaced(whole["CAF"], caf, size, 8), "CAF") for size in (0, 4, 1004, 2**64 - 1)),
        *((replaced(whole["W64"], w64, size, 8, "little"), "W64") for size in (0, 24, 1024)),
        *((replaced(whole["RF64"], ds64, size, 8, "little"), "RF64") for size in (0, 1000)),
        *((whole["NIST"].replace(b"-i 20000", b"-i " + number), "NIST") for number in (b"00000", b"00100", b"19000")),
    ]:
        same(audio, whole[container])


@pytest.mark.parametrize("num_frames", [0, 4096])
def test_a_flac_is_decoded_beyond_the_samples_that_it_counts(num_frames):
    one, other = encode(FIRST, RATE, "FLAC"), encode(SECOND, RATE, "FLAC")
    short = with_flac_streaminfo(one, num_frames=num_frames)
    for tail, parts in ((b"", []), (TAG, []), (other, [other]), (short + TAG, [one])):
        same(short + tail, one, *parts)
    high = encode(STEREO, 44_100, "FLAC")
    same(with_flac_streaminfo(high, num_frames=num_frames), high)  # resampled without a joint


def test_an_mp3_is_decoded_beyond_the_frames_that_it_counts_or_where_it_counts_none():
    one, other, plain, slow = (
        encode(np.tile(FIRST, 3), RATE, "MP3"),
        encode(SECOND, RATE, "MP3"),
        plain_mp3(FIRST),
        plain_mp3(STEREO, 22_050),
    )
    cases = [(plain + slow, plain, slow), (slow + plain, slow, plain), (plain + other + slow, plain, other, slow)]
    for change in (lambda n: 1, lambda n: n // 2, lambda n: n - 1):
        audio = with_mp3_count(one, change)
        cases += [(audio, one), (audio + other, one, other)]
    for audio, *parts in cases:
        # FFmpeg drops the padding, at most a frame, where the count ends.
        assert abs(len(samples(audio)) - sum(len(samples(part)) for part in parts)) <= 2 * 576


def test_an_mp3_may_begin_within_a_frame_and_stand_in_a_wav():
    plain = plain_mp3(noise(48_000), 48_000)
    num_samples = len(samples(plain))
    assert abs(len(samples(plain[100:])) - num_samples) <= 800
    head = b"\x55\0" + b"\x01\0" + (48_000).to_bytes(4, "little") + (8000).to_bytes(4, "little")
    head += b"\x01\0\0\0\x0c\0\x01\0\x02\0\0\0\x80\x01\x01\0\x71\x05"
    riff = b"WAVEfmt " + len(head).to_bytes(4, "little") + head + b"data" + len(plain).to_bytes(4, "little") + plain
    assert abs(len(samples(b"RIFF" + len(riff).to_bytes(4, "little") + riff)) - num_samples) <= 800


def tag(num_bytes: int) -> bytes:
    """Make an ID3v2 tag in which sync words of MPEG lie."""
    body = b"PRIV" + num_bytes.to_bytes(4, "big") + b"\0\0" + b"\xff\xfb" * (num_bytes // 2)
    return b"ID3\x03\0\0" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


APE_FRONT = b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in (2000, 64, 1, 0xA0000000)) + bytes(72)
FRONTS = {"cover": tag(100_000), "two": tag(62) + tag(5000), "ape": APE_FRONT, "zeros": bytes(3000)}
FRONTS["zeros behind a tag"] = tag(62) + bytes(417)


@pytest.mark.parametrize(
    "container", ["WAV", "RF64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "adts", "ipod", "webm"]
)
def test_tags_and_zeros_before_a_recording_change_nothing(container):
    if container.isupper():
        audio = encode(FIRST, RATE, container)
    else:
        codec = ("libopus", 48_000) if container == "webm" else ("aac", RATE)
        audio = muxed(FIRST / np.float32(32768), container, *codec)
    expected = decode(audio, sample_rate=RATE)
    for name, front in FRONTS.items():
        np.testing.assert_array_equal(decode(front + audio, sample_rate=RATE), expected, err_msg=name)


@pytest.mark.parametrize(("subtype", "rate"), [("VORBIS", 8_000), ("VORBIS", 44_100), ("OPUS", 48_000)])
def test_short_ogg_has_as_many_frames_as_were_encoded(subtype, rate):
    for num_frames in (160, 2_487, 24_001):
        data = encode(noise(num_frames, dtype="float32"), rate, "OGG", subtype)
        decoded = decode(data, sample_rate=rate)
        np.testing.assert_allclose(decoded, soundfile.read(io.BytesIO(data), dtype="float32")[0], atol=1e-4)
        assert len(decoded) == num_frames
        assert read_header(data, counted=True).num_frames == pytest.approx(num_frames, abs=312)  # Opus has a delay


def test_unknown_data_behind_the_samples_is_corrupt_as_it_may_be_lost_audio():
    junk = np.random.default_rng(3).bytes(20_000)
    for container, subtype in [("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")]:
        message = r"bytes from byte .* follow the samples, and are not a stream"
        corrupt(encode(FIRST, RATE, container, subtype) + junk, message)


def test_a_flac_that_is_cut_is_not_made_whole_by_frames_of_another_one():
    one, other = encode(FIRST, RATE, "FLAC"), encode(np.tile(SECOND, 3), RATE, "FLAC")
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(AudioError):
            decode(one[: int(share * len(one))] + other, sample_rate=RATE)


@pytest.mark.parametrize("container", ["FLAC", "WAV", "OGG"])
def test_a_damaged_stream_among_joined_ones_is_corrupt_and_the_prefix_is_kept(container):
    one, other = encode(FIRST, RATE, container), encode(SECOND, RATE, container)
    cut = other[: len(other) // 2] if container == "FLAC" else other[:40] if container == "WAV" else other[:2000]
    found: list[np.ndarray] = []
    with pytest.raises(AudioError, match=f"stream 2, at byte {len(one):,} of the recording") as caught:
        found.extend(decode_chunks(Excerpt(one + cut), DecodeOptions(RATE, keep_prefix=True)))
    assert caught.value.error_type == "corrupt_audio"
    np.testing.assert_array_equal(np.concatenate(found)[: len(FIRST)], decode(one, sample_rate=RATE))


@pytest.mark.parametrize(
    ("container", "subtype", "num_bytes", "announced"),
    [
        ("FLAC", None, 90, r"announces 1\.250 seconds"),
        *((name, None, size, "announces 40,000 bytes of samples") for name, size in (("AIFF", 54), ("W64", 104))),
        *((name, None, size, "announces 40,000 bytes of samples") for name, size in (("RF64", 104), ("NIST", 1024))),
        *((name, None, size, "announces 40,000 bytes of samples") for name, size in (("AU", 24), ("CAF", 4096))),
        ("WAV", None, 44, "announces 40,000 bytes of samples"),
        ("OGG", "VORBIS", 4200, "OGG: FFmpeg reports 'End of file'"),
        ("WAV", "GSM610", 60, r"announces [\d,]+ bytes of samples"),
        ("WAV", "IMA_ADPCM", 60, r"announces [\d,]+ bytes of samples"),
        ("WAV", "ULAW", 58, r"announces [\d,]+ bytes of samples"),
    ],
)
def test_a_recording_that_announces_samples_and_has_none_is_corrupt(container, subtype, num_bytes, announced):
    corrupt(encode(FIRST, RATE, container, subtype)[:num_bytes], announced)


def test_a_stream_with_other_channels_is_an_error_only_if_each_channel_is_labelled():
    joined = encode(STEREO) + encode(FIRST)
    found = samples(joined, channel=0)
    np.testing.assert_array_equal(found, np.concatenate([STEREO[:, 0], FIRST]) / np.float32(32768))
    with pytest.raises(AudioError, match="1 channel; expected one with index 1"):
        decode(joined, sample_rate=RATE, channel=1)
    with Decoder() as decoder, pytest.raises(AudioError, match=r"stream 2, at byte .*: 1 channel; expected"):
        decoder.decode(Excerpt(joined, channel=0), DecodeOptions(RATE))


def test_a_part_of_joined_streams_is_that_of_the_whole():
    joined = encode(FIRST, RATE, "FLAC") + encode(STEREO, 22_050, "FLAC") + encode(SECOND) + encode(FIRST, RATE, "MP3")
    whole = samples(joined)
    for offset, duration in ((0, 1), (1, 0.6), (1.2, 0.75), (1.9, None), (2.6, 1), (0, None)):
        first, found = round(offset * RATE), samples(joined, offset=offset, duration=duration)
        num_samples = len(whole) - first if duration is None else round(duration * RATE)
        assert abs(len(found) - num_samples) <= 2
        in_first = max(0, min(num_samples, len(FIRST) - first))
        np.testing.assert_array_equal(found[:in_first], whole[first : first + in_first])
        if not 1.25 < offset < 1.75:  # within a resampled stream, whose part is resampled as a file of its own
            assert np.corrcoef(found[:num_samples], whole[first : first + len(found)])[0, 1] > 0.99
    end = rf"ends after {len(whole) / RATE:.1f}\d+ seconds; expected more than offset=100"
    with pytest.raises(AudioError, match=end):
        decode(joined, sample_rate=RATE, offset=100)
    [found] = decode_all([Excerpt(joined)], DecodeOptions(RATE, max_seconds=3))
    assert str(found) == "longer than max_seconds=3; stopped after 3.000 seconds"


def test_a_part_of_joined_flac_streams_is_not_taken_from_another_one():
    one, other = encode(FIRST, RATE, "FLAC"), encode(SECOND[:10_000], RATE, "FLAC")
    for audio in (one + one, one + other, other + one):
        whole = samples(audio)
        for offset, given in itertools.product((0.3, 0.7, 1.2, 1.3, 1.8), (audio, io.BytesIO(audio))):
            np.testing.assert_array_equal(samples(given, offset=offset), whole[round(offset * RATE) :])
