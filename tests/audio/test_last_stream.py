"""Parts of one recording, decoded one after the other: the stream goes on, and samples and errors are the same."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, stream_decoding
from raysp.audio.isolation import Decoder
from raysp.audio.stream_decoding import LastStream, decode_chunks
from raysp.audio.waveforms import join
from tests.audio.test_decoding import encode as store
from tests.audio.test_media import MEDIA, encode, speech

RATE = 16_000
OPTIONS = DecodeOptions(RATE)
__all__ = ["speech"]
Part = tuple[str, float, float | None]
"""Name of a recording, offset and duration."""


@pytest.fixture(scope="module")
def recordings(speech) -> dict[str, bytes]:
    """Recordings in several formats, of which some are joined or damaged."""
    vorbis = io.BytesIO()
    soundfile.write(vorbis, speech, RATE, format="OGG", subtype="VORBIS")
    named = {name: encode(speech, *how) for name, how in MEDIA.items()} | {"ogg": vorbis.getvalue()}
    named |= {name: store(speech, RATE, name.upper()) for name in ("flac", "mp3", "wav")}
    mp3, m4a = named["mp3"], named["m4a"]
    damaged = mp3[: len(mp3) // 2] + bytes(4000) + mp3[len(mp3) // 2 + 4000 :]
    return named | {"joined": mp3 + named["flac"] + mp3, "damaged": damaged, "cut": m4a[: 2 * len(m4a) // 3]}


def outcome(part: Part, recordings: dict[str, bytes], last: LastStream | None) -> object:
    name, offset, duration = part
    excerpt = Excerpt(recordings[name], offset, duration, key=name)
    try:
        return join(decode_chunks(excerpt, OPTIONS, last))
    except AudioError as error:
        return error.error_type, str(error)


def check(parts: Sequence[Part], recordings: dict[str, bytes]) -> None:
    last = LastStream()
    for part in parts:
        alone, behind = outcome(part, recordings, None), outcome(part, recordings, last)
        assert type(alone) is type(behind), part
        np.testing.assert_array_equal(behind, alone, err_msg=str(part))


NAMES = [*MEDIA, "ogg", "flac", "mp3", "wav", "joined", "damaged", "cut"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parts_equal_those_of_a_stream_of_their_own(recordings, name):
    steps = [0.0, 0.4, 0.4, 0.65, 1.30002, 1.30002, 1.0, 2.9, 3.0, 0.1, 3.2, 9.0, 0.2]
    check([(name, start, 0.25) for start in steps], recordings)
    check([(name, 0.1, 0.2), (name, 0.3, 0.0), (name, 0.31, None), (name, 0.5, 0.1), (name, 0.6, 1.0)], recordings)


@pytest.mark.parametrize("name", ["mp3", "m4a", "ogg"])
def test_neighbours_in_order_open_one_stream(recordings, name, monkeypatch):
    opened: list[int] = []
    real = stream_decoding.open_stream

    def counted(*arguments: object):
        opened.append(1)
        return real(*arguments)

    monkeypatch.setattr(stream_decoding, "open_stream", counted)
    last = LastStream()
    # Ends and starts round to other frames, so that neighbours may share one.
    for number in range(13):
        outcome((name, number / 7, 1 / 7 + 1 / RATE), recordings, last)
    assert len(opened) == 1


@pytest.mark.slow
def test_the_child_goes_on_too_and_closes_the_streams_of_others(recordings):
    parts = [(name, start, 0.3) for name in NAMES for start in (0.0, 0.2, 0.5, 1.7)]
    files = {name: io.BytesIO(data) for name, data in recordings.items()}
    with Decoder() as decoder:
        for kind in (recordings, files):
            excerpts = [Excerpt(kind[name], offset, duration, key=name) for name, offset, duration in parts]
            for part, found in zip(parts, decoder.decode_all(excerpts, OPTIONS), strict=True):
                expected = outcome(part, recordings, None)
                found = (found.error_type, str(found)) if isinstance(found, AudioError) else found
                np.testing.assert_array_equal(found, expected, err_msg=str(part))
