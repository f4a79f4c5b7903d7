"""Streams of a recording: files joined end to end are one recording, and headers may count fewer samples than follow.

A stream is opened by a decoder that sees its bytes alone. Where the next one begins is known from the container, or, in
FLAC and MPEG, once the decoder has reached the end that the header counts. Tags, chunks and zeros behind the samples
are not samples. Anything else there of more than `MOST_UNKNOWN_BYTES` is an error: it may be lost audio.
"""

from dataclasses import dataclass, replace

from raysp.audio.container import HEAD_BYTES, MEDIA, Opening, sniff
from raysp.audio.parsing import adts, flac, mpeg
from raysp.audio.parsing.boxes import end_of_boxes
from raysp.audio.parsing.chunks import Layout, is_name, layout_of, number
from raysp.audio.parsing.ogg import end_of_link, has_last_page
from raysp.audio.parsing.placed_bytes import (
    Bytes,
    PlacedReader,
    begins_recording,
    find_beginning,
    skip_tags,
    strip_tags,
)
from raysp.errors import AudioError
from raysp.words import count

MOST_UNKNOWN_BYTES = 1024
"""Largest unknown data behind the samples that is not an error: less than a tenth of a second of most streams."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes of a recording that one decoder reads."""

    start: int
    end: int
    head: bytes = b""
    """Header in place of the one before `start`, if that counts too few samples."""
    num_given: int = 0
    """Frames that an earlier decoder of the same stream has given."""
    announced: int = 0
    """Bytes of samples that the header counts, and that may be missing."""
    is_empty: bool = False
    """Whether all of them are missing. libsndfile decodes a packet of GSM without data to silence."""
    num_mpeg_frames: int = 0
    """Frames of an MPEG stream without a frame that counts them."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Rest of a stream at the end of its decoder."""

    stream: Stream
    container: str
    num_left: int
    """Bytes of the stream that the decoder has not read."""
    num_frames: int
    """Frames of the stream so far, with those of earlier decoders."""
    claimed: int | None
    """Frames that the header counts; None if it does not."""
    by_error: bool = False
    """Whether the decoder reported an error."""

    @property
    def place(self) -> int:
        """Place in the recording up to which the decoder has read."""
        return self.stream.end - self.num_left


