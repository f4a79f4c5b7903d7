"""Joining of rows of several windows or channels: of windows to channels, and of channels to rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa

from raysp.ops.adding import beside, chosen
from raysp.ops.joining import Joining, row_outcome
from raysp.ops.places import CHANNEL, ChannelWindow, channels_of, listed
from raysp.ops.rows import ERROR, OK, ROW_SCHEMA, RowStatus, added_seconds, as_alone, row_statuses, statuses_table


@dataclass(frozen=True)
class _Channel:
    """A channel of a row: its windows, `first <= window < end`, and its outcome."""

    first: int
    end: int
    row: int
    outcome: RowStatus
    label: int | None
    """Place of its label among those of channels; None: it has no label."""


class JoiningChannels:
    """Op that joins the windows of rows whose channels are each labelled.

    A row is ok if all its channels are. Otherwise it has the outcome of its last channel, which is that of decoding the
    whole row, or, if that is ok, of its first channel that is not. Its columns are lists with an entry for each
    channel, or null if a channel has no label.

    Args:
        joining: op that joins the windows of a channel as those of a row.
    """

    def __init__(self, joining: Joining) -> None:
        self.joining = joining
        self.schema = pa.schema([field for output in joining.outputs for field in output.schema])

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Return one row for all windows of a row.

        Args:
            windows: as for `Joining`, with the column of channels; columns of outputs are lists in windows that are
                whole channels.
        """
        channels, labels = self._channels(windows)
        edges = [0, *(i for i in range(1, len(channels)) if channels[i].row != channels[i - 1].row), len(channels)]
        rows = [channels[first:end] for first, end in pairwise(edges)]
        outcomes = [row_outcome([one.outcome for one in row], self.joining.sample_rate) for row in rows]
        ends = [row[-1].end - 1 if one.status == OK else None for row, one in zip(rows, outcomes, strict=True)]
        table = beside(statuses_table(outcomes), chosen(windows, self.joining.added, ends))
        for field in listed(labels.schema):
            table = table.append_column(field, _lists(labels.column(field.name), rows))
        return table

    def _channels(self, windows: pa.Table) -> tuple[list[_Channel], pa.Table]:
        """Return the channels of all rows in order, and their labels."""
        statuses, places = row_statuses(windows), channels_of(windows)
        spans = list(pairwise([*(i for i, place in enumerate(places) if place.window == 0), len(places)]))
        joined = self._joined(windows, statuses, places, spans)
        outcomes = {one.row: (place, one) for place, one in enumerate(row_statuses(joined))}
        whole = windows.select(self.schema.names)
        is_listed = whole.column(0).is_valid().to_numpy()
        places_listed = (np.cumsum(is_listed) - 1).tolist()
        num_listed = int(is_listed.sum())
        found = []
        for number, (first, end) in enumerate(spans):
            outcome, label = statuses[first], places_listed[first] if is_listed[first] else None
            if number in outcomes:
                place, outcome = outcomes[number]
                outcome = _in_row(outcome, statuses[first:end], places[first])
                label = num_listed + place if outcome.status == OK else None
            found.append(_Channel(first, end, statuses[first].row, outcome, label))
        labels = pa.table([_entries(column) for column in whole.columns], names=self.schema.names)
        return found, pa.concat_tables([labels, joined.select(self.schema.names)])

    def _joined(
        self,
        windows: pa.Table,
        statuses: Sequence[RowStatus],
        places: Sequence[ChannelWindow],
        spans: Sequence[tuple[int, int]],
    ) -> pa.Table:
        """Return a row, numbered by its place in `spans`, for each channel of several windows."""
        long = [(number, *span) for number, span in enumerate(spans) if not places[span[0]].is_whole]
        chosen_windows = [index for _, first, end in long for index in range(first, end)]
        alone = [
            as_alone(statuses[index], places[index], row=number)
            for number, first, end in long
            for index in range(first, end)
        ]
        others = windows.drop_columns([*ROW_SCHEMA.names, CHANNEL, *self.schema.names])
        others = others.take(pa.array(chosen_windows, pa.int64()))
        return self.joining(beside(statuses_table(alone), others))


def _in_row(one: RowStatus, windows: Sequence[RowStatus], place: ChannelWindow) -> RowStatus:
    """Return the outcome of a joined channel as that of a part of its row; an error of joining names the channel."""
    one.row, one.seconds = windows[0].row, added_seconds(one, place.channel)
    if one.status == ERROR and all(window.status == OK for window in windows):
        one.fail(one.error_type or "", place.named(one.error_message or ""))
    return one


def _entries(lists: "pa.ChunkedArray[Any]") -> "pa.Array[Any]":
    """Return the entries of lists of one entry."""
    return cast("pa.ListArray[Any]", lists.combine_chunks()).flatten()


def _lists(labels: "pa.ChunkedArray[Any]", rows: Sequence[Sequence[_Channel]]) -> "pa.ListArray[Any]":
    """Return for each row the labels of its channels; null if one of them has none."""
    offsets: list[int | None] = []
    places: list[int] = []
    for row in rows:
        of_row = [one.label for one in row if one.label is not None]
        # In Arrow a null offset makes a list null.
        offsets.append(len(places) if len(of_row) == len(row) else None)
        places += of_row if len(of_row) == len(row) else []
    chosen_labels = labels.take(pa.array(places, pa.int64())).combine_chunks()
    return pa.ListArray.from_arrays(pa.array([*offsets, len(places)], pa.int32()), chosen_labels)
