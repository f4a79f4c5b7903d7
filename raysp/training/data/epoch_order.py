"""Order of the rows of all epochs of a training, as the mixture and the speeds of its recipe change them."""

from dataclasses import dataclass, replace
from functools import cached_property

from raysp.training.data.augmenting import Speeds
from raysp.training.data.mixed_epochs import Mixture
from raysp.training.planning.ordering import Epoch, Index, Sizes


@dataclass(frozen=True)
class EpochOrder:
    """Order of the rows of all epochs: a pure function of its values."""

    index: Index
    """Durations of the rows."""
    sizes: Sizes
    seed: int
    mixture: Mixture | None = None
    """Parts of the corpus, of which epochs take some rows; None: each epoch has all rows."""
    speeds: Speeds | None = None
    """Speeds of the rows; None: they are not changed."""

    def index_of(self, epoch: int) -> Index:
        """Return the rows of an epoch with the durations that they have in it."""
        index = self.index if self.mixture is None else self.mixture.index(self.index, epoch)
        return index if self.speeds is None else self.speeds.index(index, epoch)

    @cached_property
    def first_index(self) -> Index:
        """The rows of the first epoch."""
        return self.index_of(0)

    @property
    def epoch_seconds(self) -> float:
        """Seconds of audio of the first epoch as it is recorded, whatever its speed."""
        return float(self.index.seconds[self.first_index.seconds > 0].sum())

    @cached_property
    def first_epoch(self) -> Epoch:
        """The first epoch."""
        return Epoch(self.first_index, self.sizes, seed=self.seed, epoch=0)

    def epoch(self, number: int) -> Epoch:
        """Return an epoch."""
        if number == 0:
            return self.first_epoch
        return Epoch(self.index_of(number), replace(self.sizes, by_length=False), seed=self.seed, epoch=number)
