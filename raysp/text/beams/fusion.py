"""Weights of prefixes besides those of the frames: what a language model or hot words add to a search.

Shapes: B batch, W beams, K tokens of a frame, F fields of a state.
"""

from typing import NamedTuple, Protocol

from torch import Tensor

LARGEST_LOG = 230.0
"""Bound of the logarithm of a factor: its square is still a number of float64."""


class Extensions(NamedTuple):
    """Weights of the extensions of prefixes by the tokens of a frame, as factors of their probabilities."""

    factors: Tensor | None
    """(B, W, K) float64 factors that stay; None: all are 1."""
    lifts: Tensor | None
    """(B, W, K) float64 factors of the rank in this frame only; None: all are 1."""
    carried: Tensor | None
    """Values for `advance`."""


class Fusion(Protocol):
    """Weights that depend on the tokens of a prefix alone, by a state of int64 fields for each prefix."""

    def start(self) -> list[int]:
        """Return the fields of the empty prefix."""
        ...

    def extend(self, states: Tensor, tokens: Tensor, *, has_delimiter: bool) -> Extensions:
        """Return the weights of all extensions; `has_delimiter`: whether a token of the frame separates words."""
        ...

    def lift(self, states: Tensor) -> Tensor | None:
        """Return the factors (B, W) of the rank of the prefixes themselves; None: all are 1."""
        ...

    def advance(self, states: Tensor, chosen: "Chosen", carried: Tensor | None) -> Tensor:
        """Return the states (B, W, F) of the chosen prefixes.

        Args:
            states: states of the prefixes that the chosen ones extend or equal.
            chosen: the chosen prefixes.
            carried: the value that `extend` returned.
        """
        ...

    def end(self, states: Tensor) -> Tensor:
        """Return the factors (B, W) of texts that end with these prefixes."""
        ...


class Chosen(NamedTuple):
    """The prefixes that a search keeps after a frame, all (B, W)."""

    sources: Tensor
    """Beams that they extend or equal."""
    places: Tensor
    """Place among the tokens of the frame of the token that extends them."""
    tokens: Tensor
    """This token."""
    is_new: Tensor
    """Whether they are extended."""
