"""Share of equal rows of two labellings."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysp.evaluation.intervals import Floats, ratios

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EqualRows:
    """The share of equal rows."""

    equal_N: Bools

    names = ("agreement",)

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the share for each weighting; NaN without rows."""
        return ratios(weights_DN @ self.equal_N, weights_DN.sum(1))[:, None]

    def counts(self) -> dict[str, int]:
        """Return the number of equal rows."""
        return {"equal": int(self.equal_N.sum())}
