"""Layers and sums over the rows of a pack on a device, in one launch for all of them.

A function of frames that reads neighbours is applied to all rows at once, with zeros between them, as it pads a row
alone. A sum over a row is taken in the order of its frames, from its own begin on. So values of a row depend neither on
its place nor on other rows.

Legend: R rows that a pack may have, N frames of a pack, I inputs of a frame, C channels, L places of a layout.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from raysp.models.kernels.row_tables import RowTables


def with_gaps(mix: Callable[[Tensor], Tensor], x_1SC: Tensor, tables: RowTables, reach: int) -> Tensor:
    """Apply a function to rows with zeros between them.

    Args:
        mix: function of inputs (1, L * I, C), which returns some outputs for each I inputs.
        x_1SC: inputs, I of each frame; those that are no row's may have any value.
        tables: places of the rows.
        reach: inputs before and behind one that the function reads.

    Returns:
        The outputs of each frame (1, N * outputs, C); those of frames that are no row's are undefined.
    """
    inputs, channels = x_1SC.shape[1] // tables.size, x_1SC.shape[2]
    layout = tables.layout(gap=-(-reach // inputs))
    spread_1LC = layout.spread(x_1SC.reshape(1, tables.size, inputs * channels))
    y_1LC = mix(spread_1LC.view(1, -1, channels))
    return layout.back(y_1LC.reshape(1, layout.length, -1)).view(1, -1, y_1LC.shape[2])


def strided(mix: Callable[[Tensor], Tensor], x_1NC: Tensor, tables: RowTables, stride: int, padding: int) -> Tensor:
    """Apply a strided convolution to rows with zeros between them.

    Args:
        mix: function of frames (1, L, C), of which an output reads `padding` frames before each `stride`-th one.
        x_1NC: frames; those that are no row's may have any value.
        tables: places of the rows.
        stride: frames from one output to the next.
        padding: zeros before a row that the function reads.

    Returns:
        The outputs (1, N, ...), a row's from where it begins in `x_1NC` on; behind them they are undefined.
    """
    layout = tables.layout(gap=padding, multiple=stride)
    y_1MC = mix(layout.spread(x_1NC))
    places_N = (layout.begins_R // stride)[tables.rows_N] + tables.offsets_N
    return y_1MC.index_select(1, places_N.clamp(max=y_1MC.shape[1] - 1))


def of_slots(tables: RowTables) -> RowTables:
    """Return rows that have all frames up to the next, for inputs that are zero behind a row within its last frame."""
    return RowTables.of(tables.slots_R, tables.slots_R, tables.size)


def inputs_inside(num_inputs_R: Tensor, tables: RowTables, inputs: int) -> Tensor:
    """Return inside_NI, True for the first so many inputs of each row, of which a frame has `inputs`."""
    left_N = num_inputs_R[tables.rows_N] - tables.offsets_N * inputs
    return torch.arange(inputs, device=num_inputs_R.device) < left_N[:, None]


def row_sums(x_N: Tensor, tables: RowTables) -> Tensor:
    """Return sums (R, ...) over the frames of each row of values (N, ...), zero for frames that are no row's.

    A thread adds the values of a row one after another; zeros behind them change no bit.
    """
    ends_1 = tables.begins_R[-1:] + tables.slots_R[-1:]
    return torch.segment_reduce(x_N, "sum", offsets=torch.cat([tables.begins_R, ends_1]), axis=0, unsafe=True)


def centred(x_NIC: Tensor, num_inputs_R: Tensor, tables: RowTables) -> tuple[Tensor, Tensor]:
    """Return inputs less the mean of their row, zero outside of rows, and the sums of their squares (R, C).

    Sums are in float64.
    """
    outside_NI1 = ~inputs_inside(num_inputs_R, tables, x_NIC.shape[1])[:, :, None]
    x_NIC = x_NIC.masked_fill(outside_NI1, 0.0)
    total_RC = row_sums(x_NIC.sum(1, dtype=torch.float64), tables)
    mean_RC = (total_RC / num_inputs_R.clamp(min=1)[:, None]).to(x_NIC.dtype)
    centred_NIC = (x_NIC - mean_RC[tables.rows_N][:, None]).masked_fill(outside_NI1, 0.0)
    return centred_NIC, row_sums(centred_NIC.square().sum(1, dtype=torch.float64), tables)
