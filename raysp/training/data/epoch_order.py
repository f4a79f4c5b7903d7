"""Order of the rows of all epochs of a training, as the mixture and the speeds of its recipe change them."""

from dataclasses import dataclass, replace
from functools import cached_property

from raysp.training.data.augmenting import Speeds
from raysp.training.data.mixed_epochs import Mixture
from raysp.training.planning.ordering import Durations, Epoch, Sizes


@dataclass(frozen=True)
class EpochOrder:
    """Order of the rows of all epochs: a pure function of its values."""

    durations: Durations
    """Durations of the rows."""
    sizes: Sizes
    seed: int
    mixture: Mixture | None = None
    """Parts of the corpus, of which epochs take some rows; None: each epoch has all rows."""
    speeds: Speeds | None = None
    """Speeds of the rows; None: they are not changed."""

    @property
    def epoch_seconds(self) -> float:
        """Seconds of audio of the first epoch as it is recorded, whatever its speed."""
        return float(self.durations.seconds[self.first_epoch.durations.seconds > 0].sum())

    @cached_property
    def first_epoch(self) -> Epoch:
        """The first epoch."""
        return self._made(0, self.sizes)

    def epoch(self, number: int) -> Epoch:
        """Return an epoch, whose rows have the durations that they have in it."""
        return self._made(number, replace(self.sizes, by_length=False)) if number else self.first_epoch

    def _made(self, number: int, sizes: Sizes) -> Epoch:
        durations = self.durations if self.mixture is None else self.mixture.of_epoch(self.durations, number)
        durations = durations if self.speeds is None else self.speeds.durations(durations, number)
        return Epoch(durations, sizes, seed=self.seed, epoch=number)
