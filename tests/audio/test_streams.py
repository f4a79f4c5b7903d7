"""Streams joined in one file, headers that count too few samples, and data behind the samples that is no audio."""

import io
import itertools
import struct

import av
import numpy as np
import pytest

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, decode, decode_all, decode_chunks, read_header
from raysp.audio.isolation import Decoder
from tests.audio.test_decoding import encode, noise, wav, with_flac_streaminfo

RATE = 16_000
FORMATS = [
    *(("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("WAV", None), ("WAV", "FLOAT")),
    *(("WAV", "IMA_ADPCM"), ("WAVEX", None), ("AIFF", None), ("AU", None), ("CAF", None), ("CAF", "ALAC_16")),
    *(("W64", None), ("RF64", None), ("NIST", None)),
]
FIRST, SECOND, STEREO = noise(40_000), noise(30_000, seed=1), noise(25_000, 2, seed=2)
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


def plain_mp3(signal: np.ndarray, rate: int = RATE) -> bytes:
    """Make an MP3 without the frame that counts the others."""
    audio = encode(signal, rate, "MP3")
    with av.open(io.BytesIO(audio), format="mp3") as media:
        return audio[next(media.demux(audio=0)).pos :]


def with_mp3_count(audio: bytes, change) -> bytes:
    place = max(audio.find(b"Xing"), audio.find(b"Info")) + 8
    number = int.from_bytes(audio[place : place + 4], "big")
    return audio[:place] + change(number).to_bytes(4, "big") + audio[place + 4 :]


def replaced(audio: bytes, place: int, number: int, num_bytes: int = 4, order: str = "big") -> bytes:
    return audio[:place] + number.to_bytes(num_bytes, order) + audio[place + num_bytes :]


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_joined_streams_are_one_recording_whatever_their_rates_and_channels(container, subtype):
    one, other = encode(FIRST, RATE, container, subtype), encode(SECOND, RATE, container, subtype)
    stereo = encode(STEREO, 48_000 if subtype == "OPUS" else 22_050, container, subtype)
    same(one + other, one, other)
    same(one + one, one, one)
    same(one + stereo + other + one, one, stereo, other, one)
    same(stereo + one, stereo, one)


@pytest.mark.slow
@pytest.mark.parametrize("first", FORMATS)
def test_streams_of_different_containers_are_one_recording(first):
    one = encode(FIRST, RATE, *first)
    for other in [("FLAC", None), ("MP3", None), ("OGG", "OPUS"), ("WAV", "FLOAT"), ("CAF", "ALAC_16")]:
        second = encode(SECOND, RATE, *other)
        same(one + second, one, second)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_tags_and_zeros_behind_the_samples_change_nothing(container, subtype):
    one, other = encode(FIRST, RATE, container, subtype), encode(SECOND, RATE, container, subtype)
    for tag in TAGS.values():
        same(one + tag, one)
        same(one + tag + other, one, other)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_a_counted_header_is_that_of_all_samples_or_counts_none(container, subtype):
    one, long = encode(FIRST, RATE, container, subtype), encode(noise(320_000) // 16, RATE, container, subtype)
    for audio in (one, long, one + one, one + long, long + one, one + TAGS["ID3v1"], one + TAGS["zeros"]):
        header = read_header(audio, counted=True)
        assert header == read_header(io.BytesIO(audio), counted=True)
        seconds = len(decode(audio, sample_rate=RATE)) / RATE
        assert header.num_frames is None or header.seconds == pytest.approx(seconds, rel=0.01)
    assert read_header(one, counted=True).num_frames == read_header(one).num_frames


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", None), ("WAV", "FLOAT"), ("RF64", None), ("W64", None), ("AIFF", None), ("CAF", None), ("AU", None)],
)
def test_frames_of_mpeg_behind_counted_samples_are_no_samples(container, subtype):
    one, other = encode(FIRST, RATE, container, subtype), plain_mp3(SECOND)
    for tag in (TAGS["ID3v1"], TAGS["zeros"], b"\r\n", TAGS["zeros"] + TAGS["ID3v2"]):
        same(one + tag + other, one, other)


def test_chunks_behind_the_samples_of_a_wav_are_no_samples():
    one, other = encode(FIRST), encode(SECOND)
    chunks = b"LIST" + struct.pack("<I", 5) + b"INFOx\0" + b"id3 " + struct.pack("<I", 20) + b"ID3\3" + bytes(16)
    same(one + chunks, one)
    same(one + chunks + other, one, other)
    assert len(decode(wav(chunks, claimed_bytes=0), sample_rate=RATE)) == 0


@pytest.mark.parametrize("claimed_bytes", [0, 1000, 1001, 78_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_whose_size_is_unset_or_too_small_is_decoded_to_its_end(claimed_bytes):
    data = FIRST.tobytes()
    same(wav(data, claimed_bytes=claimed_bytes), wav(data))
    if claimed_bytes < 79_000:  # the tag would be a few samples
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
        *((whole["NIST"].replace(b"-i 40000", b"-i " + number), "NIST") for number in (b"00000", b"00100", b"39000")),
    ]:
        same(audio, whole[container])


@pytest.mark.parametrize("num_frames", [0, 10, 4096, 20_000, 39_999])
def test_a_flac_is_decoded_beyond_the_samples_that_it_counts(num_frames):
    one, other = encode(FIRST, RATE, "FLAC"), encode(SECOND, RATE, "FLAC")
    short = with_flac_streaminfo(one, num_frames=num_frames)
    for tail, parts in ((b"", []), (TAG, []), (other, [other]), (short + TAG, [one])):
        same(short + tail, one, *parts)
    high = encode(STEREO, 44_100, "FLAC")
    same(with_flac_streaminfo(high, num_frames=num_frames), high)  # resampled without a joint


def test_joined_mp3_streams_that_count_no_frames_are_decoded_to_the_end():
    one, other, counted = plain_mp3(FIRST), plain_mp3(STEREO, 22_050), encode(SECOND, RATE, "MP3")
    assert len(samples(one)) > len(FIRST)
    for parts in ((one, other), (other, one), (one, counted, other)):
        expected = sum(len(samples(part)) for part in parts)
        assert abs(len(samples(b"".join(parts))) - expected) <= 2 * 576


def test_unknown_data_behind_the_samples_is_corrupt_as_it_may_be_lost_audio():
    junk = np.random.default_rng(3).bytes(20_000)
    for container, subtype in [("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")]:
        with pytest.raises(AudioError, match=r"bytes from byte .* follow the samples, and are not a stream") as caught:
            decode(encode(FIRST, RATE, container, subtype) + junk, sample_rate=RATE)
        assert caught.value.error_type == "corrupt_audio"


@pytest.mark.parametrize("container", ["FLAC", "WAV", "OGG"])
def test_a_damaged_stream_among_joined_ones_is_corrupt_and_the_prefix_is_kept(container):
    one, other = encode(FIRST, RATE, container), encode(SECOND, RATE, container)
    cut = other[: len(other) // 2] if container == "FLAC" else other[:40] if container == "WAV" else other[:2000]
    found: list[np.ndarray] = []
    with pytest.raises(AudioError, match=f"stream 2, at byte {len(one):,} of the recording") as caught:
        found.extend(decode_chunks(Excerpt(one + cut), DecodeOptions(RATE, keep_prefix=True)))
    assert caught.value.error_type == "corrupt_audio"
    np.testing.assert_array_equal(np.concatenate(found)[: len(FIRST)], decode(one, sample_rate=RATE))
    if container == "FLAC":
        with pytest.raises(AudioError):
            decode(cut + one, sample_rate=RATE)


JOINED = encode(FIRST, RATE, "FLAC") + encode(STEREO, 22_050, "FLAC") + encode(SECOND) + encode(FIRST, RATE, "MP3")


def test_a_part_of_joined_streams_is_that_of_the_whole():
    whole = samples(JOINED)
    for offset, duration in ((0, 1), (1, 2), (2.4, 1.5), (4, None), (5, 2), (0, None)):
        first, found = round(offset * RATE), samples(JOINED, offset=offset, duration=duration)
        num_samples = len(whole) - first if duration is None else round(duration * RATE)
        assert abs(len(found) - num_samples) <= 2
        in_first = max(0, min(num_samples, len(FIRST) - first))
        np.testing.assert_array_equal(found[:in_first], whole[first : first + in_first])
        if not 2.5 < offset < 3.7:  # within a resampled stream, whose part is resampled as a file of its own
            assert np.corrcoef(found[:num_samples], whole[first : first + len(found)])[0, 1] > 0.99
    with pytest.raises(
        AudioError, match=rf"ends after {len(whole) / RATE:.1f}\d+ seconds; expected more than offset=100"
    ):
        decode(JOINED, sample_rate=RATE, offset=100)
    [found] = decode_all([Excerpt(JOINED)], DecodeOptions(RATE, max_seconds=6))
    assert str(found) == "longer than max_seconds=6; stopped after 6.000 seconds"


@pytest.mark.lengthy
def test_a_stream_with_other_channels_is_an_error_only_if_each_channel_is_labelled():
    joined = encode(STEREO) + encode(FIRST)
    found = samples(joined, channel=0)
    np.testing.assert_array_equal(found, np.concatenate([STEREO[:, 0], FIRST]) / np.float32(32768))
    with pytest.raises(AudioError, match="1 channel; expected one with index 1"):
        decode(joined, sample_rate=RATE, channel=1)
    with Decoder() as decoder:
        for channel in (0, 1):
            with pytest.raises(AudioError, match=r"stream 2, at byte .*: 1 channel; expected"):
                decoder.decode(Excerpt(joined, channel=channel), DecodeOptions(RATE))


@pytest.mark.parametrize(
    ("audio", "announced"),
    [
        (wav(b"", claimed_bytes=80_000), "announces 80,000 bytes of samples"),
        (encode(FIRST, RATE, "FLAC")[:90], r"announces 2\.500 seconds"),
        (encode(FIRST, RATE, "AIFF")[:54], "announces 80,000 bytes of samples"),
        (encode(FIRST, RATE, "W64")[:104], "announces 80,000 bytes of samples"),
        (encode(FIRST, RATE, "RF64")[:104], "announces 80,000 bytes of samples"),
        (encode(FIRST, RATE, "NIST")[:1024], "announces 80,000 bytes of samples"),
        (encode(FIRST, RATE, "AU")[:24], "announces 80,000 bytes of samples"),
        (encode(FIRST, RATE, "CAF")[:4096], "announces 80,000 bytes of samples"),
        (encode(FIRST, RATE, "OGG", "VORBIS")[:4200], "OGG: FFmpeg reports 'End of file'"),
        (encode(FIRST, RATE, "WAV", "GSM610")[:60], r"announces [\d,]+ bytes of samples"),
        (encode(FIRST, RATE, "WAV", "IMA_ADPCM")[:60], r"announces [\d,]+ bytes of samples"),
        (encode(FIRST, RATE, "WAV", "ULAW")[:58], r"announces [\d,]+ bytes of samples"),
    ],
    ids=["WAV", "FLAC", "AIFF", "W64", "RF64", "NIST", "AU", "CAF", "OGG", "GSM", "ADPCM", "ULAW"],
)
def test_a_recording_that_announces_samples_and_has_none_is_corrupt(audio, announced):
    with pytest.raises(AudioError, match=announced) as caught:
        decode(audio, sample_rate=RATE)
    assert caught.value.error_type == "corrupt_audio"


def test_a_flac_that_is_cut_is_not_made_whole_by_frames_of_another_one():
    one, other = encode(FIRST, RATE, "FLAC"), encode(np.tile(SECOND, 3), RATE, "FLAC")
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(AudioError):
            decode(one[: int(share * len(one))] + other, sample_rate=RATE)


def test_an_mp3_is_decoded_beyond_the_frames_that_it_counts():
    one, other = encode(np.tile(FIRST, 3), RATE, "MP3"), encode(SECOND, RATE, "MP3")
    for change in (lambda n: 1, lambda n: n // 2, lambda n: n - 1):
        audio = with_mp3_count(one, change)
        for given, parts in ((audio, [one]), (audio + other, [one, other])):
            # FFmpeg drops the padding, at most a frame, where the count ends.
            assert abs(len(samples(given)) - sum(len(samples(part)) for part in parts)) <= 2 * 576


def test_the_limit_of_seconds_counts_all_streams():
    [found] = decode_all([Excerpt(JOINED)], DecodeOptions(RATE, max_seconds=6))
    assert str(found) == "longer than max_seconds=6; stopped after 6.000 seconds"


def test_a_part_of_joined_flac_streams_is_not_taken_from_another_one():
    one, other = encode(FIRST, RATE, "FLAC"), encode(SECOND[:20_000], RATE, "FLAC")
    for audio in (one + one, one + other, other + one):
        whole = samples(audio)
        for offset, given in itertools.product((0.3, 0.7, 1.1, 1.2, 1.4, 1.9, 2.4), (audio, io.BytesIO(audio))):
            np.testing.assert_array_equal(samples(given, offset=offset), whole[round(offset * RATE) :])
