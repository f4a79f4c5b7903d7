"""Balance of the workers of a training: costs of the micro-batches of a window, and the load of the slowest worker."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from raysp.ops.ordering import Index, Sizes, Window

Costs = npt.NDArray[np.float64]


def longest_seconds(window: Window, index: Index) -> Costs:
    """Return the duration of the longest row of each micro-batch, 0 for an empty one (num_steps * micro_batches,)."""
    seconds = np.append(index.seconds[window.rows].astype(np.float64), 0.0)
    return seconds[window.edges[:-1]]  # rows of a micro-batch are in the order of descending duration


def micro_batch_costs(window: Window, index: Index, sizes: Sizes) -> Costs:
    """Return the padded cost of each micro-batch (num_steps, micro_batches), as `Sizes.cost` has it."""
    costs = sizes.cost(longest_seconds(window, index)) * np.diff(window.edges)
    return costs.reshape(-1, window.micro_batches)


def imbalance(costs: Costs, num_workers: int) -> float:
    """Return the load of the slowest worker over the mean of all, summed over steps; 1 if there is no load.

    Args:
        costs: costs of micro-batches (num_steps, micro_batches), of which worker `w` runs `w`, `w + num_workers`, ...
        num_workers: number of workers; of more than micro-batches some have no work.
    """
    num_steps, number = costs.shape
    padded = np.zeros((num_steps, -(-number // num_workers) * num_workers))
    padded[:, :number] = costs
    loads = padded.reshape(num_steps, -1, num_workers).sum(1)
    mean = float(loads.mean(1).sum())
    return float(loads.max(1).sum()) / mean if mean else 1.0


def numbers_of_workers(micro_batches: int, own: Iterable[int]) -> tuple[int, ...]:
    """Return the numbers of workers above 1 to compare, ascending.

    They are those that divide the micro-batches of a step, powers of two, and those of the plan; one that does not
    divide the micro-batches is always among them, if there is any.

    Args:
        micro_batches: micro-batches of a step.
        own: numbers of workers of the plan.
    """
    every = range(2, micro_batches + 1)
    found = {one for one in every if micro_batches % one == 0 or one.bit_count() == 1} | {one for one in own if one > 1}
    if all(micro_batches % one == 0 for one in found):
        found |= {next((one for one in every if micro_batches % one), micro_batches)}
    return tuple(sorted(one for one in found if one > 1))
