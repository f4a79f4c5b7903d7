"""One part in a process of its own: each case is printed and written as it ends, so that no later one can lose it."""

import os
import time
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import cast

from benchmarks.gpu import packages

packages.make_importable()

import torch  # noqa: E402 - after what it is imported with; a fork server imports it once for all parts

import raysp.models.loading  # noqa: E402
import raysp.ops.labelling  # noqa: E402, F401
from benchmarks.gpu.devices import free_memory, open_device  # noqa: E402
from benchmarks.gpu.part import Case, Figures, Part, Setting, line  # noqa: E402
from benchmarks.tables import write_json  # noqa: E402
from raysp.models.decoder import cohorts  # noqa: E402

ROOT = f"{Path(__file__).parents[2]}/"
EARLIER = 0.9
"""Share of the time limit after which no case is begun."""


def run(name: str, setting: Setting, seconds: float) -> None:
    """Run the cases of a part, and write its file after each."""
    ends = time.monotonic() + EARLIER * seconds
    open_device(setting.device)
    if not setting.is_gpu:
        torch.set_num_threads(1)  # small models, beside other processes
        cohorts.MOST_ROWS = 16  # most places of a card's would be empty
    part = cast("Part", import_module(f"benchmarks.gpu.{name}"))
    rows: list[Figures] = []
    file = setting.out / f"{name}.json"
    write_json(file, rows)
    for case in part.cases(setting):
        rows.append(_row(case, ends, setting.device))
        write_json(file, rows)
        print(line(rows[-1]), flush=True)
        if _is_lost(str(rows[-1].get("error", ""))):
            print("  the device cannot be used any more by this process: the other cases of this part are left out")
            os._exit(1)
    os._exit(0)  # past the teardown of libraries, which may crash once all is written


def _row(case: Case, ends: float, device: str) -> Figures:
    if without := packages.absent(case.needs):
        return {"case": case.name, "dropped": f"needs {' and '.join(without)}"}
    if time.monotonic() > ends:
        return {"case": case.name, "dropped": "out of time"}
    started = time.monotonic()
    try:
        found = dict(case.run())
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        found = {"error": f"{type(error).__name__}: {words}", "trace": _trace(error)}
    free_memory(device)
    return {"case": case.name, **found, "took": round(time.monotonic() - started, 2)}


def _trace(error: Exception) -> list[str]:
    """Return the places of this checkout that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{one.filename.removeprefix(ROOT)}:{one.lineno} {one.line}" for one in frames if _is_ours(one.filename)]


def _is_ours(file: str) -> bool:
    return file.startswith(ROOT) and "site-packages" not in file


def _is_lost(error: str) -> bool:
    """Return whether an error makes every further call of this process fail."""
    return ("CUDA error" in error or "AcceleratorError" in error) and "out of memory" not in error


def read(out: Path, name: str) -> list[dict[str, object]]:
    """Return what an earlier part found; nothing if it did not run."""
    import json

    file = out / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else []


def found(rows: Iterable[dict[str, object]], case: str) -> dict[str, object]:
    """Return the figures of a case, or none."""
    return next((row for row in rows if row["case"] == case), {})
