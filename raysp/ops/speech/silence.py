"""Probability that a recording has no speech, beside the levels of the recording."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import pyarrow as pa

from raysp.crossing import Steps, alone
from raysp.models.base.outputs import ModelOutput
from raysp.ops.labelling import Forward
from raysp.ops.measuring import Measuring


class Silence:
    """Op for levels with the probability of no speech; that of a row of several windows is their mean.

    Args:
        levels: op of the levels.
        field: name of the probability in their struct.
        find: returns the probability of each window of a pass; None if only `join` is called.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, levels: Measuring, field: str, find: Callable[[ModelOutput], Sequence[float]] | None) -> None:
        self.levels = levels
        self.field = field
        self.find = find
        self.schema = levels.schema
        [name] = levels.schema.names
        self.staged = levels.staged.append(pa.field(f"{name}_{field}", pa.float64()))

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the signals of each window, then the staged columns of windows of longer rows."""
        return alone(self.steps(forward))

    def steps(self, forward: Forward) -> Steps[list[Sequence[object]]]:
        """Yield the tensors whose values are needed on the host, then return the result of `__call__`."""
        rows, *staged = yield from self.levels.steps(forward)
        found = self.find(forward.encoded) if self.find else [0.0] * len(rows)
        whole = [None if row is None else self._with(row, one) for row, one in zip(rows, found, strict=True)]
        parts = [None if part is None else one for part, one in zip(forward.parts, found, strict=True)]
        return [whole, *staged, parts]

    def _with(self, row: object, probability: float) -> dict[str, object]:
        return {**cast("Mapping[str, object]", row), self.field: probability}

    def empty(self) -> tuple[object, ...]:
        """Return the value of a recording shorter than one frame: null."""
        return self.levels.empty()

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the signals of one row, from those of its windows in order."""
        [levels] = self.levels.join(windows)
        found = cast("list[float]", windows.column(self.staged.names[-1]).to_pylist())
        return (self._with(levels, sum(found) / len(found)),)
