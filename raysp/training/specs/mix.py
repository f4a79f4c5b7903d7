"""Mixtures of corpora: the share of each in a training, by weights or by a temperature."""

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated

from pydantic import Field

from raysp.specs.values import Listed, Positive, spec


@spec
class Mix:
    """Shares of the parts of a corpus in a training, of its seconds of audio.

    An epoch has all rows of the part that is largest for its share, and as many of each other part as its share needs:
    each row of a part comes once before any of them comes again.

    Attributes:
        parts: patterns of the names of shards (paths relative to the common folder of all urls), each with its weight,
            such as `{"en/*": 2, "tr/*": 1}`; or a list of patterns, with `temperature`. A pattern that matches no shard
            is refused, with names of shards in the message.
        temperature: weights are the seconds of the parts to the power of `1 / temperature`: 1 keeps their shares, and
            with 100 they are about equal.
    """

    parts: Mapping[str, Positive] | Listed[str]
    _: KW_ONLY
    temperature: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None

    def __post_init__(self) -> None:
        """Check that there are several parts, and weights or a temperature."""
        if len(self.parts) < 2 or len({*self.parts}) < len(self.parts):
            raise ValueError(f"found parts {[*self.parts]}; expected at least two patterns, each once")
        if isinstance(self.parts, Mapping) == (self.temperature is not None):
            actual = "weights and temperature" if self.temperature is not None else "neither weights nor temperature"
            raise ValueError(f"found {actual}; give weights, as in {{'en/*': 2, 'tr/*': 1}}, or a temperature")

    def weights(self, seconds: Mapping[str, float]) -> Mapping[str, float]:
        """Return the weight of each part.

        Args:
            seconds: seconds of audio of the parts, in their order.
        """
        if isinstance(self.parts, Mapping):
            return self.parts
        assert self.temperature is not None
        return {part: seconds[part] ** (1 / self.temperature) for part in self.parts}
