"""Starts of a local Ray that start nothing."""

from tests.cluster.ray_starts import starts  # noqa: F401
