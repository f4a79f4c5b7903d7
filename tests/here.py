"""Runs in this process, also beside a connected Ray, or as if packages were not installed."""

import importlib.util

import pytest


def run_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `raysp.run`, `raysp.retry` and the command line label in this process, even if it is connected to a Ray."""
    monkeypatch.setenv("RAYSP_ENGINE", "here")


def without_packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make packages look as if they were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *of: None if name in names else find(name, *of))
