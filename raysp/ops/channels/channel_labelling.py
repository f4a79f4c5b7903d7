"""Labelling of channels: each is labelled as a row of its own, and a row of one window is its list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from raysp.ops.adding import beside
from raysp.ops.labelling import BlockInHand, Figures, Labelling
from raysp.ops.late_steps import for_joining, source_columns
from raysp.ops.places import CHANNEL, ChannelWindow, channels_of, listed, with_channels
from raysp.ops.rows import (
    ERROR,
    NO_SPEECH,
    OK,
    ROW_SCHEMA,
    WAVE,
    RowStatus,
    as_alone,
    row_statuses,
    statuses_table,
    take_outcome,
)


@dataclass(frozen=True)
class ChannelsInHand(BlockInHand):
    """A block between the steps of labelling it, in which each channel is a row."""

    in_rows: Sequence[RowStatus]
    """Outcomes of its windows as those of rows of several channels."""
    channels: Sequence[ChannelWindow]
    is_silent: Sequence[bool]
    """Whether a window stands for a channel without speech."""


class LabellingChannels:
    """Op that labels blocks of windows of channels.

    Args:
        labelling: op that labels blocks of one channel a row.
    """

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling
        self.has_users_code = labelling.has_users_code
        self.blocks_in_hand = labelling.blocks_in_hand
        self.schema = pa.schema([field for output in labelling.outputs for field in output.schema])

    def __call__(
        self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None
    ) -> tuple[pa.Table, Figures]:
        """Label the windows of a block: `prepare`, `run` and `table`."""
        given = self.prepare(block, shard, names=names)
        figures = self.run(given)
        return self.table(given), figures

    def prepare(self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None) -> ChannelsInHand:
        """Read a block, and decide which of its windows go through the model.

        Args:
            block: as for `Labelling`, with the column of channels.
            shard: name of the shard, which with the number of a row seeds random sampling of each of its channels.
            names: names of rows by their numbers, which seed random sampling in their place.
        """
        statuses, channels = row_statuses(block), channels_of(block)
        has_wave = block.column(WAVE).is_valid().to_pylist()
        is_silent = [one.status == OK and not has for one, has in zip(statuses, has_wave, strict=True)]
        alone = [as_alone(*one) for one in zip(statuses, channels, strict=True)]
        for one in (one for one, silent in zip(alone, is_silent, strict=True) if silent):
            one.skip(NO_SPEECH, "no speech was found in the channel")
        others = block.drop_columns([name for name in (*ROW_SCHEMA.names, CHANNEL) if name in block.column_names])
        given = self.labelling.prepare(beside(statuses_table(alone), others), shard, names=names)
        return ChannelsInHand(**vars(given), in_rows=statuses, channels=channels, is_silent=is_silent)

    def run(self, given: BlockInHand) -> Figures:
        """Run the model over a block, and return its figures. At most `blocks_in_hand` calls overlap."""
        return self.labelling.run(given)

    def table(self, given: BlockInHand) -> pa.Table:
        """Return the windows of a block that ran, in the same order.

        Columns of outputs are lists with an entry in windows that are whole channels.
        """
        assert isinstance(given, ChannelsInHand)
        labels = self.labelling.table(given)
        windows = zip(row_statuses(labels), given.in_rows, given.channels, given.is_silent, strict=True)
        found = [_in_row(one, before, place, is_silent=silent) for one, before, place, silent in windows]
        is_labelled = np.array([one.status == OK for one in found]) | _has_values(labels, self.schema)
        is_listed = is_labelled & np.array([one.is_whole for one in given.channels])
        source = source_columns(given.block)
        rows = beside(statuses_table(found), labels.drop_columns([*ROW_SCHEMA.names, *source.column_names]))
        for field in listed(rows.select(self.schema.names).schema):  # steps on rows may have completed them
            place = rows.schema.get_field_index(field.name)
            rows = rows.set_column(place, field, _in_lists(rows.column(field.name), is_listed))
        return with_channels(beside(rows, for_joining(source, found)), given.channels)


def _in_row(one: RowStatus, before: RowStatus, place: ChannelWindow, *, is_silent: bool) -> RowStatus:
    """Return the outcome of a labelled window of one channel as that of a window of its row."""
    found = RowStatus(before.row, before.window, before.windows)
    take_outcome(found, before if is_silent else one)
    found.seconds = before.seconds
    if one.status == ERROR and before.status == OK:
        found.fail(one.error_type or "", place.named(one.error_message or ""))
    return found


def _has_values(table: pa.Table, schema: pa.Schema) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return a mask of the rows that have a value in a column of a schema."""
    found = [table.column(name).is_valid().to_numpy() for name in schema.names]
    return cast("np.ndarray[Any, np.dtype[np.bool_]]", np.any(found, axis=0))


def _in_lists(values: "pa.ChunkedArray[Any]", is_listed: "np.ndarray[Any, np.dtype[np.bool_]]") -> "pa.ListArray[Any]":
    """Return lists of one value each; null for rows that are not listed."""
    chosen = values.filter(pa.array(is_listed)).combine_chunks()
    starts = np.concatenate([[0], np.cumsum(is_listed)])
    # In Arrow a null offset makes a list null.
    offsets = pa.array(starts, pa.int32(), mask=np.append(~is_listed, False))
    return pa.ListArray.from_arrays(offsets, chosen)
