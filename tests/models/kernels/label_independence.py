"""Labels of rows in several orders, budgets and numbers of threads; a process of its own has another instruction set.

    ONEDNN_MAX_CPU_ISA=AVX2 python -m tests.models.kernels.label_independence ParakeetForTDT bfloat16 3 20

prints the number of different labellings, of which one is expected, and the instructions that torch takes.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

import raysp
from raysp.audio import decode
from raysp.ops.labelling import Labelling
from tests.device.class_cases import CASES, make_checkpoint
from tests.models.kernels.written_cases import WRITERS, make_writer
from tests.ops.test_labelling import block_of, labels
from tests.s3_servers import shared_folder

TRAINED = ("unispeech-digits-ctc", "w2vbert-digits-ctc")
ORDERS = 10
BUDGETS = (2, 15, 60, 600)
THREADS = (1, 2)
FEW_ROWS = 30
LIMITS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "AVX512_CORE_BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
}
"""Environments in which libraries take no newer instructions."""


def digits() -> list[np.ndarray]:
    """Return recordings of one to six digits."""
    file = min((shared_folder() / "data" / "digits").glob("*.parquet"))
    cells = pq.read_table(file).column("audio").to_pylist()
    waves, generator = [decode(cell["bytes"], sample_rate=16_000) for cell in cells], np.random.default_rng(5)
    picked = (generator.integers(len(waves), size=1 + number % 6) for number in range(500))
    return [np.concatenate([waves[place] for place in places]) for places in picked]


def labellings(
    name: str,
    dtype: str,
    folder: Path,
    waves: Sequence[np.ndarray],
    *,
    orders: int = ORDERS,
    budgets: Sequence[float] = BUDGETS,
    threads: Sequence[int] = THREADS,
) -> set[str]:
    """Return the different labellings of a trained checkpoint, or of a case that is written to a folder."""
    checkpoint, outputs = shared_folder() / "checkpoints" / name, [raysp.Transcript(words=True)]
    if name not in TRAINED:
        checkpoint, outputs = folder, {**CASES, **WRITERS}[name]
        (make_writer if name in WRITERS else make_checkpoint)(name, folder)
    found: set[str] = set()
    for number, budget in itertools.product(threads, budgets):
        one = Labelling(
            str(checkpoint),
            lambda loaded: [output.op(loaded.summary, loaded) for output in outputs],
            batch_seconds=budget,
            dtype=dtype,
            threads=number,
        )
        assert one.is_alone
        for seed in range(orders):
            order = np.random.default_rng(seed).permutation(len(waves)).tolist()
            table = labels(one, block_of([waves[row] for row in order], order))
            assert {"ok"} <= {label["status"] for label in table.values()} <= {"ok", "skipped"}  # some are too short
            found.add(json.dumps([table[row] for row in range(len(waves))], default=str))
    return found


def count_with(instructions: str, name: str, dtype: str, orders: int, rows: int) -> int:
    """Return the number of different labellings in a process that takes no newer instructions."""
    command = [sys.executable, "-m", "tests.models.kernels.label_independence", name, dtype, str(orders), str(rows)]
    limits = {**os.environ, **LIMITS[instructions]}
    done = subprocess.run(command, env=limits, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number, capability = done.stdout.split()
    assert capability == ("AVX2" if instructions == "AVX2" else "AVX512")
    return int(number)


def main(name: str, dtype: str, orders: str, rows: str) -> None:
    """Print the number of different labellings."""
    with tempfile.TemporaryDirectory() as folder:
        few = {} if int(orders) > 3 else {"budgets": BUDGETS[:2]}
        found = labellings(name, dtype, Path(folder) / "checkpoint", digits()[: int(rows)], orders=int(orders), **few)
    print(len(found), torch.backends.cpu.get_cpu_capability())  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
