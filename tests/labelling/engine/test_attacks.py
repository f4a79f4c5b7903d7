"""One harness for all attacks on a run: its label rows equal those of an undisturbed run.

A corpus of recordings by path goes through a step of the user's on a cluster of two nodes. While a driver works,
processes are killed, stopped for longer than the time-outs, and nodes are taken away every few seconds; between a
driver that was killed and the next, recordings are replaced under their path and the user's code is edited. At the end
the rows of each sink are compared with those that the same parts give in this process, undisturbed.

RAYSP_SOAK_SEED and RAYSP_SOAK_ATTACKS choose the attacks and their number.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from tests import kit
from tests.corpora import AUDIO, DEMO
from tests.labelling.engine.clusters import NO_TOKENS, ROOT, SmallCluster, small_cluster
from tests.runs import CHECKPOINT, row_hash

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.soak, pytest.mark.usefixtures("with_ray")]

SHARDS, ROWS = 24, 10
HANG_SECONDS = 15
PAUSES = (2, 25, 40)
"""Seconds; the longer ones are beyond what a block may take, and what an owner of the lease may be silent."""
ENVIRONMENT = {
    **NO_TOKENS,
    "RAYSP_HANG_SECONDS": str(HANG_SECONDS),
    "RAYSP_BEAT_SECONDS": "2",
    "OMP_NUM_THREADS": "1",
}
RUNS_A_SINK = 60

RULES = """
def wanted(table):
    return [not name.endswith("{left_out}") for name in table.column("id").to_pylist()]
"""
PIPELINE = """
import raysp

pipeline = raysp.Pipeline(
    source=raysp.Shards({shards!r}, audio_root={root!r}),
    steps=[
        raysp.Decode(),
        raysp.Keep(where="{rules}:wanted"),
        raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()], device="cpu", pool=raysp.Pool(actors=(1, 3))),
    ],
    sink=raysp.Parquet({sink!r}),
)
"""


@dataclass
class Attacked:
    """A sink under attack, its corpus and the user's code beside it."""

    folder: Path
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    """Attacks by their kind."""

    def __post_init__(self) -> None:
        self.rules = f"rules_{self.folder.name.replace('-', '_')}"
        self.write_rules("7")
        values = {"shards": f"{self.folder}/in/*.parquet", "root": f"{self.folder}/wav", "checkpoint": str(CHECKPOINT)}
        text = PIPELINE.format(**values, rules=self.rules, sink=str(self.sink))
        self.file.write_text(text)
        self.reference_file.write_text(text.replace(repr(str(self.sink)), repr(str(self.folder / "undisturbed"))))
        self._write_corpus()

    @property
    def sink(self) -> Path:
        return self.folder / "labels"

    @property
    def has_results(self) -> bool:
        """Whether something is staged or committed; until then a sink accepts any pipeline."""
        staged = (self.sink / ".raysp" / "stage").rglob("*")
        return any(self.sink.glob("*.parquet")) or any(path.is_file() for path in staged)

    @property
    def file(self) -> Path:
        return self.folder / f"recipe_{self.rules}.py"

    @property
    def reference_file(self) -> Path:
        return self.folder / f"reference_{self.rules}.py"

    def write_rules(self, left_out: str) -> None:
        (self.folder / f"{self.rules}.py").write_text(RULES.format(left_out=left_out))

    def _write_corpus(self) -> None:
        rows = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).to_pylist()
        (self.folder / "wav").mkdir()
        (self.folder / "in").mkdir()
        for number in range(SHARDS):
            names = [f"{number}-{place}" for place in range(ROWS)]
            for place, name in enumerate(names):
                recording = rows[(ROWS * number + place) % len(rows)]["audio"]["bytes"]
                (self.folder / "wav" / f"{name}.wav").write_bytes(recording)
            audio = pa.array([{"bytes": None, "path": f"{name}.wav"} for name in names], AUDIO)
            table = pa.table({"id": names, "audio": audio})
            pq.write_table(table, self.folder / "in" / f"{number:02}.parquet", row_group_size=4)

    def replace_a_recording(self) -> None:
        """Put another recording in the place of one, in one step, as an upload does."""
        victim, other = self.dice.sample(sorted((self.folder / "wav").iterdir()), 2)
        data, rate = soundfile.read(other, dtype="int16")
        soundfile.write(self.folder / "new.wav", data[: len(data) - self.dice.randrange(1, 400)], rate)
        (self.folder / "new.wav").replace(victim)
        self.done["recording replaced"] += 1

    def edit_the_code(self) -> None:
        """Edit the user's step: the next run refuses, and changes nothing."""
        before = row_hash(self.sink) if any(self.sink.glob("*.parquet")) else None
        self.write_rules("3")
        code, said = self.start("auto").wait()
        assert code == 2, f"edited code was not refused (exit {code}): {said}"
        assert self.rules in said or "where" in said, said
        self.write_rules("7")
        assert before == (row_hash(self.sink) if any(self.sink.glob("*.parquet")) else None)
        self.done["code edited"] += 1

    def start(self, address: str, verb: str = "run", *options: str) -> "Driver":
        where = () if address == "auto" else ("--address", address)
        return Driver(verb, self.file, *where, *options)

    def differences(self) -> Counter[str]:
        """Count rows that differ from those that the same parts give here, undisturbed."""
        undisturbed = kit.run(["run", self.reference_file, "--engine", "here"])
        assert undisturbed.code == 0, undisturbed.err
        wanted, found = (_rows(folder) for folder in (self.folder / "undisturbed", self.sink))
        places = Counter(place for place, _ in found)
        labels = dict(found)
        counts = Counter(lost=0, doubled=sum(count - 1 for count in places.values()), changed=0, blamed=0)
        for place, row in wanted:
            if place not in labels:
                counts["lost"] += 1
            elif labels[place] != row:
                counts["blamed" if labels[place]["error_type"] != row["error_type"] else "changed"] += 1
        return counts


