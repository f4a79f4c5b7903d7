"""Whether the header of a recording counts all of its samples, found without decoding and by reading little.

Several streams may be joined in one file, and a header may count fewer samples than follow. Containers that number
their pages or frames are read in windows at growing distances: behind a joint the numbers restart, so they are lower
than before it. Where this is uncertain, the recording is decoded to count its samples.
"""

from collections.abc import Callable, Iterator

from raysp.audio.parsing import flac, mpeg, ogg
from raysp.audio.parsing.boxes import known_end_of_boxes
from raysp.audio.parsing.placed_bytes import Bytes, find_beginning, skip_tags, strip_tags
from raysp.audio.streams import MOST_UNKNOWN_BYTES, Streams, find_frames

WINDOW_BYTES = 64 * 1024
WHOLE_BYTES = 4 * WINDOW_BYTES
"""Recordings up to this size are searched whole."""
GROWTH = 1.5
"""Ratio of the places of neighbouring windows. Behind a joint between them, numbers reach at most half of those before
it, if pages or frames are alike in size."""
MP3_WINDOWS, MP3_WINDOW_BYTES = 8, 4096
FRAMES_BYTES = 8192
"""End of a recording in which frames of MPEG or ADTS are looked for."""


def counts_all(streams: Streams, container: str, num_frames: int) -> bool:
    """Return whether a recording holds no more samples than the header of its first stream counts.

    Args:
        streams: streams of the recording.
        container: its container.
        num_frames: frames that its header counts.
    """
    if container in ("MP4", "Matroska", "ASF"):
        end = known_end_of_boxes(streams.data, 0, container)
        return end is not None and _is_end(streams.data, end)
    find = _FINDERS.get(container)
    return find(streams.data, num_frames) if find else _is_end(streams.data, streams.at(0).end)


def _is_end(data: Bytes, place: int) -> bool:
    """Return whether nothing but tags and zeros follows, behind a byte of padding or none."""
    behind = (skip_tags(data, one, data.num_bytes) for one in (place, place + 1))
    return any(strip_tags(data, one, data.num_bytes) <= one for one in behind)


def _windows(start: int, end: int) -> Iterator[int]:
    """Yield the places of windows at growing distances from the start, and that at the end."""
    distance = float(WINDOW_BYTES)
    while start + distance + WINDOW_BYTES < end:
        yield start + int(distance)
        distance *= GROWTH
    yield max(start, end - WINDOW_BYTES)


def _is_whole_ogg(data: Bytes, _: int) -> bool:
    if data.num_bytes <= WHOLE_BYTES:
        end, last = ogg.end_of_link(data, 0, data.num_bytes)
        return end == data.num_bytes and _is_end(data, last)
    serials, numbers = ogg.first_serials(data), dict[int, int]()
    end = strip_tags(data, 0, data.num_bytes)
    reached = 0
    for place in _windows(0, end):
        pages = list(ogg.find_pages(data, place, min(end, place + 2 * WINDOW_BYTES)))
        if not pages or any(page.serial not in serials for page in pages):
            return False
        if pages[0].number < numbers.get(pages[0].serial, 0):
            return False
        numbers[pages[0].serial], reached = pages[0].number, pages[-1].end
    return reached >= end or ogg.begins(data, reached)  # the last page is cut


def _is_whole_flac(data: Bytes, num_frames: int) -> bool:
    start = flac.magic_place(data, 0) + flac.HEADER_BYTES
    header = data.at(start - flac.HEADER_BYTES, flac.HEADER_BYTES)
    end = strip_tags(data, start, data.num_bytes)
    searched = start if data.num_bytes <= WHOLE_BYTES else max(start, end - WINDOW_BYTES)
    if find_beginning(data, searched, end) is not None:
        return False
    before = 0
    for place in _windows(start, end):
        found = flac.find_consecutive(data, place, min(end, place + WINDOW_BYTES), header)
        if not found and data.num_bytes > WHOLE_BYTES:
            return False
        if found:
            if found[0][0] < before:
                return False
            before = found[0][0]
    place = max(start, end - WINDOW_BYTES)
    return flac.find_later_frame(data, place, end, header, num_frames) is None and (
        flac.has_frame(data, place, end) and find_frames(data, max(start, end - FRAMES_BYTES), end) is None
    )


def _is_whole_mp3(data: Bytes, _: int) -> bool:
    end = strip_tags(data, 0, data.num_bytes)
    start = mpeg.first_frame(data, 0, end)
    counts, first = mpeg.counts_at(data, start), mpeg.frame_of(data.at(start, 4))
    if first is None:
        return False
    place = start + first.num_bytes if counts else start
    alike = _alike_frames(data, place, end)
    if alike is not None and (counts is None or abs((end - place) / alike - counts.num_frames) <= 2):
        return True  # of a constant bitrate, so that decoders estimate it well by its size
    stop, num_frames = mpeg.walk(data, place, end)
    return counts is not None and num_frames <= counts.num_frames + 1 and end - stop <= MOST_UNKNOWN_BYTES


def _alike_frames(data: Bytes, start: int, end: int) -> float | None:
    """Return the mean bytes of a frame if all of some windows have one bitrate and format; else None."""
    kinds = set[tuple[object, int]]()
    mean = 0.0
    for number in range(MP3_WINDOWS + 1):
        place = start + max(0, end - start - MP3_WINDOW_BYTES) * number // MP3_WINDOWS
        found = mpeg.find_frames(data, place, min(end, place + MP3_WINDOW_BYTES))
        if found is None or mpeg.counts_at(data, found):
            return None
        head = data.at(found, 4)
        frame = mpeg.frame_of(head)
        assert frame is not None
        kinds.add((frame.format, head[2] >> 4))
        mean = mpeg.mean_frame_bytes(head)
    return mean if len(kinds) == 1 else None


def _is_never_counted(_: Bytes, __: int) -> bool:
    return False


_FINDERS: dict[str, Callable[[Bytes, int], bool]] = {
    "OGG": _is_whole_ogg,
    "FLAC": _is_whole_flac,
    "MP3": _is_whole_mp3,
    "AAC": _is_never_counted,  # it has no count: FFmpeg estimates one by the first frames
}
