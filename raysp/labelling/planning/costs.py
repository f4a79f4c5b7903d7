"""Speed, time and money of a run or a training before it starts."""

from dataclasses import dataclass

from raysp.words import duration
from raysp.work import EstimateOptions

LEAST_AMOUNT = 0.01


@dataclass(frozen=True)
class Amount:
    """An amount with the half width of its 95 % interval."""

    value: float
    margin: float
    """0: exact."""

    def times(self, factor: float) -> "Amount":
        """Return the amount multiplied by a factor."""
        return Amount(self.value * factor, self.margin * factor)

    @property
    def as_time(self) -> str:
        """The amount of seconds, such as "3 h 20 min +- 5 min"."""
        return f"{duration(self.value)}{f' +- {duration(self.margin)}' if self.margin else ''}"

    def __str__(self) -> str:
        """Return an amount of hours or money with three digits: "12,345 +- 600", "0.42", "below 0.01"."""
        if 0 < self.value < LEAST_AMOUNT:
            return f"below {LEAST_AMOUNT}"
        return f"{three_digits(self.value)}{f' +- {three_digits(self.margin)}' if self.margin else ''}"


@dataclass(frozen=True)
class Speed:
    """Speed of one actor, or of one worker of a training."""

    rtfx: float
    """Seconds of audio per second, summed over channels if each channel is labelled."""
    origin: str
    """Where the number is from, for messages."""
    memory_bytes: int | None = None
    """Peak resident set of the measuring process, or peak memory of its GPU, of labelling; None: not measured."""


@dataclass(frozen=True)
class Cost:
    """Time and money without the start of nodes and the loading of models, for actors that never wait for rows."""

    actors: int
    """Actors of the model, or workers of a training."""
    wall_seconds: Amount
    device_hours: Amount
    """Hours of GPUs, or of CPUs that run the model if there are none."""
    device: str
    """"GPU" or "CPU"."""
    money: Amount | None
    """Cost in the currency of the price; None: no price was given."""

    def facts(self, on: str) -> dict[str, str]:
        """Return the time `on` some actors, and the money if there is a price, as facts to print."""
        time = f"{self.wall_seconds.as_time}{on}, {self.device_hours} {self.device}-hours"
        return {"time": time, **({} if self.money is None else {"money": str(self.money)})}

    @classmethod
    def of(
        cls,
        audio: Amount,
        speed: Speed,
        *,
        actors: int,
        devices: float,
        device: str,
        price: float | None,
        imbalance: float = 1.0,
    ) -> "Cost":
        """Return the cost of audio at a speed.

        Args:
            audio: seconds of audio.
            speed: speed of one actor.
            actors: number of actors.
            devices: GPUs or CPUs of each.
            device: "GPU" or "CPU".
            price: price of an hour of a device; None: unknown.
            imbalance: time of the slowest actor over the mean of all, which wait for it.
        """
        wall = audio.times(imbalance / speed.rtfx / actors)
        hours = wall.times(actors * devices / 3600)
        return cls(actors, wall, hours, device, None if price is None else hours.times(price))


def unpriced(options: EstimateOptions, speed: Speed | None) -> list[str]:
    """Return a sentence if a price was given, and no cost is shown because the speed is unknown."""
    if options.price is None or speed is not None:
        return []
    return ["--price without effect: a cost needs a speed; give --rtfx N, --like OUT, or --calibrate"]


def three_digits(value: float) -> str:
    """Return a number with three digits, such as "12,345" or "0.42"."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
