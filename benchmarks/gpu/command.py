"""All questions about a GPU, in at most ten minutes: are labels right, do they depend on the batch, and how fast.

    python -m benchmarks gpu                            on a machine with a GPU
    python -m benchmarks gpu --device stand-in          the same without one, with small models

Each part runs in a process of its own with a time limit, and writes OUT/<part>.json after each of its cases. If they do
not fit into --minutes, parts are left out, the last of this list first:

    {parts}

At the end stands a table of the goals, also in OUT/goals.md; OUT/summary.json has the machine, and how each part ended.
OUT/certificate.json says whether labels depend on the batch on this card; in half precision runs go by it in packs. It
covers models of published sizes, and each --checkpoint FOLDER (with --parts independence it takes two minutes).
Needed are torch, numpy, safetensors, tokenizers and pyarrow.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.packages import NEEDED, OPTIONAL, absent
from benchmarks.gpu.part import Setting
from benchmarks.tables import show, write_json

PARTS = ("equality", "independence", "kernels", "bare", "actor", "decoders", "training", "decoding")
"""In the order of their importance."""
DEVICES = {"cuda": "cuda", "cpu": "cpu", "stand-in": "standin"}
LEAST_SECONDS = 5.0
"""A part is left out if less than this is left."""
NO_GPU = "no CUDA device found, nothing was measured: run this on a machine with one, or try it with --device stand-in"


def chosen(names: Sequence[str], limits: Mapping[str, float], seconds: float) -> tuple[list[str], list[str]]:
    """Return the parts whose limits fit into the time, and those that are left out, the least important first."""
    kept, dropped = list(names), []
    while kept and sum(limits[name] for name in kept) > seconds:
        dropped.append(kept.pop())
    return kept, dropped


def run_part(name: str, setting: Setting, seconds: float) -> dict[str, object]:
    """Run a part in a process of its own, and return how it ended."""
    print(f"\n{name}, at most {seconds:.0f} s:", flush=True)
    started = time.monotonic()
    process = _processes().Process(target=_run, args=(name, setting, seconds))
    process.start()
    process.join(seconds)
    ended = "done" if process.exitcode == 0 else f"exit code {process.exitcode}"
    if process.is_alive():
        ended = f"not done in {seconds:.0f} s"
        process.kill()
        process.join()
    if ended != "done":
        print(f"  {name}: {ended}", flush=True)
    return {"part": name, "ended": ended, "seconds": round(time.monotonic() - started, 1)}


def _processes() -> multiprocessing.context.BaseContext:
    """Return processes that are forked from one that has imported torch, but has not opened the device."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.gpu.process"])
    return context


def _run(name: str, setting: Setting, seconds: float) -> None:
    import_module("benchmarks.gpu.process").run(name, setting, seconds)


def measure(setting: Setting, names: Sequence[str], seconds: float) -> list[dict[str, object]]:
    """Run parts within a time, and write the summary after each."""
    from benchmarks.gpu import goals, packages

    ends = time.monotonic() + seconds
    packages.make_importable()
    from benchmarks.gpu.devices import describe

    machine = {**describe(setting.device), "absent packages": absent(tuple(OPTIONAL))}
    print(", ".join(f"{key} {value}" for key, value in machine.items() if key != "absent packages"))
    for name in absent(tuple(OPTIONAL)):
        print(f"not installed: {name} ({OPTIONAL[name]})")
    limits = {name: import_module(f"benchmarks.gpu.{name}").SECONDS for name in names}
    dropped = chosen(names, limits, seconds)[1] if setting.is_gpu else []
    done: list[dict[str, object]] = []
    for name in names:
        left = ends - time.monotonic()
        if name in dropped or left < LEAST_SECONDS:
            print(f"\n{name}: left out, for it does not fit into the time", flush=True)
            done.append({"part": name, "ended": "left out", "seconds": 0})
            continue
        done.append(run_part(name, setting, min(limits[name] if setting.is_gpu else left, left)))
        write_json(setting.out / "summary.json", {"machine": machine, "parts": done})
    table = goals.table(setting)
    write_json(setting.out / "summary.json", {"machine": machine, "parts": done, "goals": table})
    show(f"Parts on {machine.get('card', setting.device)}", done)
    show("Goals" if setting.is_gpu else "Goals: of a GPU, so none can be met here", table)
    goals.write_markdown(setting.out / "goals.md", machine, table)
    return done


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description=(__doc__ or "").format(parts=", ".join(PARTS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", choices=DEVICES, help="what to measure on (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="time limit of all parts together (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of the results (%(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to run: %(default)s")
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a checkpoint whose packs the certificate is to cover; repeat it for several",
    )
    parser.add_argument("--few", action="store_true", help="the fewest cases of each part, to test this command")
    args = parser.parse_args(argv)
    if missing := absent(NEEDED):
        raise SystemExit(f"python -m benchmarks gpu needs {', '.join(missing)}: not installed for {sys.executable}")
    names = args.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts {','.join(unknown)}: the parts are {', '.join(PARTS)}")
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(NO_GPU)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    done = measure(Setting(DEVICES[args.device], args.out, args.few, tuple(args.checkpoint)), names, 60 * args.minutes)
    print(f"\nThe results are in {args.out}")
    if (args.out / "certificate.json").exists():
        print(f"Runs on this card find {args.out}/certificate.json once it is copied into ~/.cache/raysp/certificates")
    if any(part["ended"] not in ("done", "left out") for part in done):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
