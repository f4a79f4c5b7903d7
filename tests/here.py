"""Runs in this process, also beside a connected Ray; packages that are installed, or look as if they were not."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest


def run_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `raysp.run`, `raysp.retry` and the command line label in this process, even if it is connected to a Ray."""
    monkeypatch.setenv("RAYSP_ENGINE", "here")


def without_packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make packages look as if they were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *of: None if name in names else find(name, *of))


def install_package(folder: Path, name: str, version: str, models: Mapping[str, str], code: Mapping[str, str]) -> Path:
    """Write a package into a folder as an installer does, with models by entry points and the code of its modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{model_type} = {value}" for model_type, value in models.items()]
    (info / "entry_points.txt").write_text("\n".join(["[raysp.models]", *lines, ""]))
    for module, text in code.items():
        (folder / f"{module}.py").write_text(text)
    return folder
