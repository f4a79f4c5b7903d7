"""`python -m benchmarks gpu`: it runs to its end without a GPU, without Ray and with few packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu

ROOT = Path(__file__).parents[2]
REFUSED = (
    *("ray", "datasets", "pydantic", "pydantic_core", "rich", "typer", "cryptography", "silero_vad", "boto3", "peft"),
    *("jiwer", "pathspec", "transformers", "psutil", "av", "soundfile", "soxr", "jax", "flax"),
    *("cloudpickle", "pytest", "sentencepiece", "lhotse"),
)  # fmt: skip
"""Packages that raysp or its tests need, and that the command does without."""
FINDER = f"""
import sys


class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {REFUSED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Refusing())
"""


@pytest.mark.drivers
@pytest.mark.slow
def test_all_cases_run_on_the_stand_in_with_few_packages(tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "sitecustomize.py").write_text(FINDER)
    out = tmp_path / "out"
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", "--device", "stand-in", "--few", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "few"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
    cases = json.loads((out / "gpu.json").read_text())["cases"]
    assert [row["same"] for row in cases[: len(gpu.FEW)]] == [True] * len(gpu.FEW)
    assert [row["equal texts"] for row in cases if row["case"].endswith("float32")] == [1.0]
    assert cases[-1]["op RTFx, 10 s"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures for minutes where there is a GPU")
def test_without_a_gpu_nothing_is_measured_and_the_command_says_how_to_try_it(tmp_path):
    with pytest.raises(SystemExit, match="--device stand-in"):
        command.main(["gpu", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
