"""Runs in this process: what `raysp run` does, with the work of other processes done by `engine.in_process`."""

import contextlib

import pytest

from raysp.evaluation.evaluate import evaluation
from raysp.labelling.engine import running
from raysp.labelling.engine.label_process import LabelProcess


def run_as_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `raysp.run` do in this process what a run without Ray does in a process of its own."""
    monkeypatch.setattr(running, "is_cluster", lambda _: False)
    monkeypatch.setattr(running, "requires_ray", lambda _: False)
    monkeypatch.setattr(LabelProcess, "start", lambda _: None)
    monkeypatch.setattr(running, "_in_one_process", lambda plan, faults, *_: running._in_this_process(plan, faults))


def run_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `raysp.run`, `raysp.retry` and the command line label in this process, even if it is connected to a Ray."""
    monkeypatch.setattr(running, "is_cluster", lambda _: False)
    monkeypatch.setattr(evaluation, "is_cluster", lambda _: False)
    monkeypatch.setattr(running, "requires_ray", lambda _: True)  # else a small run starts a process
    monkeypatch.setattr(running, "_ray_and_ray_data", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(running, "_on_ray", lambda plan, faults, *_: running._in_this_process(plan, faults))
