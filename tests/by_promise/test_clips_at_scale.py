"""Clips of large corpora: one decoder process, a bound of time, and the same files however they are made."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import psutil
import pyarrow.parquet as pq
import pytest

import raysp
from tests.kit import CHECKOUT, CHECKPOINT, DEMO, corpus
from tests.soaked import soaked

LOGGING = """
import os, sys
with open({log!r}, "a") as file:
    file.write(" ".join(sys.orig_argv) + "\\n")
"""


def label(source: raysp.Shards, sink: Path) -> Path:
    outputs = [raysp.Transcript(words=True)]
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=outputs)]
    place = raysp.Parquet(str(sink), keep=["speaker_id"])
    raysp.run(raysp.Pipeline(source, steps=steps, sink=place), engine="here", progress=False)
    return sink


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Labels of the demo: two label shards of 150 recordings each."""
    return label(raysp.Shards(f"{DEMO}/audio/*.parquet"), tmp_path_factory.mktemp("demo") / "labels")


@pytest.fixture(scope="module")
def sink(tmp_path_factory) -> Path:
    """Labels of four shards of six recordings."""
    folder = tmp_path_factory.mktemp("four")
    return label(raysp.Shards(corpus(folder / "in", rows=24, shards=4).url), folder / "labels")


FORMAT = """
import time
from dataclasses import KW_ONLY
from typing import ClassVar

from raysp.specs import spec
from raysp.verbs.export.row_files import LineFiles


@spec
class Slow:
    NAME: ClassVar[str] = "slow"

    _: KW_ONLY
    seconds: float = 0.0
    wrong: str = ""

    def writing(self, source):
        def line(row, id_):
            time.sleep(self.seconds)
            assert id_ != self.wrong, "a wrong row"
            return f"{id_} {row['pred_text']}\\n"

        return LineFiles(source.labelling, ".txt", ["pred_text"], lambda shard: line)
"""
"""A module with a format of a user."""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "raysp", "export", *map(str, words)]


