"""What a user writes: frozen, validated values that round-trip through JSON."""

from raysp.specs.values import spec

__all__ = ["spec"]
