"""Labelling of each channel: before decoding a row becomes one row per channel, and after joining one row again.

In between, the row of a channel has the number `row * MOST_CHANNELS + channel`, and is a row like any other.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from raysp.bounds import MOST_CHANNELS
from raysp.ops.rows import NO_SPEECH, OK, RowStatus, chosen, plain, row_statuses, statuses_table, with_columns

OF_MODEL = ("too_short", "unknown_language", "step_failed", "out_of_memory", "model_output")
"""Outcomes of labelling; outcomes of decoding take precedence."""
OF_CHANNEL = (*OF_MODEL[1:], "invalid_audio")
"""Errors whose messages name the channel."""


def explode(num_channels: Sequence[int]) -> list[tuple[int, int]]:
    """Return the index of the row and the channel of each row of a channel, in order."""
    return [(row, channel) for row, number in enumerate(num_channels) for channel in range(number)]


def status_of_channel(row_status: RowStatus, channel: int) -> RowStatus:
    """Return the outcome of a row for one of its channels."""
    return replace(row_status, row=row_status.row * MOST_CHANNELS + channel)


def listed(schema: pa.Schema) -> pa.Schema:
    """Return the schema with each column a list that has one entry per channel."""
    return pa.schema([(field.name, pa.list_(field.type)) for field in schema])


def gather(rows: pa.Table, added: pa.Schema, outputs: Sequence[str]) -> pa.Table:
    """Return one row for all channels of a row.

    A row is ok if all its channels with speech are ok and there is such a channel. Otherwise it has the outcome of the
    first channel that failed in decoding, or else of the first channel that was not labelled. Columns of outputs are
    lists, or null unless all channels have labels.

    Args:
        rows: rows of channels in order, all of each row.
        added: columns that steps add.
        outputs: columns of outputs.
    """
    statuses, labels = row_statuses(rows), rows.select(outputs)
    owners = rows.column("row").to_numpy() // MOST_CHANNELS
    edges = [*np.flatnonzero(np.diff(owners, prepend=-1)).tolist(), len(owners)]
    has_label = np.any([column.is_valid().to_numpy() for column in labels.columns], axis=0)
    outcomes: list[RowStatus] = []
    decisive: list[int | None] = []
    offsets: list[int | None] = []
    places: list[int] = []
    for first, end in pairwise(edges):
        channel, outcome = _outcome(statuses[first:end])
        is_listed = outcome.status == OK or has_label[first:end].all()
        outcomes.append(outcome)
        decisive.append(first + channel if outcome.status == OK else None)
        # In Arrow a null offset makes a list null.
        offsets.append(len(places) if is_listed else None)
        places += range(first, end) if is_listed else ()
    table = with_columns(statuses_table(outcomes), chosen(rows, added, decisive))
    ends = pa.array([*offsets, len(places)], pa.int32())
    for field, column in zip(listed(labels.schema), labels.columns, strict=True):
        entries = column.take(pa.array(places, pa.int64())).combine_chunks()
        table = table.append_column(field, pa.ListArray.from_arrays(ends, entries))
    return table


def _outcome(channels: Sequence[RowStatus]) -> tuple[int, RowStatus]:
    """Return the channel that determines the outcome of a row, and the outcome, which names the failed channel."""
    is_ok = [row_status.status == OK for row_status in channels]
    failed = [
        place for place, row_status in enumerate(channels) if not is_ok[place] and row_status.error_type != NO_SPEECH
    ]
    decoding = [place for place in failed if channels[place].error_type not in OF_MODEL]
    place = (decoding or failed or [is_ok.index(True) if any(is_ok) else 0])[0]
    outcome = replace(channels[place], row=channels[place].row // MOST_CHANNELS)
    # A step on decoded rows fails for all channels with one message.
    is_of_row = outcome.error_type == "step_failed" and len({row_status.error_message for row_status in channels}) == 1
    if len(channels) > 1 and outcome.error_type in OF_CHANNEL and not is_of_row:
        outcome.error_message = plain(f"channel {place} of {len(channels)}: {outcome.error_message}")
    return place, outcome