def exported(sink: Path, dest: Path, *options: str, log: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Export clips by the command, and return it.

    Args:
        sink: the sink.
        dest: the destination.
        options: further words of the command.
        log: file that gets the command line of each Python process.
    """
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    if log:
        (log.parent / "sitecustomize.py").write_text(LOGGING.format(log=str(log)))
        environment["PYTHONPATH"] += f"{os.pathsep}{log.parent}"
    line = command(sink, dest, "--to", "clips", "--trust", "--set", "to.min_seconds=0.1", *options)
    return subprocess.run(line, env=environment, capture_output=True, timeout=300)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of an export for its readers, by their paths."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".raysp" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def clips_of(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted((folder / "data").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
def test_processes_write_the_same_files_and_start_a_decoder_each(sink, tmp_path):
    (tmp_path / "site").mkdir()
    log = tmp_path / "site" / "log"
    one = exported(sink, tmp_path / "one")
    two = exported(sink, tmp_path / "two", "--processes", "2", log=log)
    assert (one.returncode, two.returncode) == (0, 0), two.stderr.decode()
    assert two.stdout == one.stdout.replace(b"one\n", b"two\n")
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    started = log.read_text().splitlines()
    assert sum("raysp.audio.child" in line for line in started) == 2
    again = exported(sink, tmp_path / "two", "--processes", "3")
    assert b"4 of them earlier" in again.stdout
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


@pytest.mark.cluster
@pytest.mark.slow
def test_tasks_of_a_cluster_write_the_same_files(sink, tmp_path, local_ray):
    clips = raysp.Clips(min_seconds=0.1)
    raysp.export(str(sink), clips, str(tmp_path / "one"), trust=True)
    found = raysp.export(str(sink), clips, str(tmp_path / "tasks"), trust=True, address="auto")
    assert (found.shards, found.clips) == (4, 24)
    assert files_of(tmp_path / "tasks") == files_of(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *soaked(range(1, 25))])
def test_killed_at_random_moments_it_writes_the_same_files(sink, tmp_path, seed):
    draw = random.Random(seed)
    exported(sink, tmp_path / "whole")
    line = command(sink, tmp_path / "killed", "--to", "clips", "--trust", "--set", "to.min_seconds=0.1")
    start = time.monotonic()
    subprocess.run([*line, "--processes", "2"], check=True, capture_output=True)
    seconds = time.monotonic() - start
    shutil.rmtree(tmp_path / "killed")
    for _ in range(3):
        with subprocess.Popen([*line, "--processes", str(draw.randint(1, 3))], stdout=-1, stderr=-1) as process:
            time.sleep(draw.uniform(0.3, 1) * seconds)
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
        assert psutil.wait_procs(children, timeout=30)[1] == []
    done = subprocess.run([*line, "--processes", "2"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_format_of_a_user_goes_to_the_processes_and_its_error_comes_back(sink, tmp_path):
    (tmp_path / "slow.py").write_text(FORMAT)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    last = pq.read_table(sink / "part-3.parquet").column("id")[5].as_py()
    for processes, wrong in ((1, ""), (2, ""), (1, last), (2, last)):
        line = command(sink, f"out{processes}{wrong}", "--to", "slow:Slow", "--set", f"to.wrong={wrong}")
        done = subprocess.run(
            [*line, "--processes", str(processes)], cwd=tmp_path, env=environment, capture_output=True, timeout=120
        )
        assert (done.returncode == 0) == (not wrong), done.stderr.decode()
        assert (b"a wrong row" in done.stderr) == bool(wrong)
    assert files_of(tmp_path / "out2") == files_of(tmp_path / "out1")


@pytest.mark.slow
def test_a_process_that_is_killed_costs_time_alone(sink, tmp_path):
    (tmp_path / "slow.py").write_text(FORMAT)
    line = command(sink, "out", "--to", "slow:Slow", "--set", "to.seconds=0.2", "--processes", "2")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as main:
        while not (children := psutil.Process(main.pid).children()):
            time.sleep(0.05)
        time.sleep(0.5)
        children[0].kill()
        said = main.communicate(timeout=60)[1].decode()
    assert main.returncode == 0, said
    assert "ended with signal SIGKILL; this process does the rest for it" in said
    assert sum(len(text.splitlines()) for text in files_of(tmp_path / "out").values()) == 24


@pytest.mark.slow
def test_ctrl_c_ends_the_processes(sink, tmp_path):
    (tmp_path / "slow.py").write_text(FORMAT)
    line = command(sink, "out", "--to", "slow:Slow", "--set", "to.seconds=60", "--processes", "2")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        line,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as main:
        deadline = time.monotonic() + 60
        while len(children := psutil.Process(main.pid).children()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        main.send_signal(signal.SIGINT)
        said = main.communicate(timeout=30)[1].decode()
    assert main.returncode == 130, said
    assert "Traceback" not in said
    assert "process that exports" not in said
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=10)[1] == []


SHARES = {"train": 0.6, "dev": 0.2, "test": 0.2}


@pytest.mark.slow
def test_no_speaker_is_in_two_splits_and_datasets_opens_them(demo, tmp_path):
    clips = raysp.Clips(min_seconds=0.1, split=SHARES, speaker="speaker_id")
    found = raysp.export(str(demo), clips, str(tmp_path / "clips"), trust=True)
    opened = datasets.load_dataset(str(tmp_path / "clips"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in opened.items()} == {name: n for name, n in found.splits.items() if n}
    assert [*found.splits] == [*SHARES]
    assert sum(found.splits.values()) == found.clips == 300
    speakers = {name: {*rows["speaker_id"]} for name, rows in opened.items()}
    assert all(speakers.values())
    assert len(speakers) > 1
    assert sum(map(len, speakers.values())) == len({row["speaker_id"] for row in clips_of(tmp_path / "clips")})
    card = (tmp_path / "clips" / "README.md").read_text()
    assert "- splits: " + ", ".join(f"{name} {found.splits.get(name, 0)}" for name in SHARES) in card


@pytest.mark.slow
@pytest.mark.parametrize("to", ["clips", "dataset"])
def test_files_have_about_equal_size_and_the_rows_of_one_file(demo, tmp_path, to):
    options = {"min_seconds": 0.1} if to == "clips" else {}
    form = {"clips": raysp.Clips, "dataset": raysp.Dataset}[to]
    raysp.export(str(demo), form(**options), str(tmp_path / "one"), trust=True)
    bounded = form(**options, shard_bytes=200_000)
    found = raysp.export(str(demo), bounded, str(tmp_path / "several"), trust=True)
    assert clips_of(tmp_path / "several") == clips_of(tmp_path / "one")
    paths = sorted((tmp_path / "several/data").iterdir())
    assert paths[0].name == "digits-00000-of-00002-00000.parquet"
    assert found.files == len(paths) + 1
    sizes = [pq.read_table(path).nbytes for path in paths]
    assert max(sizes) <= 200_000
    assert sum(size > 150_000 for size in sizes) >= len(sizes) - 2  # the last one of each label shard has the rest
    raysp.export(str(demo), bounded, str(tmp_path / "processes"), trust=True, processes=2)
    assert files_of(tmp_path / "processes") == files_of(tmp_path / "several")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split": {"train": 0.5, "dev": 0.4}}, "the shares add up to 0.9; expected 1"),
        ({"split": {"a/b": 1.0}}, "split"),
        ({"split": {"dev": 0.5, "Dev": 0.5}}, "split: dev, Dev have one folder where letter case is ignored"),
        ({"split": {}}, "split"),
        ({"speaker": "speaker_id"}, "speaker='speaker_id': without effect, since split='train' names one split"),
        ({"shard_bytes": 0}, "Clips.shard_bytes: found 0"),
    ],
)
def test_options_that_are_wrong_for_any_data(options, expected):
    with pytest.raises(raysp.SpecError, match=expected):
        raysp.Clips(**options)


@pytest.mark.parametrize("to", ["clips", "dataset", "jsonl"])
def test_a_destination_that_holds_no_more_bytes_is_named_with_the_remedy(sink, tmp_path, to):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(raysp.RunError, match=f"{tmp_path}/out/.*: cannot write it .*raise the limit"):
            raysp.export(str(sink), to, f"{tmp_path}/out", trust=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raysp.export(str(sink), to, f"{tmp_path}/out", trust=True).files
