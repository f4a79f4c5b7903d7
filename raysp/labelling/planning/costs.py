"""Speed, time and money of a run or a training before it starts."""

from dataclasses import dataclass

from raysp.errors import SpecError


@dataclass(frozen=True)
class Amount:
    """An amount with the half width of its 95 % interval."""

    value: float
    margin: float
    """0: exact."""

    def times(self, factor: float) -> "Amount":
        """Return the amount multiplied by a factor."""
        return Amount(self.value * factor, self.margin * factor)


@dataclass(frozen=True)
class Speed:
    """Speed of one actor, or of one worker of a training."""

    rtfx: float
    """Seconds of audio per second; where each channel is labelled, those of all channels."""
    origin: str
    """Where the number is from, for messages."""
    decode_rtfx: float | None = None
    """Seconds of audio that one process reads and decodes per second; None: not measured."""
    memory_bytes: int | None = None
    """Peak resident set of the measuring process, or peak memory of its GPU; None: not measured."""


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
    """In the currency of the price; None: no price was given."""

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


def check_speed(
    *, rtfx: float | None = None, like: str | None = None, calibrate: bool = False, price: float | None = None
) -> None:
    """Raise SpecError if arguments that give a speed or a price are invalid for any data."""
    for name, value in (("rtfx", rtfx), ("price", price)):
        if value is not None and not 0 < value < float("inf"):
            raise SpecError(f"{name}: found {value:g}, expected a number above 0")
    given = [name for name, value in (("rtfx", rtfx), ("like", like), ("calibrate", calibrate or None)) if value]
    if len(given) > 1:
        raise SpecError(f"found {' and '.join(given)}, expected one of them: each of them gives the speed")
