"""Begin of a recording after tags and zeros, and the stream that follows the end of another."""

from raysp.audio.container import sniff
from raysp.audio.media import COUNTING, FRAMED, SYNC, frames_begin
from raysp.audio.recording_bytes import BEGINNING, RecordingBytes, skip_tags, skip_zeros, strip_tags
from raysp.errors import AudioError
from raysp.words import count

MOST_UNKNOWN_BYTES = 1024
"""Largest unknown data after the samples that is not an error: less than a tenth of a second of most streams."""


def begins(data: RecordingBytes, place: int) -> bool:
    """Return whether a recording begins at a place: by its first bytes, or by frames of MPEG or ADTS."""
    return BEGINNING.match(data.at(place, 24)) is not None or frames_begin(data, place)


def counts(data: RecordingBytes, place: int) -> bool:
    """Return whether the frame of MPEG at a place counts those after it."""
    return COUNTING.search(data.at(place, 200)) is not None


def front(data: RecordingBytes, place: int) -> int:
    """Return the place at which a recording begins after tags, zeros, and a part of a frame of MPEG.

    Where none begins, the place itself.
    """
    end = data.num_bytes
    start = here = skip_tags(data, place, end)
    for _ in range(3):  # tags and zeros may alternate
        if sniff(data.at(here, 12)):
            return here
        nonzero = skip_zeros(data, here, end)
        for candidate in range(max(here, nonzero - 3), nonzero + 1):  # a size may begin with zeros
            if sniff(data.at(candidate, 12)):
                return candidate
        here = skip_tags(data, nonzero, end)
    frames = _find_frames(data, start)
    return place if frames is None else frames


def _find_frames(data: RecordingBytes, place: int) -> int | None:
    """Return the place near another one from which on frames of MPEG or ADTS follow one another."""
    end = min(data.num_bytes, place + MOST_UNKNOWN_BYTES)
    while (sync := data.find(SYNC, place, end)) is not None:
        if frames_begin(data, sync):
            return sync
        place = sync + 1
    return None


def frames_follow(data: RecordingBytes, place: int) -> bool:
    """Return whether frames of MPEG or ADTS begin after the zeros, or the little that is unknown, at a place."""
    here = skip_zeros(data, place, data.num_bytes)
    return _find_frames(data, skip_tags(data, here, data.num_bytes)) is not None


def following(data: RecordingBytes, place: int, container: str) -> int | None:
    """Return the place of the stream after one of a container that ends at a place; None at the end of the recording.

    Raises:
        AudioError: `corrupt_audio`: something else follows, which may be lost audio.
    """
    place = skip_tags(data, place, data.num_bytes)
    end = strip_tags(data, place, data.num_bytes)
    if place >= end:
        return None
    nonzero = skip_zeros(data, place, end)
    places = (max(place, nonzero - 3), nonzero, skip_tags(data, nonzero, end))  # a size may begin with zeros
    if container in FRAMED and nonzero - place > MOST_UNKNOWN_BYTES and places[2] == nonzero < end:
        is_header = any(BEGINNING.match(data.at(here, 24)) for here in places) or counts(data, nonzero)
        if not is_header and begins(data, nonzero):
            raise AudioError(
                "corrupt_audio",
                f"{count(nonzero - place, 'byte')} of zeros from byte {place:,} on stand between the samples; expected "
                "tags or a header after them, if another recording follows",
            )
    for here in places:
        if begins(data, here):
            return here
    starts = [data.find(BEGINNING, place, end), _find_frames(data, place)]
    stream = min((begin for begin in starts if begin is not None), default=None)
    if (end if stream is None else stream) - place > MOST_UNKNOWN_BYTES:
        raise AudioError(
            "corrupt_audio",
            f"{count(end - place, 'byte')} from byte {place:,} on follow the samples, and are not a stream that a "
            "decoder reads; expected the end of the recording, tags, or another recording",
        )
    return stream
