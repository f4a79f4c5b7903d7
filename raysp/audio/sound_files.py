"""Streams that libsndfile reads: PCM and its like after a header, and FLAC.

A header may count other samples than there are. libsndfile tells where they begin, the field before them how many bytes
the header counts, and what stands after those whether the count is right.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import soundfile

from raysp.audio.container import Opening, describe, refusal
from raysp.audio.joints import MOST_UNKNOWN_BYTES, begins, frames_follow
from raysp.audio.recording_bytes import BEGINNING, RangedBytes, Reader, RecordingBytes, skip_tags, strip_tags
from raysp.audio.waveforms import AudioHeader, Samples
from raysp.errors import AudioError
from raysp.words import count

UNBOUNDED = 2**62
AHEAD_BYTES = 8 * 1024
"""Bytes that libFLAC reads ahead."""
SKIPPED_VALUES = 1 << 20
"""Values of all channels that are decoded at once where they are not used."""
UNSET = 0x7FFFF000
"""From this size on, a count of 32 bits stands for one that was not known when the header was written."""
MOST_SEARCHED_BYTES = 16 * 1024 * 1024
"""Most bytes of a file in ranges that are searched for another FLAC before a seek."""
MOST_CHUNKS, MOST_HEADER_BYTES = 1000, 16 * 1024 * 1024
WIDTHS = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
    "ULAW": 1,
    "ALAW": 1,
}
"""Bytes of a sample. A seek in these gives the same frames as decoding up to the position, bit for bit."""
SIZES: dict[str, tuple[bytes, int, Literal["big", "little"], int]] = {
    "WAV": (b"data", 4, "little", 0),
    "RF64": (b"data", 4, "little", 0),
    "AIFF": (b"SSND", 4, "big", 8),
    "CAF": (b"data", 8, "big", 4),
    "W64": (b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", 8, "little", 0),
}
"""Name of the chunk of samples, bytes and order of its size, and bytes of the chunk before the samples."""
NIST_FIELD = re.compile(rb"(?m)^(sample_count|channel_count|sample_n_bytes) -i (\d{1,12})\b")
STREAMINFO = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22.{18}", re.DOTALL)


class Source(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read sequentially.

    On a seekable file, soundfile seeks to the current position after each read. A FLAC file whose end cannot be reached
    by a seek then fails although every frame was read.
    """

    def seekable(self) -> bool:
        """Report non-seekable so that soundfile never seeks."""
        return False


@dataclass(frozen=True, slots=True)
class Layout:
    """Samples of a recording by its header."""

    samples: int
    """Place of the first."""
    claimed: int | None
    """Bytes of samples that the header counts; None: it has no count."""


