"""Limits of metrics, for scripts that must end with an error if a metric is worse."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from raysp.errors import SpecError
from raysp.evaluation.scores import HIGHER_IS_BETTER, TITLES, value_text


@dataclass(frozen=True)
class Limit:
    """A required value of a metric."""

    metric: str
    limit: float
    is_upper: bool
    """Whether higher values fail; otherwise lower ones."""
    found: float | None = None
    is_met: bool = False

    def compared(self, value: float | None) -> "Limit":
        """Return the limit compared with a metric, not with its interval; an undefined metric does not meet it."""
        is_met = value is not None and (value <= self.limit if self.is_upper else value >= self.limit)
        return replace(self, found=value, is_met=is_met)

    @property
    def words(self) -> str:
        """The limit, the metric, and whether it is met, as text."""
        value = "undefined" if self.found is None else value_text(self.metric, self.found)
        bound = "at most" if self.is_upper else "at least"
        met = "" if self.is_met else ": not met"
        return f"{TITLES[self.metric]} is {value}, expected {bound} {self.limit:.2%}{met}"


def limits_of(
    fail_above: Mapping[str, float] | None, fail_below: Mapping[str, float] | None, metrics: Collection[str]
) -> tuple[Limit, ...]:
    """Return the upper and the lower limits of some metrics.

    Raises:
        SpecError: a metric is unknown or better the other way, or its limit is not a share.
    """
    return (*_limits(fail_above, metrics, is_upper=True), *_limits(fail_below, metrics, is_upper=False))


def _limits(limits: Mapping[str, float] | None, metrics: Collection[str], *, is_upper: bool) -> Iterator[Limit]:
    option, other = ("fail_above", "fail_below") if is_upper else ("fail_below", "fail_above")
    for metric, limit in (limits or {}).items():
        if metric not in metrics:
            raise SpecError(f"{option}: found {metric!r}, expected one of {', '.join(metrics)}")
        if HIGHER_IS_BETTER[metric] == is_upper:
            better = "higher" if HIGHER_IS_BETTER[metric] else "lower"
            raise SpecError(f"{option}: {better} values of {metric} are better; use {other}")
        if not 0 <= limit <= 1:
            raise SpecError(f"{option}: found {metric}={limit:g}, expected a share from 0 to 1, such as 0.2 for 20 %")
        yield Limit(metric, limit, is_upper)