def _rows(folder: Path) -> list[tuple[tuple[str, int], dict[str, object]]]:
    found = []
    for file in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
            found.append(((file.name, row["row"]), rounded))
    return found


class Driver:
    """A command that labels."""

    def __init__(self, verb: str, file: Path, *options: str) -> None:
        command = [sys.executable, "-m", "raysp.cli", verb, str(file), "--json", *options]
        self.said = file.with_suffix(".said").open("w+")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=self.said, text=True
        )

    def is_working(self, seconds: float) -> bool:
        """Wait for it to end for so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is None

    def wait(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and stderr."""
        code = self.process.wait(timeout=600)
        self.said.seek(0)
        with self.said:
            return code, self.said.read()[-3000:]


TITLES = {
    "actor": "ray::ModelActor",
    "reader": "ray::read_piece",
    "commit": "ray::commit_shards",
    "decoder": "raysp.audio.child",
}
"""Parts of the commands of processes that work, by what they do."""


def victims(cluster: SmallCluster, kind: str) -> list[psutil.Process]:
    """Find the processes of a kind among those of a cluster: those that label, read, commit or decode."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(cluster.host.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = " ".join(child.cmdline())
                if TITLES[kind] in words:
                    found.append(child)
    return found


KINDS = (*TITLES,)


def kill(attacked: Attacked, driver: Driver, cluster: SmallCluster) -> None:
    """Kill one process that works, or the driver."""
    kind = attacked.dice.choice((*KINDS, "driver", "driver"))
    if kind == "driver":
        driver.process.kill()
    elif found := victims(cluster, kind):
        with contextlib.suppress(psutil.Error):
            attacked.dice.choice(found).kill()
    else:
        return
    attacked.done[f"{kind} killed"] += 1


def pause(attacked: Attacked, driver: Driver, cluster: SmallCluster) -> None:
    """Stop processes, all of a machine or one, and let them go on."""
    seconds = attacked.dice.choice(PAUSES)
    kind = attacked.dice.choice((*KINDS, "driver", "machine"))
    if kind == "driver":
        found = [psutil.Process(driver.process.pid)]
    elif kind == "machine":
        found = [one for each in KINDS for one in victims(cluster, each)]
    else:
        found = victims(cluster, kind)[:1]
    if not found:
        return
    _signal(found, signal.SIGSTOP)
    time.sleep(seconds)
    _signal(found, signal.SIGCONT)
    attacked.done[f"{kind} paused for {seconds} s"] += 1


def _signal(processes: list[psutil.Process], number: int) -> None:
    for one in processes:
        with contextlib.suppress(psutil.Error):
            one.send_signal(number)


def preempt(attacked: Attacked, driver: Driver, cluster: SmallCluster) -> None:
    """Take a node away every few seconds, some times."""
    for _ in range(attacked.dice.randint(1, 4)):
        cluster.kill_a_node()
        attacked.done["node preempted"] += 1
        if not driver.is_working(attacked.dice.uniform(1, 6)):
            return


ATTACKS: tuple[Callable[[Attacked, Driver, SmallCluster], None], ...] = (kill, kill, pause, preempt)


def test_an_attacked_run_has_the_rows_of_an_undisturbed_one(tmp_path, monkeypatch):
    seed = int(os.environ.get("RAYSP_SOAK_SEED") or time.time())
    wanted = int(os.environ.get("RAYSP_SOAK_ATTACKS", "40"))
    dice = random.Random(seed)
    total: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    runs = sinks = 0
    monkeypatch.setattr(sys, "path", [*sys.path])
    with small_cluster(2) as cluster:
        while total.total() < wanted:
            folder = tmp_path / f"sink-{sinks}"
            folder.mkdir()
            attacked = Attacked(folder, dice)
            runs += _label_under_attack(attacked, cluster, wanted - total.total())
            sinks += 1
            total += attacked.done
            wrong += attacked.differences()
            verified = raysp.verify(str(attacked.sink), trust=True)
            sys.stderr.write(f"seed {seed}: {sinks} sinks, {runs} runs, {dict(total)}; rows wrong: {dict(wrong)}\n")
            assert verified.differences == ()
            assert not +wrong, json.dumps(wrong)


def _label_under_attack(attacked: Attacked, cluster: SmallCluster, wanted: int) -> int:
    """Run until the sink is whole and says so of itself; returns the number of runs."""
    command: tuple[str, ...] = ("run",)
    for run in range(1, RUNS_A_SINK):
        driver = attacked.start(cluster.address, *command)
        while attacked.done.total() < wanted and driver.is_working(attacked.dice.uniform(2, 15)):
            attacked.dice.choice(ATTACKS)(attacked, driver, cluster)
        code, said = driver.wait()
        assert code in (0, 1, 3, -signal.SIGKILL), f"exit {code}: {said}"
        if code == 0:
            changed = raysp.verify(str(attacked.sink), trust=True).differences
            if not changed:
                return run
            assert attacked.done["recording replaced"], changed
            command = ("retry", "--shard", "*.parquet")
        elif attacked.done.total() < wanted:
            for _ in range(attacked.dice.randint(0, 3)):
                attacked.replace_a_recording()
            if attacked.dice.random() < 0.6 and attacked.has_results:
                attacked.edit_the_code()
    raise AssertionError(f"not whole after {RUNS_A_SINK} runs: {said}")
