"""Changes of recordings while a model is trained, drawn for each row in each epoch."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from raysp.specs.order import flow_of
from raysp.specs.pipeline import TEXTS_OF_ROWS, Shards
from raysp.specs.steps import Decode
from raysp.specs.values import Listed, Positive, Share, spec

Decibels = Annotated[float, Field(allow_inf_nan=False)]


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return bounds, the lower one first."""
    if bounds[0] > bounds[1]:
        raise ValueError(f"found {bounds}; expected the lower bound first")
    return bounds


Range = Annotated[tuple[Decibels, Decibels], AfterValidator(_in_order)]


def _as_shards(source: object) -> object:
    """Return the shards at a url; other values unchanged."""
    return Shards(source, id=None) if isinstance(source, str) else source


Sounds = Annotated[Shards, BeforeValidator(_as_shards)]


@spec
class Speed:
    """Playing at another speed, which changes duration and pitch.

    Attributes:
        factors: one is drawn for each row; 1 leaves it as it is.
    """

    factors: Annotated[Listed[Positive], Field(min_length=1, max_length=256)] = (0.9, 1.0, 1.1)


@spec
class Gain:
    """Change of level.

    Attributes:
        decibels: lowest and highest change; one is drawn between them.
    """

    decibels: Range = (-6.0, 6.0)


@spec
class OfSounds:
    """A change by sounds of a corpus, of which the first hour is used."""

    TEXT_USE: ClassVar = TEXTS_OF_ROWS
    decoding: ClassVar = Decode()
    steps: ClassVar = (decoding,)
    flow: ClassVar = flow_of(steps, "")
    kept: ClassVar = ()

    source: Sounds


@spec
class Noise(OfSounds):
    """Background noise that is added to the recording.

    Attributes:
        source: recordings of noise: a url, or `Shards`.
        snr: lowest and highest ratio of the recording's power to the noise's, in decibels; one is drawn.
        share: share of the rows that get noise.
    """

    _: KW_ONLY
    snr: Range = (5.0, 20.0)
    share: Share = 1.0

    if TYPE_CHECKING:  # the type of the field does not say that a url is taken

        def __init__(self, source: Shards | str, *, snr: tuple[float, float] = ..., share: float = ...) -> None: ...


@spec
class Room(OfSounds):
    """Reverberation: convolution with the impulse response of a room.

    Attributes:
        source: impulse responses of rooms: a url, or `Shards`.
        share: share of the rows that are changed.
    """

    _: KW_ONLY
    share: Share = 0.5

    if TYPE_CHECKING:  # as above

        def __init__(self, source: Shards | str, *, share: float = ...) -> None: ...


Augmentation = Speed | Gain | Noise | Room
