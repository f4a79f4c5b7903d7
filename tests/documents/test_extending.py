"""The extensions of docs/extend.md, applied to a copy of raysp as the page shows them, and used there."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import raysp
from tests import kit
from tests.backends.recognisers import tiny
from tests.commands import run_together
from tests.corpora import CHECKPOINT, a_pipeline, digits_table, wav, write_shard

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "extend.md").read_text()
FILE = re.compile(r"^`([\w/]+\.\w+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = (
    "An architecture",
    "A recogniser of transformers",
    "A verb of the command line",
    "An output of raysp",
    "A kind of source",
    "A kind of work",
)
"""Sections that extend raysp itself."""


class Extension(NamedTuple):
    """Files and diffs of a section."""

    files: dict[str, str]
    diffs: list[str]

    @classmethod
    def of(cls, section: str) -> "Extension":
        [text] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        return cls(dict(FILE.findall(text)), DIFF.findall(text))

    def apply(self, folder: Path) -> None:
        for name, text in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            assert not (folder / name).exists(), name
            (folder / name).write_text(text)
        for diff in self.diffs:
            command = ["git", "apply", "-"]
            done = subprocess.run(command, input=diff, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


EXTENSIONS = {section: Extension.of(section) for section in SECTIONS}
OWN_OUTPUT = Extension.of("Your own output").files


def copied(folder: Path) -> Path:
    shutil.copytree(REPOSITORY / "raysp", folder / "raysp")  # with its __pycache__, so that it is not compiled again
    return folder


def ops_file() -> str:
    """Return the file of the op that the page describes as the class of the section before."""
    source = OWN_OUTPUT["peak.py"]
    [op] = (node for node in ast.parse(source).body if getattr(node, "name", "") == "PeakOp")
    lines = (
        '"""Largest magnitudes over frames."""',
        "from collections.abc import Mapping, Sequence",
        "import numpy as np",
    )
    imports = "import pyarrow as pa", "import torch", "from raysp.ops.forward import Forward, Rows"
    return "\n".join([*lines, *imports, ast.get_source_segment(source, op), ""])


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of raysp with all extensions of the page."""
    folder = copied(tmp_path_factory.mktemp("extended"))
    for extension in EXTENSIONS.values():
        extension.apply(folder)
    (folder / "raysp" / "ops" / "peaks.py").write_text(ops_file())
    (folder / "raysp" / "counts" / "__init__.py").touch()
    return folder


@pytest.fixture
def run(extended, tmp_path):
    """Run commands and programs in an empty folder, in one process with the copy as raysp; return what they print."""

    def run(*commands: str, refused: str = "") -> list[str]:
        ran = run_together(commands, tmp_path, PYTHONPATH=f"{extended}", OMP_NUM_THREADS="1")
        for command, one in zip(commands, ran, strict=True):
            assert one.code == (2 if command == refused else 0), one.err
        return [one.out or one.err for one in ran]

    return run


def test_each_diff_of_the_page_stands_in_a_section_that_is_tried():
    assert DIFF.findall(PAGE) == [diff for extension in EXTENSIONS.values() for diff in extension.diffs]
    rows = re.findall(r"^\| (an? .*?) \|", PAGE.partition("## ")[0], re.MULTILINE)
    assert len(rows) == len(SECTIONS) + 1  # and a model, an output or a step of a user's own


@pytest.mark.drivers
def test_the_architecture_equals_transformers(extended, tmp_path):
    shutil.copytree(REPOSITORY / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    shutil.copytree(extended / "raysp", tmp_path / "raysp")
    shutil.copytree(CHECKPOINT.parents[1], tmp_path / "pipelines")
    test = EXTENSIONS["An architecture"].files["tests/models/test_data2vec_audio.py"]
    (tmp_path / "tests" / "models" / "test_data2vec_audio.py").write_text(test)
    (tmp_path / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    command = [sys.executable, "-m", "pytest", "-q", "tests/models/test_data2vec_audio.py"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout[:12]) == (0, "." * 12), ran.stdout + ran.stderr


@pytest.mark.drivers
def test_the_recogniser_of_transformers_labels(run, tmp_path):
    tiny.audioflamingo3(tmp_path / "flamingo")
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(2))
    transcript = raysp.Transcript(prompt="Write the digits.")
    pipeline = a_pipeline(steps=[raysp.Decode(), raysp.Label("flamingo", outputs=[transcript])])
    kit.pipeline_file(tmp_path / "label.py", pipeline)
    inspected, _, head = run("inspect flamingo", "run label.py", "head out --rows 2 --json")
    assert "Transcript(prompt=)" in inspected
    rows = json.loads(head)["rows"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert all(row["pred_text"] for row in rows)


@pytest.mark.drivers
def test_the_verb_the_output_and_the_kind_of_source_label_an_archive(run, tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "en.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.wav", wav(8000, seed=number))
    (tmp_path / "label.py").write_text(
        "import raysp\n"
        "pipeline = raysp.Pipeline(\n"
        "    source=raysp.Shards('in'),\n"
        f"    steps=[raysp.Decode(), raysp.Label({str(CHECKPOINT)!r}, outputs=[raysp.Peak()])],\n"
        "    sink=raysp.Parquet('out'),\n"
        ")\n"
    )
    models, inspected, _, _, as_json, head, text = run(
        "models",
        f"inspect {CHECKPOINT}",
        "run label.py",
        "verify label.py --sample 3",
        "head out --rows 2 --json",
        "head out",
        "head --help",
    )
    assert "data2vec-audio" in models
    assert "outputs       Transcript, Align, Embedding, Peak" in inspected
    rows = json.loads(as_json)["rows"]
    assert [row["id"] for row in rows] == ["0.wav", "1.wav"]
    assert all(max(row["peak"]) > min(row["peak"]) >= 0 for row in rows)
    assert "0.wav" in head
    assert "raysp head out --rows 20" in text


@pytest.mark.drivers
def test_verbs_act_on_the_kind_of_work(run, tmp_path):
    (tmp_path / "counted.py").write_text(
        "import raysp\nfrom raysp.counts.counting import Counting\n"
        "counting = Counting(source=raysp.Shards(['a.parquet', 'b.parquet']), sink=raysp.Parquet('out'))\n"
        "if __name__ == '__main__':\n    counting.run()\n"
    )
    program = "import runpy\nrunpy.run_path('counted.py', run_name='__main__')"
    commands = ["plan counted.py", program, "status out", "gc out", "report out", "verify out"]
    plan, _, status, _, _, verified = run(*commands, refused="verify out")
    assert "a.parquet" in plan
    assert "files  2" in status
    assert "a count, without label shards; read it" in verified


@pytest.mark.drivers
def test_the_output_of_a_user_runs_beside_the_pipeline_file(run, tmp_path):
    for name, text in OWN_OUTPUT.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pipelines").symlink_to(REPOSITORY / "pipelines")
    assert "peak" in run("run label_peak.py --rows 3")[0]
