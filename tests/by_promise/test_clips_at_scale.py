"""Clips of large corpora: one decoder process, a bound of time, and the same files however they are made."""

import dataclasses
import importlib
import os
import resource
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
from tests import kit
from tests.exports import exported
from tests.soaked import soaked

LOGGING = """
import os, sys
with open({log!r}, "a") as file:
    file.write(" ".join(sys.orig_argv) + "\\n")
"""
MOST_BYTES = 30_000
CLIPS = raysp.Clips(min_seconds=0.1, shard_bytes=MOST_BYTES)
OPTIONS = ("--to", "clips", "--trust", "--set", "to.min_seconds=0.1", "--set", f"to.shard_bytes={MOST_BYTES}")


@pytest.fixture(scope="module")
def sink(tmp_path_factory) -> Path:
    """Labels of two shards of twelve recordings."""
    folder = tmp_path_factory.mktemp("two")
    corpus, place = kit.corpus(folder / "in", rows=24, shards=2), raysp.Parquet(f"{folder}/labels", keep=["speaker_id"])
    raysp.run(corpus.pipeline(place, outputs=[raysp.Transcript(words=True)]), engine="here", progress=False)
    return folder / "labels"


@pytest.fixture(scope="module")
def one(sink, tmp_path_factory) -> dict[str, bytes]:
    """The files of an export by one process."""
    folder = tmp_path_factory.mktemp("one")
    assert raysp.export(str(sink), CLIPS, str(folder), trust=True).clips == 24
    return exported(folder)


FORMAT = """
import os
import time
from dataclasses import KW_ONLY
from pathlib import Path
from typing import ClassVar

from raysp.specs import spec
from raysp.verbs.export.row_files import LineFiles


@spec
class Slow:
    NAME: ClassVar[str] = "slow"

    _: KW_ONLY
    wrong: str = ""
    begun: str = ""

    def writing(self, source):
        def line(row, id_):
            if self.begun:
                Path(self.begun, str(os.getpid())).touch()
                while not Path(self.begun, "go").exists():
                    time.sleep(0.01)
            assert id_ != self.wrong, "a wrong row"
            return f"{id_} {row['pred_text']}\\n"

        return LineFiles(source.labelling, ".txt", ["pred_text"], lambda shard: line)
"""
"""A module with a format of a user, whose rows wait for a file if a folder is given for those that begin."""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "raysp", "export", *map(str, words)]


