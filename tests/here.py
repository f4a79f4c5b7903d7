"""Runs in this process, also beside a connected Ray."""

import pytest


def run_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `raysp.run`, `raysp.retry` and the command line label in this process, even if it is connected to a Ray."""
    monkeypatch.setenv("RAYSP_ENGINE", "here")
