"""The installed JAX and Flax."""

from importlib import metadata, util

from raysp.errors import CheckpointError

COMMAND = "pip install 'raysp[jax]'"
PACKAGES = ("jax", "flax")


def versions() -> str:
    """Return names and versions of JAX and Flax; empty unless both are installed."""
    if any(util.find_spec(name) is None for name in PACKAGES):
        return ""
    return ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)


def require() -> None:
    """Raise unless JAX and Flax are installed.

    Raises:
        CheckpointError: with the command that installs them.
    """
    if missing := [name for name in PACKAGES if util.find_spec(name) is None]:
        raise CheckpointError(f"backend='jax': the package {missing[0]} is not installed; {COMMAND}")
