"""Changes of recordings while a model is trained, drawn for each row in each epoch."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from raysp.specs.pipeline import Shards
from raysp.specs.steps import Decode, Step
from raysp.specs.values import Listed, spec
from raysp.training.specs.objectives import Positive, Share

Decibels = Annotated[float, Field(allow_inf_nan=False)]


def _as_shards(given: object) -> object:
    """Return the shards at a url; other values unchanged."""
    return Shards(given, id=None) if isinstance(given, str) else given


Sounds = Annotated[Shards, BeforeValidator(_as_shards)]


@spec
class Speed:
    """Playing at another speed, which changes duration and pitch.

    Attributes:
        factors: one is drawn for each row; 1 leaves it as it is.
    """

    factors: Listed[Positive] = (0.9, 1.0, 1.1)

    def __post_init__(self) -> None:
        """Check the number of factors."""
        if not 1 <= len(self.factors) <= 256:
            raise ValueError(f"found {len(self.factors)} factors; expected 1 to 256")


@spec
class Gain:
    """Change of level.

    Attributes:
        decibels: lowest and highest change; one is drawn between them.
    """

    decibels: tuple[Decibels, Decibels] = (-6.0, 6.0)

    def __post_init__(self) -> None:
        """Check the order of the bounds."""
        _check_order("decibels", self.decibels)


@spec
class OfSounds:
    """A change by sounds of a corpus, of which the first hour is used."""

    source: Sounds

    @property
    def steps(self) -> tuple[Step, ...]:
        """The step that decodes."""
        return (Decode(),)

    @property
    def source_steps(self) -> tuple[Step, ...]:
        """Steps that read columns of the source: those above."""
        return self.steps

    @property
    def decoding(self) -> Decode:
        """The step that decodes."""
        return Decode()

    def text_use(self, column: str) -> tuple[str, str]:
        """Return the use of the column of texts, and an empty remedy."""
        return "holds the texts of rows", ""

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns that are used as they are: always empty."""
        return ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that the steps read: always empty."""
        return ()


@spec
class Noise(OfSounds):
    """Background noise that is added to the recording.

    Attributes:
        source: recordings of noise: a url, or `Shards`.
        snr: lowest and highest ratio of the recording's power to that of the noise, in decibels; one is drawn.
        share: share of the rows that get noise.
    """

    _: KW_ONLY
    snr: tuple[Decibels, Decibels] = (5.0, 20.0)
    share: Share = 1.0

    if TYPE_CHECKING:  # the type of the field does not say that a url is taken

        def __init__(self, source: Shards | str, *, snr: tuple[float, float] = ..., share: float = ...) -> None: ...

    def __post_init__(self) -> None:
        """Check the order of the bounds."""
        _check_order("snr", self.snr)


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


def _check_order(name: str, bounds: tuple[float, float]) -> None:
    if bounds[0] > bounds[1]:
        raise ValueError(f"found {name}={bounds}; expected the lower bound first")
