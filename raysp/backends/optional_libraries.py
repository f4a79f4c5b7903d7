"""Libraries that run checkpoints where they are installed: their versions, and the commands that install them."""

from dataclasses import dataclass
from importlib import metadata, util

from raysp.errors import CheckpointError


@dataclass(frozen=True)
class Library:
    """Packages of a backend, which an extra of the same name installs."""

    backend: str
    packages: tuple[str, ...]

    def versions(self) -> str:
        """Return names and versions of the packages; empty unless all are installed."""
        return "" if self._missing() else ", ".join(f"{name} {metadata.version(name)}" for name in self.packages)

    def require(self) -> None:
        """Raise unless all packages are installed.

        Raises:
            CheckpointError: with the command that installs them.
        """
        if missing := self._missing():
            raise CheckpointError(
                f"backend={self.backend!r}: the package {missing[0]} is not installed; "
                f"pip install 'raysp[{self.backend}]'"
            )

    def _missing(self) -> list[str]:
        return [name for name in self.packages if util.find_spec(name) is None]


JAX = Library("jax", ("jax", "flax"))
CTRANSLATE2 = Library("ctranslate2", ("ctranslate2",))
