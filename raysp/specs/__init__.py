"""Specs of pipelines: frozen, validated values that users write and that round-trip through JSON."""

from raysp.specs.values import spec

__all__ = ["spec"]