class Streams:
    """Streams of a recording in their order, found while it is decoded."""

    def __init__(self, reader: PlacedReader) -> None:
        self.data = Bytes(reader)
        self.end = reader.num_bytes
        self.last = Stream(0, self.end)
        """The stream that was found last."""

    def at(self, start: int, *, by_header: bool = False) -> Stream:
        """Return the stream that begins at a place.

        Args:
            start: the place.
            by_header: whether all of its data counts as one stream, unless its header is wrong.
        """
        head = self.data.at(start, HEAD_BYTES)
        container = sniff(Opening(head, self.end - start))
        whole = self.last = Stream(start, self.end)
        num_bytes = int.from_bytes(head[40:44], "little")
        if head[:4] == b"RIFF" and head[36:40] == b"data" and start + 44 + num_bytes == self.end:
            return whole  # the usual WAV, whose header is right
        if by_header and (container in ("OGG", "MP3") or container in MEDIA):
            return whole
        if container == "OGG":
            return self._ogg(whole)
        if container == "MP3":
            end, num_frames = mpeg.end_of_plain_stream(self.data, start, self.end)
            return replace(whole, end=end, num_mpeg_frames=num_frames)
        if container in ("MP4", "Matroska", "ASF"):
            return replace(whole, end=end_of_boxes(self.data, start, container))
        if container == "AAC":
            return replace(whole, end=adts.end_of_frames(self.data, start))
        layout = layout_of(self.data, start, container or "")
        if layout is None:
            return whole
        available = self.end - layout.samples
        if by_header and (layout.claimed is None or layout.claimed > available):
            return replace(whole, announced=layout.claimed or 0, is_empty=available <= 0)
        return self._settled(whole, layout)

    def rebuilt(self, stream: Stream) -> Stream | None:
        """Return a stream with a corrected header, for one that no decoder opens; None if there is no correction."""
        if stream.head:
            return None
        container = sniff(Opening(self.data.at(stream.start, HEAD_BYTES), stream.end - stream.start)) or ""
        if container == "MP3":
            return self._with_right_count(stream, stream.end, 0)
        layout = layout_of(self.data, stream.start, container)
        if layout is None or layout.head is None or layout.samples >= stream.end:
            return None
        end = stream.end if layout.claimed is None else min(stream.end, layout.samples + layout.claimed)
        return replace(stream, start=layout.samples, end=end, head=layout.head(end - layout.samples))

    def after(self, ended: Ended) -> Stream | None:
        """Return the stream behind one that has ended, or the rest of that stream; None at the end of the recording.

        Raises:
            AudioError: `corrupt_audio`: the rest is neither.
        """
        if ended.container == "FLAC":
            return self._after_flac(ended)
        if ended.by_error:
            return None
        if ended.container == "MP3":
            return self._after_mpeg(ended)
        return self._next(ended.stream.end) if ended.stream.end < self.end else None

    def _next(self, place: int) -> Stream | None:
        place = skip_tags(self.data, place, self.end)
        end = strip_tags(self.data, place, self.end)
        if place >= end:
            return None
        found: int | None = place
        if not begins_recording(self.data, place):
            found = find_beginning(self.data, place, end)
            frames = find_frames(self.data, place, end)
            found = frames if found is None or (frames is not None and frames < found) else found
        if found is None and end - place > MOST_UNKNOWN_BYTES:
            raise AudioError(
                "corrupt_audio",
                f"{count(end - place, 'byte')} from byte {place:,} on follow the samples, and are not a stream that a "
                "decoder reads; expected the end of the recording, tags, or another recording",
            )
        return None if found is None else self.at(found)

    def _ogg(self, whole: Stream) -> Stream:
        following, last = end_of_link(self.data, whole.start, self.end)
        if following == self.end and last < self.end and strip_tags(self.data, last, self.end) > last:
            return replace(whole, end=last)  # whatever follows is no Ogg
        return replace(whole, end=following)

    def _settled(self, whole: Stream, layout: Layout) -> Stream:
        """Return a stream whose header is corrected if it counts fewer samples than follow, up to the next one."""
        available = self.end - layout.samples
        if layout.claimed is None or layout.claimed > available:
            following = find_beginning(self.data, layout.samples, self.end)
            whole = replace(whole, announced=layout.claimed or 0, is_empty=available <= 0)
            return whole if following is None else _with_head(whole, layout, following)
        samples_end = layout.samples + layout.claimed
        if available - layout.claimed <= 1:
            return whole
        place = self._behind_chunks(layout, samples_end)
        if begins_recording(self.data, place) or _frames_begin(self.data, place, self.end):
            return replace(whole, end=place)
        if _frames_begin(self.data, place + 1, self.end):  # behind a byte of padding
            return replace(whole, end=place + 1)
        return self._uncounted(whole, layout, samples_end, place)

    def _uncounted(self, whole: Stream, layout: Layout, samples_end: int, place: int) -> Stream:
        """Return a stream with the samples that its header does not count.

        Args:
            whole: the stream, up to the end of the recording.
            layout: its samples.
            samples_end: where its samples end by its header.
            place: where the chunks behind them end.
        """
        rest = skip_tags(self.data, place, self.end)
        following = self._find_beginning(layout.samples if rest == samples_end else rest, self.end)
        stop = self.end if following is None else following
        if stop < rest:  # the recording was cut before another one
            return _with_head(whole, layout, stop)
        end = strip_tags(self.data, rest, stop)
        believed = replace(whole, end=place) if following is not None or layout.head is None else whole
        if rest == samples_end and not layout.is_packed and (not layout.claimed or end - rest > MOST_UNKNOWN_BYTES):
            return _with_head(whole, layout, strip_tags(self.data, rest, stop, zeros=False))
        return replace(whole, end=rest) if end - rest > MOST_UNKNOWN_BYTES else believed

    def _find_beginning(self, place: int, end: int) -> int | None:
        """Return the start of the next recording; frames only at the place itself, since samples may resemble them."""
        return place if _frames_begin(self.data, place, end) else find_beginning(self.data, place, end)

    def _behind_chunks(self, layout: Layout, place: int) -> int:
        """Return the place behind the chunks that follow the samples; they may have a byte of padding before them."""
        while layout.has_chunks and not begins_recording(self.data, place):
            if self._is_chunk(layout, place):
                digits = self.data.at(place + 4, layout.size_bytes)
                place += 4 + layout.size_bytes + number(digits, layout.order)
            elif self._is_chunk(layout, place + 1) or begins_recording(self.data, place + 1):
                place += 1
            else:
                return place
        return place

    def _is_chunk(self, layout: Layout, place: int) -> bool:
        head = self.data.at(place, 4 + layout.size_bytes)
        if len(head) < 4 + layout.size_bytes or not is_name(head[:4]):
            return False
        return place + len(head) + number(head[4:], layout.order) <= self.end + 1

    def _after_flac(self, ended: Ended) -> Stream | None:
        stream = ended.stream
        unpatched = flac.without_count(self.data, stream.start) if not stream.head else (stream.start, stream.head)
        if unpatched is None:
            return None
        start, head = unpatched
        is_near = ended.place == stream.end and not ended.by_error
        ahead = flac.STEP_BYTES + flac.MARGIN_BYTES if is_near else 2 * flac.AHEAD_BYTES
        floor = max(start + 16, ended.place - ahead)
        following = find_beginning(self.data, floor, stream.end)
        end = stream.end if following is None else following
        last_frame = max(start + 16, ended.place - 2 * flac.AHEAD_BYTES)
        is_more = flac.find_later_frame(self.data, last_frame, end, head, ended.num_frames) is not None
        if ended.by_error:
            if is_more or (ended.claimed is not None and ended.num_frames < ended.claimed):
                return None  # damage
            end = strip_tags(self.data, floor, end)
            if end == stream.end:
                return None
            return Stream(start, end, head, ended.num_frames)
        if is_more and ended.claimed is not None and not stream.head and ended.num_frames >= ended.claimed:
            return Stream(start, end, head, ended.num_frames)
        if following is None:
            following = find_frames(self.data, floor, end)
        if following is not None:
            return self.at(following)
        return self._next(min(stream.end, ended.place))

    def is_ended_ogg(self, stream: Stream) -> bool:
        """Return whether an Ogg stream has its last page."""
        return has_last_page(self.data, stream.start, stream.end)

    def _after_mpeg(self, ended: Ended) -> Stream | None:
        stream = ended.stream
        if not stream.head and (rest := self._with_right_count(stream, ended.place, ended.num_frames)):
            return rest
        if stream.end < self.end:
            return self._next(stream.end)
        end = strip_tags(self.data, ended.place, self.end)
        if ended.place >= end:
            return None
        start = mpeg.first_frame(self.data, stream.start, end)
        frame = mpeg.frame_of(self.data.at(start, 4))
        if frame is None or stream.head or mpeg.counts_at(self.data, start) is None:
            return self._next(ended.place)
        return self._next(max(ended.place, mpeg.walk(self.data, start + frame.num_bytes, end)[0]))

    def _with_right_count(self, stream: Stream, place: int, num_given: int) -> Stream | None:
        """Return an MPEG stream with a right count of its frames; None if it has one.

        Args:
            stream: the stream.
            place: up to where it was decoded.
            num_given: samples that were given.
        """
        if stream.num_mpeg_frames:  # it has no count, and decoders estimate one
            start = mpeg.first_frame(self.data, stream.start, stream.end)
            first = self.data.at(start, 4)
            if stream.num_mpeg_frames * mpeg.num_samples(first) <= num_given:
                return None
            return replace(
                stream, start=start, head=mpeg.counting_frame(first, stream.num_mpeg_frames), num_given=num_given
            )
        end = strip_tags(self.data, min(place, self.end), self.end)
        start = mpeg.first_frame(self.data, stream.start, end)
        counts, frame = mpeg.counts_at(self.data, start), mpeg.frame_of(self.data.at(start, 4))
        if counts is None or frame is None or (place >= end and num_given):
            return None
        stop, num_frames = mpeg.walk(self.data, start + frame.num_bytes, end)
        if not num_frames > counts.num_frames > 0:
            return None
        head = self.data.at(stream.start, counts.place - stream.start) + num_frames.to_bytes(4, "big")
        return Stream(counts.place + 4, stop, head, num_given)


def _with_head(whole: Stream, layout: Layout, end: int) -> Stream:
    if layout.head is None:
        return replace(whole, end=end)
    return replace(whole, start=layout.samples, end=end, head=layout.head(end - layout.samples))


def _frames_begin(data: Bytes, place: int, end: int) -> bool:
    """Return whether frames of MPEG or ADTS begin at a place."""
    return mpeg.begins(data, place, end) or adts.begins(data, place, end)


def find_frames(data: Bytes, start: int, end: int) -> int | None:
    """Return the place between two places from which frames of MPEG or ADTS follow one another."""
    places = (find(data, start, end) for find in (mpeg.find_frames, adts.find_frames))
    return min((one for one in places if one is not None), default=None)