class SoundFileStream:
    """A stream that libsndfile reads.

    Raises:
        AudioError: libsndfile refuses it.
    """

    has_turned = False
    num_silent = 0

    def __init__(self, data: RecordingBytes, start: int, opening: Opening, container: str) -> None:
        self._data, self._start, self._opening, self._container = data, start, opening, container
        self._end = self._after = self._limit = data.num_bytes
        """Places: up to which the decoder reads, from which on other streams are looked for, and of the next
        recording where its header would be damage of this one's."""
        self._head = b""
        self._claimed_frames: int | None = None
        self._num_frames: int | None = None
        """Frames of a FLAC after which libFLAC fails."""
        self._decoded_to = 0
        self._sought = 0
        """Frame from which on a FLAC is decoded."""
        self._is_searched = False
        """Whether another FLAC was looked for."""
        if container == "FLAC" and STREAMINFO.match(head := data.at(start, 26)):
            # Frames beyond the count are decoded, as in a stream that does not count them.
            self._claimed_frames = int.from_bytes(head[21:], "big") & (1 << 36) - 1
            self._head = head[:21] + bytes([head[21] & 0xF0]) + bytes(4)
        self._layout: Layout | None = None
        self._is_flac = bool(self._head)
        try:
            self._open()
        except AudioError:
            following = data.find(BEGINNING, start + 12, data.num_bytes)
            self._end = self._after = self._limit = data.num_bytes if following is None else following
            self._head = self._head or _repaired(data, start, self._end, container)
            if following is None and not self._head:
                raise
            self._open()
        if container != "FLAC":
            self._layout = layout_of(data, start, self._reader.place, container)
            if self._layout is not None:
                self._bound(self._layout)
        self.place = 0

    def _open(self) -> None:
        self._reader = Reader(self._data, self._start + len(self._head), self._end, self._head)
        try:
            self._source = Source(self._reader)
        except soundfile.LibsndfileError as error:
            raise refusal(self._opening, self._container, error.code, error.error_string) from None

    def turn(self) -> None:
        """Go on with another rate or other channels, which these formats do not have."""

    def close(self) -> None:
        """Close the decoder."""
        self._source.close()

    @property
    def header(self) -> AudioHeader:
        """Header of the stream."""
        source, num_frames = self._source, self._source.frames if not self._is_flac else self._claimed_frames
        container = self._container if source.format == "RAW" else source.format
        counted = num_frames if (num_frames and 0 < num_frames < UNBOUNDED) or not self._is_flac else None
        return AudioHeader(
            source.samplerate, source.channels, counted, container, source.subtype, self._opening.num_bytes
        )

    @property
    def num_left(self) -> int:
        """Upper bound of the frames that follow, as far as it is known."""
        if self._is_flac:
            return UNBOUNDED
        if self._layout is not None and self._layout.samples >= self._end:
            return 0  # libsndfile decodes a packet of GSM without data to silence
        return int(self._source.frames) - self.place

    def read(self, num_wanted: int, dtype: Literal["int16", "float32"]) -> tuple[Samples, AudioError | None]:
        """Return the next frames, (num_frames, channels), fewer at the end or before an error, which is returned."""
        first, frames = self.place, cast("Samples", np.empty((num_wanted, self._source.channels), dtype))
        error: AudioError | None = None
        try:
            frames = cast("Samples", self._source.read(out=frames)) if num_wanted else frames
        except soundfile.LibsndfileError as failure:
            frames = frames[: max(0, self._decoded_frames() - self.place)]
            error = self._judge(failure, self.place + len(frames))
            if error is None and self._num_frames is not None:
                frames = frames[: max(0, self._num_frames - self.place)]
            if error is not None and self._is_flac:
                frames = frames[: max(0, self._first_damaged(self.place + len(frames)) - self.place)]
        if self._sought and len(frames) < num_wanted and error is None and self._end_before_another(UNBOUNDED):
            self.skip(first)
            return self.read(num_wanted, dtype)
        self.place += len(frames)
        return frames, error

    def _first_damaged(self, end: int) -> int:
        """Return the first frame of a block of FLAC that fails before a frame; libFLAC goes on after the damage."""
        block = max(1, int.from_bytes(self._head[8:10], "big"))
        reader, place = Reader(self._data, self._start + len(self._head), self._end, self._head), 0
        try:
            with Source(reader) as source:
                place = int(source.seek(self._sought)) if self._sought else 0
                frames = np.empty((max(block, SKIPPED_VALUES // source.channels), source.channels), np.int16)
                while place < end:
                    left = self.place - place
                    num_wanted = min(left, len(frames)) if left > 0 else min(block - place % block, end - place)
                    if not (num_read := len(source.read(out=frames[:num_wanted]))):
                        break
                    place += num_read
        except soundfile.LibsndfileError:
            pass
        return place

    def _decoded_frames(self) -> int:
        """Return the frames before an error, which libsndfile counts; those before the read where it cannot."""
        try:
            return int(self._source.tell())
        except soundfile.LibsndfileError:
            return self.place

    def _judge(self, failure: soundfile.LibsndfileError, place: int) -> AudioError | None:
        """Return the error of the recording; None if a FLAC ends where libFLAC fails at the data after it."""
        report = f"{self._container}: libsndfile reports {failure.error_string!r} while decoding"
        error = AudioError("corrupt_audio", f"{report}, {describe(self._opening)}; expected a stream without errors")
        if not self._is_flac or place < (self._claimed_frames or 1):
            return error
        self._after = self._end_of_flac()
        end = strip_tags(self._data, self._after, self._end)
        is_end = end <= self._after or begins(self._data, skip_tags(self._data, self._after, end))
        # libFLAC may have gone on to frames of another stream, which are not counted.
        self._num_frames, failed = self._decode_flac(self._after)
        is_whole = not failed and self._num_frames >= (self._claimed_frames or 1)
        return None if is_whole and (is_end or self._claimed_frames) else error

    def _end_of_flac(self) -> int:
        """Return the place after the last frame. libFLAC reads ahead, so the end is read again byte by byte."""
        self._decode_flac(self._end, single_from=self._reader.place - 3 * AHEAD_BYTES)
        place = self._decoded_to - 2  # it has looked at two bytes, and at one more after a byte of a sync code
        place = place - 1 if begins(self._data, place - 1) else place
        following = self._data.find(BEGINNING, self._start + len(self._head), min(place, self._end))
        return place if following is None else following

    def _decode_flac(self, end: int, single_from: int | None = None) -> tuple[int, bool]:
        """Return the number of frames up to a place, and whether one fails. `_decoded_to` is where decoding ended."""
        reader = Reader(self._data, self._start + len(self._head), end, self._head)
        reader.single_from = end if single_from is None else single_from
        num_frames, failed = 0, False
        try:
            with Source(reader) as source:
                frames = np.empty((SKIPPED_VALUES // source.channels, source.channels), np.int16)
                while num_read := len(source.read(out=frames)):
                    num_frames += num_read
        except soundfile.LibsndfileError:
            failed = True
        self._decoded_to = reader.place
        return num_frames, failed

    def skip(self, num_frames: int) -> None:
        """Skip frames, or all up to the end: by a seek where the format has exact seeks, else by decoding."""
        target = self.place + num_frames
        if self._is_flac:
            self._end_before_another(MOST_SEARCHED_BYTES if isinstance(self._data, RangedBytes) else UNBOUNDED)
        source = self._source
        # A seek beyond the count of a FLAC may reach the frame of that number in another one.
        most = (self._claimed_frames or UNBOUNDED) if self._is_flac else source.frames
        if source.subtype in WIDTHS and target <= most:
            try:
                if source.seek(target) == target:
                    self.place = target
                    self._sought = target if self._is_flac else 0
                    return
            except soundfile.LibsndfileError:
                pass
            self._open()  # a failed seek leaves the decoder unusable
            self.place = 0
        most = max(1, SKIPPED_VALUES // source.channels)
        while (num_wanted := min(most, target - self.place, self.num_left)) > 0:
            frames, error = self.read(num_wanted, "float32")
            if error is not None:
                raise error
            if len(frames) < num_wanted:
                return

    def _end_before_another(self, most_bytes: int) -> bool:
        """Return whether another FLAC follows near enough, before which this one now ends, from its beginning on again.

        libFLAC looks for frames up to the end of the file when it seeks, and takes frames of another stream.
        """
        begin = self._start + len(self._head)
        if self._is_searched or self._end - begin > most_bytes:
            return False
        self._is_searched = True
        another = self._data.find(STREAMINFO, begin, self._end)
        if another is None:
            return False
        self._end = self._after = another
        self._source.close()
        self._open()
        self.place = self._sought = 0
        return True

    def end_place(self) -> int:
        """Return the place in the recording from which on other streams are looked for."""
        return self._after

    def counted_seconds(self) -> float | None:
        """Return the seconds of the stream, by the size of its samples or the number of its last frame; else None."""
        if not self._is_flac:
            return self.header.seconds
        last = self._claimed_frames - 1 if self._claimed_frames else None
        if last is None or self._data.find(BEGINNING, self._start + len(self._head), self._end) is not None:
            return None
        frame, num_more = np.empty((1, self._source.channels), np.int16), 0
        try:
            if self._source.seek(last) != last or not len(self._source.read(out=frame)):
                return None
            num_more = len(self._source.read(out=frame))
        except soundfile.LibsndfileError:  # at tags or another stream after the last frame
            self._after = self._end_of_flac()
        return None if num_more else self.header.seconds

    def missing(self) -> str | None:
        """Return a message on samples that the header announces, of a stream without any."""
        if self._layout is not None and self._layout.claimed:
            return f"announces {count(self._layout.claimed, 'byte')} of samples"
        return (
            f"announces {self.header.num_frames / self.header.sample_rate:.3f} seconds"
            if self.header.num_frames
            else None
        )

    def _bound(self, layout: Layout) -> None:
        """Decide where the samples end, and open the decoder again if that is not where it would."""
        data, end = self._data, self._limit
        claimed_end = end if layout.claimed is None else layout.samples + layout.claimed
        if claimed_end - 1 <= end <= claimed_end + 1 and layout.claimed is not None:
            return  # the usual header, which is right
        rest = _behind_chunks(data, self._container, claimed_end)
        width = WIDTHS.get(self._source.subtype)
        is_end = claimed_end < end and (strip_tags(data, rest, end) <= rest or begins(data, rest))
        if is_end or (layout.claimed and claimed_end < end and frames_follow(data, rest)):
            self._end, self._after = claimed_end, rest
        else:
            beginning = data.find(BEGINNING, layout.samples, end)
            stop = end if beginning is None else beginning
            is_chunk = data.at(claimed_end, 4) == SIZES.get(self._container, (b"",))[0]  # of more samples
            if claimed_end < stop and (rest != claimed_end or width is None or is_chunk):
                self._end, self._after = claimed_end, rest
            elif claimed_end < stop:  # no known data follows the samples: more samples, or unknown data
                num_unknown = strip_tags(data, claimed_end, stop) - claimed_end
                is_counted = num_unknown <= MOST_UNKNOWN_BYTES and layout.claimed
                stop = claimed_end if is_counted else strip_tags(data, claimed_end, stop, zeros=False)
                self._end = self._after = stop
            else:  # cut before another recording, or without a count
                self._end = self._after = stop
            if width is not None and (claimed_end < self._end or self._end < min(claimed_end, data.num_bytes)):
                self._open_raw(layout)
                return
        if self._end < data.num_bytes:
            self._open()

    def _open_raw(self, layout: Layout) -> None:
        """Open all samples, of which the header counts a part."""
        first = self._source
        endian = (
            first.endian
            if first.endian in ("LITTLE", "BIG")
            else "LITTLE"
            if self._container in ("WAV", "RF64", "W64")
            else "BIG"
        )
        self._reader = Reader(self._data, layout.samples, self._end)
        self._source = Source(self._reader, "r", first.samplerate, first.channels, first.subtype, endian, "RAW")
        first.close()


def layout_of(data: RecordingBytes, start: int, reached: int, container: str) -> Layout | None:
    """Return the place of a recording's samples; None without a field that counts them.

    Args:
        data: the recording.
        start: place of its header.
        reached: place up to which libsndfile has read the header, and perhaps a block of samples.
        container: its container.
    """
    head = data.at(start, min(reached - start, MOST_HEADER_BYTES))
    if container == "AU":
        order: Literal["big", "little"] = "big" if head.startswith(b".snd") else "little"
        claimed: int | None = int.from_bytes(head[8:12], order)
        return Layout(start + int.from_bytes(head[4:8], order), None if claimed and claimed >= UNSET else claimed)
    if container == "NIST":
        fields = {name: int(value) for name, value in NIST_FIELD.findall(head)}
        if not head[8:16].strip().isdigit() or b"sample_count" not in fields:
            return None
        frame_bytes = fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 1)
        return Layout(start + int(head[8:16]), fields[b"sample_count"] * frame_bytes)
    name, size_bytes, order, num_before = SIZES[container]
    place = head.rfind(name)
    if place < 0:
        return None
    order = "big" if head.startswith(b"RIFX") else order
    samples = place + len(name) + size_bytes + num_before
    claimed = int.from_bytes(head[place + len(name) :][:size_bytes], order) - num_before
    if container == "AIFF":
        offset = int.from_bytes(head[samples - 8 : samples - 4], "big")
        samples, claimed = samples + offset, claimed - offset
    if container == "W64":
        claimed -= samples - place
    if container == "RF64" and claimed == 0xFFFFFFFF:
        claimed = int.from_bytes(head[28:36], "little")
    elif claimed >= (UNSET if size_bytes == 4 else 1 << 62):
        claimed = None
    return Layout(start + samples, None if claimed is None else max(0, claimed))


def _repaired(data: RecordingBytes, start: int, end: int, container: str) -> bytes:
    """Return a header that libsndfile reads, in place of one with sizes that are not set or wrong; empty without one.

    The samples reach up to a place.
    """
    head = data.at(start, min(end - start, 64 * 1024))
    place, format_place = head.find(b"data"), head.find(b"fmt ")
    if place < 0 or place + 8 > len(head):
        return b""
    if container == "CAF":
        return head[: place + 4] + (end - start - place - 8).to_bytes(8, "big") + head[place + 12 : place + 16]
    order: Literal["big", "little"] = "big" if head.startswith(b"RIFX") else "little"
    format_end = format_place + 8 + int.from_bytes(head[format_place + 4 : format_place + 8], order)
    if container != "WAV" or not 0 < format_place < format_end <= place:
        return b""
    num_unused = place - 12 - (format_end - format_place)  # a chunk that keeps the places of the header
    unused = b"JUNK" + (num_unused - 8).to_bytes(4, order) + bytes(num_unused - 8) if num_unused >= 8 else b""
    size = min(end - start - place - 8, 0xFFFFFFFF)
    return head[:12] + head[format_place:format_end] + unused + b"data" + size.to_bytes(4, order)


def _behind_chunks(data: RecordingBytes, container: str, place: int) -> int:
    """Return the place after the chunks that follow the samples; they may have a byte of padding before them."""
    for _ in range(MOST_CHUNKS):
        here = place if (size := _chunk_bytes(data, container, place)) else place + 1
        size = size or _chunk_bytes(data, container, place + 1)
        if not size:
            break
        place = here + size
    return skip_tags(data, place, data.num_bytes) if place < data.num_bytes else place


def _chunk_bytes(data: RecordingBytes, container: str, place: int) -> int:
    """Return the bytes of the chunk at a place that holds no samples; 0 if there is none."""
    name, size_bytes, order, _ = SIZES.get(container, (b"", 0, "little", 0))
    head = data.at(place, 4 + size_bytes)
    is_name = len(head) == 4 + size_bytes and all(0x20 <= letter < 0x7F for letter in head[:4])
    if len(name) != 4 or not is_name or head[:4] == name or begins(data, place):
        return 0
    size = len(head) + int.from_bytes(head[4:], "big" if order == "big" or data.at(0, 4) == b"RIFX" else "little")
    return size if place + size <= data.num_bytes + 1 else 0
