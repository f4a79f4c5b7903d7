"""`python -m benchmarks gpu` as a command: it runs to its end without a GPU, without Ray and with few packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import command

ROOT = Path(__file__).parents[2]
REFUSED = (
    *("ray", "datasets", "pydantic", "pydantic_core", "soundfile", "soxr", "rich", "typer"),
    *("jiwer", "tensorboardX", "transformers", "psutil", "av", "silero_vad", "boto3"),
    *("cloudpickle", "peft", "jax", "flax", "pytest", "sentencepiece", "lhotse"),
)  # fmt: skip
"""Packages that raysp or its tests need, and that the command does without."""
FINDER = f"""
import sys
import threading


class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {REFUSED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Refusing())
"""


@pytest.mark.drivers
@pytest.mark.slow
def test_all_parts_run_to_their_end_on_the_stand_in_with_few_packages(tmp_path):
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
    assert "not installed: soundfile" in ran.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert [(part["part"], part["ended"]) for part in summary["parts"]] == [(name, "done") for name in command.PARTS]
    for name in command.PARTS:
        rows = json.loads((out / f"{name}.json").read_text())
        assert rows, name
        assert not [row for row in rows if "error" in row], rows
    assert {row["same"] for row in json.loads((out / "equality.json").read_text())} == {True}
    certificate = json.loads((out / "certificate.json").read_text())
    assert [(one["architecture"], one["dtype"], one["unequal"]) for one in certificate["packs"]] == [
        ("Wav2Vec2ForCTC", "bfloat16", 0)
    ] * 2
    assert (out / "goals.md").read_text().count("\n|") == len(summary["goals"]) + 2