def clips_of(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted((folder / "data").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
def test_processes_write_the_same_files_and_start_a_decoder_each(sink, one, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    log = tmp_path / "site" / "log"
    (tmp_path / "site" / "sitecustomize.py").write_text(LOGGING.format(log=str(log)))
    monkeypatch.setenv("PYTHONPATH", f"{kit.CHECKOUT}{os.pathsep}{tmp_path}/site")
    ran = kit.run(["export", sink, tmp_path / "two", *OPTIONS, "--processes", 2])
    assert ran.code == 0, ran.err
    assert exported(tmp_path / "two") == one
    assert sum("raysp.audio.child" in line for line in log.read_text().splitlines()) == 2
    again = kit.run(["export", sink, tmp_path / "two", *OPTIONS, "--processes", 3])
    assert "2 of them earlier" in again.out
    assert exported(tmp_path / "two") == one


@pytest.mark.cluster
@pytest.mark.drivers
@pytest.mark.slow
def test_tasks_of_a_cluster_write_the_same_files(sink, one, tmp_path, local_ray):
    found = raysp.export(str(sink), CLIPS, str(tmp_path), trust=True, address="auto")
    assert (found.shards, found.clips) == (2, 24)
    assert exported(tmp_path) == one


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("files", [1, *soaked(range(2, 7))])
def test_killed_once_some_files_are_written_it_goes_on_to_the_same_files(sink, one, tmp_path, files):
    line = command(sink, tmp_path / "out", *OPTIONS, "--processes", 2)
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len([*(tmp_path / "out").rglob("*.parquet")]) < files:
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
    assert psutil.wait_procs(children, timeout=30)[1] == []
    done = kit.run(["export", sink, tmp_path / "out", *OPTIONS, "--processes", 2])
    assert done.code == 0, done.err
    assert exported(tmp_path / "out") == one


@pytest.mark.slow
def test_a_format_of_a_user_goes_to_the_processes_and_its_error_comes_back(sink, tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(tmp_path)
    slow = importlib.import_module("slow").Slow
    for processes in (1, 2):
        raysp.export(str(sink), slow(), f"{tmp_path}/out{processes}", processes=processes)
    assert exported(tmp_path / "out2") == exported(tmp_path / "out1")
    last = pq.read_table(sink / "part-1.parquet").column("id")[11].as_py()
    with pytest.raises(Exception, match="a wrong row"):
        raysp.export(str(sink), slow(wrong=last), f"{tmp_path}/wrong", processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["a process is killed", "Ctrl-C"])
def test_a_process_that_is_killed_costs_time_alone_and_ctrl_c_ends_all(sink, tmp_path, kill):
    (tmp_path / "slow.py").write_text(FORMAT)
    begun = tmp_path / "begun"
    begun.mkdir()
    line = command(sink, "out", "--to", "slow:Slow", "--set", f"to.begun={begun}")
    with subprocess.Popen(
        [*line, "--processes", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(kit.CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as main:
        while main.poll() is None and len([*begun.iterdir()]) < 2:
            time.sleep(0.01)
        children = [psutil.Process(int(path.name)) for path in begun.iterdir()]
        os.kill(children[0].pid if kill == signal.SIGKILL else main.pid, kill)
        if kill == signal.SIGKILL:
            (begun / "go").touch()
        said = main.communicate(timeout=60)[1].decode()
    if kill == signal.SIGKILL:
        assert main.returncode == 0, said
        assert "ended with signal SIGKILL; this process does the rest for it" in said
        assert sum(len(text.splitlines()) for text in exported(tmp_path / "out").values()) == 24
    else:
        assert main.returncode == 130, said
        assert ("Traceback" in said, "process that exports" in said) == (False, False)
        assert psutil.wait_procs(children, timeout=30)[1] == []


SHARES = {"train": 0.6, "dev": 0.2, "test": 0.2}


@pytest.mark.slow
def test_no_speaker_is_in_two_splits_and_datasets_opens_them(sink, tmp_path):
    clips = raysp.Clips(min_seconds=0.1, split=SHARES, speaker="speaker_id")
    found = raysp.export(str(sink), clips, str(tmp_path / "clips"), trust=True)
    opened = datasets.load_dataset(str(tmp_path / "clips"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in opened.items()} == {name: n for name, n in found.splits.items() if n}
    assert [*found.splits] == [*SHARES]
    assert sum(found.splits.values()) == found.clips == 24
    speakers = {name: {*rows["speaker_id"]} for name, rows in opened.items()}
    assert all(speakers.values())
    assert len(speakers) > 1
    assert sum(map(len, speakers.values())) == len({row["speaker_id"] for row in clips_of(tmp_path / "clips")})
    card = (tmp_path / "clips" / "README.md").read_text()
    assert "- splits: " + ", ".join(f"{name} {found.splits.get(name, 0)}" for name in SHARES) in card


@pytest.mark.slow
@pytest.mark.parametrize("form", [CLIPS, raysp.Dataset(shard_bytes=MOST_BYTES)], ids=lambda form: form.NAME)
def test_files_have_about_equal_size_and_the_rows_of_one_file(sink, tmp_path, form):
    raysp.export(str(sink), dataclasses.replace(form, shard_bytes=None), str(tmp_path / "one"), trust=True)
    found = raysp.export(str(sink), form, str(tmp_path / "several"), trust=True)
    rows = clips_of(tmp_path / "one")
    assert clips_of(tmp_path / "several") == rows
    paths = sorted((tmp_path / "several/data").iterdir())
    assert paths[0].name == "part-0-00000.parquet"
    assert found.files == len(paths) + 1 > 5
    sizes = [pq.read_table(path).nbytes for path in paths]
    assert max(sizes) <= MOST_BYTES
    largest = max(len(row["audio"]["bytes"]) for row in rows)
    # The last one of each label shard has the rest.
    assert sum(size + largest > 0.9 * MOST_BYTES for size in sizes) >= len(sizes) - 2


@pytest.mark.parametrize("to", ["clips", "jsonl"])
def test_a_destination_that_holds_no_more_bytes_is_named_with_the_remedy(sink, tmp_path, to):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(raysp.RunError, match=f"{tmp_path}/out/.*: cannot write it .*raise the limit"):
            raysp.export(str(sink), to, f"{tmp_path}/out", trust=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raysp.export(str(sink), to, f"{tmp_path}/out", trust=True).files
