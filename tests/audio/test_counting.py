"""Headers that count the frames of a whole recording, without decoding it."""

import io
from functools import cache

import pytest

from raysp.audio import decode, read_header
from raysp.audio.isolation import Decoder
from tests.audio.test_decoding import encode, noise, wav, with_flac_streaminfo
from tests.audio.test_streams import FIRST, FORMATS, RATE, SECOND, STEREO, TAGS, plain_mp3, with_mp3_count

pytestmark = pytest.mark.lengthy

LONG = noise(320_000) // 16
SIGNALS = {"first": FIRST, "second": SECOND, "stereo": STEREO, "long": LONG}
COMPRESSED = [("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")]


@cache
def stored(name: str, container: str, subtype: str | None = None) -> bytes:
    return encode(SIGNALS[name], RATE, container, subtype)


def counted(audio: bytes) -> int | None:
    header = read_header(audio, counted=True)
    assert header == read_header(io.BytesIO(audio), counted=True)
    return header.num_frames


@pytest.mark.parametrize("name", ["first", "stereo", "long"])
@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_a_header_counts_the_frames_of_a_single_stream(container, subtype, name):
    audio = stored(name, container, subtype)
    header = read_header(audio)
    assert counted(audio) == header.num_frames
    assert header.seconds == pytest.approx(len(SIGNALS[name]) / RATE, rel=0.05)
    for tag in TAGS.values() if name == "first" else ():
        assert counted(audio + tag) in (None, header.num_frames)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_a_header_of_joined_streams_does_not_count_their_frames(container, subtype):
    one, other, long = (stored(name, container, subtype) for name in ("first", "second", "long"))
    for audio in (one + other, one + one, one + TAGS["ID3v1"] + other, long + one, one + long, long + long):
        assert counted(audio) in (None, pytest.approx(len(decode(audio, sample_rate=RATE)), rel=0.01))
    assert counted(long + long) is None


@pytest.mark.parametrize("first", FORMATS)
def test_a_header_does_not_count_streams_of_other_containers(first):
    for name in ("first", "long"):
        for other in COMPRESSED:
            if other != first:
                assert counted(stored(name, *first) + stored("second", *other)) is None
                assert counted(stored(name, *first) + stored("long", *other)) is None


def test_headers_that_count_fewer_frames_than_follow_are_not_believed():
    for name in ("first", "long"):
        flac, mp3 = stored(name, "FLAC"), stored(name, "MP3")
        for num_frames in (10, 20_000, len(SIGNALS[name]) - 1):
            assert counted(with_flac_streaminfo(flac, num_frames=num_frames)) is None
        for change in (lambda n: 1, lambda n: n // 2, lambda n: n - 10):
            assert counted(with_mp3_count(mp3, change)) is None


def test_mp3_without_a_count_is_estimated_by_its_size_only_if_its_frames_are_alike():
    mp3 = plain_mp3(LONG)
    num_samples = len(decode(mp3, sample_rate=RATE))
    assert counted(mp3) in (None, pytest.approx(num_samples, rel=0.01))
    assert counted(mp3 + plain_mp3(STEREO, 22_050)) is None


def test_the_size_of_a_wav_that_was_never_written_is_that_of_its_data():
    data = FIRST.tobytes()
    for claimed in (0, 1000, 0xFFFFFFFF):
        assert counted(wav(data, claimed_bytes=claimed)) == len(FIRST)
    assert counted(wav(data, claimed_bytes=0xFFFFFFFF) + encode(SECOND, RATE, "FLAC")) is None


@pytest.mark.parametrize(("container", "subtype"), COMPRESSED)
def test_a_truncated_recording_keeps_the_claim_of_its_header(container, subtype):
    for name in ("first", "long"):
        audio = stored(name, container, subtype)
        cut = audio[: len(audio) * 2 // 3]
        assert counted(cut) in (None, read_header(cut).num_frames)


def test_the_child_counts_as_the_process():
    with Decoder() as decoder:
        for audio in (encode(FIRST, RATE, "FLAC"), encode(FIRST, RATE, "FLAC") + encode(SECOND)):
            for given in (audio, io.BytesIO(audio)):
                assert decoder.read_header(given, counted=True) == read_header(audio, counted=True)
