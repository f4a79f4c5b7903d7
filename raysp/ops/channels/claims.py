"""What recordings claim before they are decoded: their durations, and their numbers of channels."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from raysp.audio import AudioHeader, Recording
from raysp.errors import AudioError
from raysp.ops.channels.channel_windows import MOST_CHANNELS
from raysp.ops.recordings import Recordings
from raysp.ops.rows import OK, RowStatus


class ReadHeaders(Protocol):
    """Function that yields the headers of recordings, in order, as `raysp.audio.read_headers`."""

    def __call__(
        self, recordings: Iterable[Recording | None], *, counted: bool = False
    ) -> Iterator[AudioHeader | AudioError]:
        """Yield the headers."""
        ...


def read_claims(
    recordings: Recordings,
    statuses: Sequence[RowStatus],
    read_headers: ReadHeaders,
    each_channel: bool,
    *,
    are_counted: bool = False,
) -> tuple[list[float], list[int]]:
    """Return seconds of audio from the manifest, else from headers; and numbers of channels that are labelled.

    Seconds are 0 if unknown: decoding reports the error. If each channel is labelled, all headers are read, and a row
    without a valid one fails.

    Args:
        recordings: the recordings.
        statuses: outcomes of their rows.
        read_headers: function that reads headers.
        each_channel: whether each channel is labelled.
        are_counted: whether seconds that headers do not count are unknown; else they are estimated.
    """
    is_ok = [row_status.status == OK for row_status in statuses]
    given = [recordings.seconds(i) if ok else 0.0 for i, ok in enumerate(is_ok)]
    seconds, channels = [one or 0.0 for one in given], [1] * len(statuses)
    wanted = [i for i, ok in enumerate(is_ok) if ok and (each_channel or given[i] is None)]
    for index, header in _headers(recordings, wanted, partial(read_headers, counted=are_counted)):
        if isinstance(header, AudioError):
            if each_channel:
                statuses[index].fail(header.error_type, str(header))
            continue
        if given[index] is None and (header.num_frames is not None or not are_counted):
            seconds[index] = header.seconds
        if each_channel:
            channels[index] = _channels_of(statuses[index], header)
    return [s if 0 <= s < math.inf else 0.0 for s in seconds], channels


def _channels_of(row_status: RowStatus, header: AudioHeader) -> int:
    """Return the number of channels of a recording; a row with too many fails."""
    if header.channels <= MOST_CHANNELS:
        return header.channels
    row_status.fail(
        "invalid_audio",
        f"{header.channels} channels; channel='each' labels at most {MOST_CHANNELS}: choose one by "
        "Decode(channel=INDEX), or all of them mixed by channel='mean'",
    )
    return 1


def _headers(
    recordings: Recordings, indexes: Sequence[int], read_headers: ReadHeaders
) -> Iterator[tuple[int, AudioHeader | AudioError]]:
    """Yield rows with the headers of their recordings; without those whose recording is missing."""
    asked: list[int] = []

    def found() -> Iterator[Recording]:
        for index, recording in recordings.ahead(indexes):
            if not isinstance(recording, AudioError):
                asked.append(index)
                yield recording

    for place, header in enumerate(read_headers(found())):
        yield asked[place], header
