"""A run leaves the process that called it unchanged."""

import copy
import faulthandler
import logging
import os
import signal
import sys
import threading
import warnings

import pytest

import raysp

RAYS_LOGGERS = ("ray", "ray._private.worker", "ray.data", "ray.data._internal.execution", "ray.train", "ray.serve")
RULES = "def every_row(table):\n    return [True] * table.num_rows\n"


class Interrupted(BaseException):
    """Exception of a caller's own signal handler."""


def snapshot() -> dict[str, object]:
    """Copy the visible state of a process, including Ray's settings."""
    import ray.util
    from ray import cloudpickle
    from ray.data import DataContext

    loggers = [logging.getLogger(name) for name in (None, "raysp", "torch", "pyarrow", "py.warnings", *RAYS_LOGGERS)]
    context = DataContext.get_current()
    return {
        "data context": plain(context),
        "the object of it": id(context),
        "environment": dict(os.environ),
        "loggers": {
            one.name: (one.level, one.handlers[:], one.filters[:], one.propagate, one.disabled) for one in loggers
        },
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": warnings.filters[:],
        "pickled by value": set(cloudpickle.list_registry_pickle_by_value()),
        "hooks": (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr, sys.path[:]),
        "fault handler": faulthandler.is_enabled(),
        "address of this machine": ray.util.get_node_ip_address,
    }


def differing(before: dict[str, object]) -> list[object]:
    """List what differs by now, with both values."""
    found: list[object] = []
    for key, now in snapshot().items():
        then = before[key]
        if isinstance(now, dict):
            found += [(key, name, then.get(name), value) for name, value in now.items() if then.get(name) != value]
            found += [(key, name, then[name], "gone") for name in then.keys() - now.keys()]
        elif now != then:
            found.append((key, then, now))
    return found


def plain(value: object) -> object:
    """Copy a value's fields, and those of the values in them."""
    if hasattr(value, "__dict__") and not callable(value):
        return {name: plain(part) for name, part in vars(value).items()}
    return copy.copy(value) if isinstance(value, (dict, list, set)) else value


def num_blocks(dataset) -> int:
    return dataset.materialize().num_blocks()


@pytest.mark.cluster
def test_a_run_leaves_its_callers_process_and_datasets_as_they_were_even_if_it_is_interrupted(
    local_ray, make_pipeline, small_shards, tmp_path, monkeypatch
):
    import ray.data

    def two_blocks():
        return ray.data.range(100, override_num_blocks=2).map_batches(lambda rows: rows)

    def stop(_):
        raise Interrupted("stopped by its caller")

    (tmp_path / "rules_of_a_caller.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    by_value = {"steps": [raysp.Keep(where="rules_of_a_caller:every_row")]}  # its function travels by value
    pipeline = make_pipeline(small_shards / "part-0.parquet", **by_value)
    raysp.plan(pipeline)  # what torch and others change when they are first imported is not the run's doing
    made_before, before, meanwhile = two_blocks(), snapshot(), []
    with pytest.raises(Interrupted, match="stopped by its caller") as kept:  # it holds every frame that it came through
        raysp.run(make_pipeline(small_shards / "part-1.parquet", sink="interrupted", **by_value), on_progress=stop)
    assert differing(before) == []
    result = raysp.run(
        pipeline, on_progress=lambda _: meanwhile.append(num_blocks(two_blocks())) if not meanwhile else None
    )
    assert differing(before) == []
    assert (result.rows, meanwhile, kept.type) == (20, [2], Interrupted)
    assert num_blocks(made_before) == num_blocks(two_blocks()) == 2
