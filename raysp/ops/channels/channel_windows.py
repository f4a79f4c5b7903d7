"""Channels of windows, where each channel of a recording is labelled: a column of blocks and of staged windows.

The windows of a row are numbered through all its channels, in their order, so that whatever moves, stages and counts
windows needs not know of channels. The column has the number of a window within its channel.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import pyarrow as pa

from raysp.columns import INNER_PREFIX, SECONDS

CHANNEL = f"{INNER_PREFIX}channel"
"""Column of the channels."""
MOST_CHANNELS = 16
"""Largest number of channels of a recording of which each is labelled."""


@dataclass(frozen=True)
class ChannelWindow:
    """Place of a window among those of its channel."""

    channel: int
    channels: int
    """Number of channels of the recording."""
    window: int
    windows: int | None
    """Number of windows of the channel, set on its last one."""
    seconds: float | None
    """Seconds that the window adds to those of its channel."""

    @property
    def is_whole(self) -> bool:
        """Whether the window is a whole channel."""
        return self.windows == 1

    def named(self, message: str) -> str:
        """Return a message with the channel, if the recording has several."""
        return f"channel {self.channel} of {self.channels}: {message}" if self.channels > 1 else message


_NUMBERS = [(name, pa.int32()) for name in ("channel", "channels", "window", "windows")]
_TYPE = pa.struct([*_NUMBERS, ("seconds", pa.float64())])


def with_channels(table: pa.Table, windows: Sequence[ChannelWindow | None]) -> pa.Table:
    """Return a table of windows with the column of channels; None stands for a row of one channel and one window."""
    seconds = table.column(SECONDS).to_pylist()
    places = [asdict(one or ChannelWindow(0, 1, 0, 1, added)) for one, added in zip(windows, seconds, strict=True)]
    return table.append_column(CHANNEL, pa.array(places, _TYPE))


def channels_of(table: pa.Table) -> list[ChannelWindow]:
    """Return the channels of windows; in tables without the column all rows have one channel and one window."""
    if CHANNEL not in table.column_names:
        return [ChannelWindow(0, 1, 0, 1, seconds) for seconds in table.column(SECONDS).to_pylist()]
    return [ChannelWindow(**value) for value in cast("list[dict[str, Any]]", table.column(CHANNEL).to_pylist())]


def listed(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a row whose channels have these columns each: lists, one entry a channel."""
    return pa.schema([(field.name, pa.list_(field.type)) for field in schema])
