"""A user's code on a worker: the hashed files run there, not those on that machine's disk."""

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ray import cloudpickle

import raysp
from raysp.labelling.engine.running import _job
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened
from raysp.specs.code import CodeFile, UserCode, user_code
from raysp.specs.pipeline import label_parts, load_function, read_code
from tests.corpora import NoCrashes, a_pipeline, write_shard
from tests.specs.code.projects import code_of, keeping

REPOSITORY = Path(raysp.__file__).parents[1]
WORKER = """
import json, pickle, sys
import pyarrow as pa
from raysp.labelling.assembly import row_op
answers = []
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        job = pickle.load(file)
    keep = next(step for step in job.pipeline.steps if type(step).__name__ == "Keep")
    answers.append([row_op(keep, job.functions).where(pa.table({"id": ["a"]})), job.pipeline.label.outputs[0].gain])
print(json.dumps(answers))
"""
OUTPUT = """
import raysp
from raysp.specs import spec
from pack import loudness

@spec
class Shouted(raysp.Transcript):
    gain: float = loudness.GAIN
"""


def planned(folder: Path, where: str = "my_rules:wanted", outputs: tuple = ()):
    """Plan a run, as the driver does; what workers are given of it."""
    write_shard(folder / "in" / "a.parquet", 2)
    label = {"outputs": list(outputs)} if outputs else {}
    pipeline = a_pipeline(f"{folder}/in/*.parquet", folder / "out", keep=[raysp.Keep(where=where)], label=label)
    return _job(make_plan(Opened.of(pipeline)), {}, NoCrashes())


@pytest.fixture
def worker(monkeypatch):
    """Have this process take code as a worker does."""
    monkeypatch.setattr(user_code, "_PROCESS", "a worker")
    meta_path = [*sys.meta_path]
    yield lambda code: code.install()
    sys.meta_path[:] = meta_path
    user_code._installed.clear()


def on_a_worker(tmp_path: Path, *jobs) -> list:
    """Run what workers do with jobs, one after the other, in a process that knows nothing of the project."""
    paths = []
    for number, job in enumerate(jobs):
        paths.append(str(tmp_path / f"job-{number}"))
        Path(paths[-1]).write_bytes(cloudpickle.dumps(replace(job, attempts=None)))
    command = [sys.executable, "-c", WORKER, *paths]
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    ran = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def write(project, number: int) -> None:
    project.write(
        my_rules="import at_top\ndef wanted(table):\n    import pack.late\n"
        "    return [at_top.X + pack.late.X] * table.num_rows\n",
        at_top=f"X = {number}\n",
        pack__="",
        pack__late=f"from .deep import X\nX = 10 * {number}\n",
        pack__deep="X = 0\n",
        pack__loudness=f"GAIN = {number}.0\n",
        my_output=OUTPUT,
    )


def outputs() -> tuple:
    import my_output

    return (my_output.Shouted(),)


def test_threads_of_models_do_not_spin_while_they_wait_unless_configured(tmp_path, monkeypatch):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")
    job = _job(make_plan(Opened.of(pipeline)), {}, NoCrashes())
    packed = cloudpickle.dumps(replace(job, attempts=None))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    pickle.loads(packed)
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    pickle.loads(packed)
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.slow
def test_workers_run_the_code_that_was_read_regardless_of_their_disk(project, tmp_path, monkeypatch):
    write(project, 1)
    first = planned(tmp_path / "1", outputs=outputs())
    project.forget()
    write(project, 2)
    second = planned(tmp_path / "2", outputs=outputs())
    assert first.fingerprint != second.fingerprint
    write(project, 3)  # edited between plan and worker
    monkeypatch.setenv("PYTHONPATH", str(project.folder))
    unshipped = replace(second, code=UserCode())
    # One process that serves several runs; without the shipped files it takes what it finds.
    answers = on_a_worker(tmp_path, unshipped, first, second, first)
    assert [one[0] for one in answers] == [[33], [11], [22], [11]]
    assert [one[1] for one in answers[1:]] == [1.0, 2.0, 1.0]


@pytest.mark.soak
def test_a_function_of_the_program_itself_travels_with_its_neighbours(project, tmp_path):
    write(project, 1)
    project.write(
        program=f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from ray import cloudpickle
from tests.specs.code.test_travelling import outputs, planned, replace

def wanted(table):
    import at_top
    return [at_top.X] * table.num_rows

if __name__ == "__main__":
    job = planned(Path({str(tmp_path)!r}), "__main__:wanted", outputs())
    assert [file.name for file in job.code.files][0] == "__main__.py"
    Path({str(tmp_path / "job")!r}).write_bytes(cloudpickle.dumps(replace(job, attempts=None)))
"""
    )
    subprocess.run([sys.executable, str(project.folder / "program.py")], check=True)
    write(project, 2)
    command = [sys.executable, "-c", WORKER, str(tmp_path / "job")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(ran.stdout) == [[[1], 1.0]]


def test_a_module_may_read_its_source_its_file_and_files_beside_it(project, tmp_path, worker):
    text = """
    import inspect, pathlib
    def wanted(table):
        here = pathlib.Path(__file__)
        return [(here.parent / "words.txt").read_text(), "a mark" in inspect.getsource(wanted), here.name]
    """.replace("\n    ", "\n")
    project.write(my_rules=text)
    (project.folder / "words.txt").write_text("one two")
    code = code_of("my_rules:wanted")
    shutil.move(project.folder / "my_rules.py", tmp_path / "away.py")
    worker(code)
    assert load_function("my_rules:wanted")(None) == ["one two", True, "my_rules.py"]


def test_a_compiled_module_travels(project, worker):
    import _json

    source = Path(_json.__file__)
    (project.folder / source.name.replace("_json", "fast_json")).write_bytes(source.read_bytes())
    project.write(my_rules="def wanted(table):\n    import fast_json\n")
    code = code_of("my_rules:wanted")
    [compiled, _] = code.files
    assert (compiled.name, compiled.module) == ("fast_json.so", "fast_json")
    project.forget()
    shutil.rmtree(project.folder)
    worker(code)
    assert "raysp-code-" in importlib.util.find_spec("fast_json").origin
    assert Path(importlib.util.find_spec("fast_json").origin).read_bytes() == source.read_bytes()


def test_a_package_that_is_known_by_its_version_must_have_it_on_the_worker(monkeypatch):
    UserCode(versions={"numpy": "numpy 0.0.1"}).install()  # here it was read
    code = UserCode(versions={"numpy": "numpy 0.0.1"}, process="another")
    with pytest.raises(raysp.RunError, match=r"the package 'numpy' had version numpy 0\.0\.1 .* found|it is numpy \d"):
        code.install()


def test_a_plan_reads_each_file_once(project, monkeypatch):
    write(project, 1)
    read: list[str] = []
    read_bytes = Path.read_bytes

    def counted(path: Path) -> bytes:
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    pipeline = keeping("my_rules:wanted")
    code = read_code(pipeline)
    label_parts(pipeline, checkpoint_digest="d", dtype="float32", code=code)
    assert sorted(read) == ["__init__.py", "at_top.py", "deep.py", "late.py", "my_rules.py"]
    assert all(isinstance(file, CodeFile) for file in code.files)
