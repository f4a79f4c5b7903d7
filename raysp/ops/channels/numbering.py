"""Numbering of the windows of a row through its channels."""

from collections.abc import Callable, Iterator, Sequence

from raysp.ops.places import OF_SAMPLES, ChannelWindow
from raysp.ops.rows import OK, RowStatus, Window

Cutting = Callable[[RowStatus], Iterator[Window]]
"""Callable that cuts a channel into windows as if it were a row; the last one has the outcome, which is passed."""

NO_SPEECH = "no_speech"


def through_channels(row_status: RowStatus, channels: Sequence[Cutting]) -> Iterator[Window]:
    """Yield the windows of all channels of a row; the last one has the outcome of the row.

    A row ends with the first channel that is not ok. A channel without speech is a window that is ok and has no
    samples, unless no channel has speech. Durations are those of the first channel.
    """
    number, has_speech = 0, False
    for channel, windows_of in enumerate(channels):
        for window in windows_of(RowStatus(row_status.row)):
            one = window.row_status
            place = ChannelWindow(channel, len(channels), one.window, one.windows, one.seconds)
            is_silent = one.error_type == NO_SPEECH
            has_speech = has_speech or one.status == OK
            is_last = one.windows is not None and channel == len(channels) - 1
            if is_last or (one.status != OK and not is_silent):
                is_ok = one.status == OK or (is_silent and has_speech)
                _end(row_status, one, place, number, is_ok=is_ok)
                yield window._replace(row_status=row_status, channel=place)
                return
            part = RowStatus(row_status.row, number, None)
            part.seconds = added_seconds(one, channel)
            yield window._replace(row_status=part, channel=place)
            number += 1


def as_alone(one: RowStatus, place: ChannelWindow, *, row: int | None = None) -> RowStatus:
    """Return the outcome of a window, numbered within its channel, and as a window of another row if it is given."""
    alone = RowStatus(one.row if row is None else row, place.window, place.windows)
    take_outcome(alone, one)
    alone.seconds = place.seconds
    return alone


def take_outcome(to: RowStatus, one: RowStatus) -> None:
    """Copy all of an outcome but the row and the number of the window."""
    for name in RowStatus.__slots__:
        if name not in ("row", "window", "windows"):
            setattr(to, name, getattr(one, name))


def _end(row_status: RowStatus, one: RowStatus, place: ChannelWindow, number: int, *, is_ok: bool) -> None:
    """Record the outcome of a row: ok, or that of the last window of a channel."""
    row_status.window, row_status.windows = number, number + 1
    row_status.seconds = added_seconds(one, place.channel)
    if is_ok:
        return
    row_status.status, row_status.error_type, row_status.error_message = one.status, one.error_type, one.error_message
    if one.error_type in OF_SAMPLES:
        row_status.fail(one.error_type, place.named(one.error_message or ""))


def added_seconds(one: RowStatus, channel: int) -> float | None:
    """Return the seconds that a window adds to its row: those of all channels but the first are counted already."""
    return one.seconds if channel == 0 or one.seconds is None else 0.0
