"""Runs on a cluster of several nodes whose drivers, actors and nodes are killed."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import raysp
from tests.cluster.nodes import NO_TOKENS, ROOT, Cluster, obstacle, small_cluster
from tests.corpora import a_pipeline
from tests.kit import CHECKPOINT, pipeline_file
from tests.places import Bucket, Folder, Place
from tests.runs import DEMO, processes, row_hash

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]

SHARDS, ROWS = 12, 12
KILLS = {
    "here": {"driver": 50, "decoder": 25},
    "ray": {"driver": 50, "actor": 25, "reader": 25, "decoder": 25, "node": 10},
}
"""Kills of each kind of process; RAYSP_SOAK_KILLS="driver=10,actor=5" chooses others."""
TITLES = {"actor": "ray::ModelActor", "reader": "ray::read_piece", "decoder": "raysp.audio.child"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Some small shards, and the labels of an undisturbed run beside them."""
    folder = tmp_path_factory.mktemp("clusters")
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    (folder / "in").mkdir()
    for number in range(SHARDS):
        taken = rows.take([(ROWS * number + place) % rows.num_rows for place in range(ROWS)])
        pq.write_table(taken, folder / "in" / f"{number:02}.parquet", row_group_size=4)
    raysp.run(a_pipeline(f"{folder}/in/*.parquet", folder / "undisturbed"), engine="here", progress=False)
    return folder


def start_driver(place: Place, file: Path, *arguments: str) -> subprocess.Popen:
    """Run a pipeline file from the shards of `in` to a sink of its name."""
    options = {"storage_options": place.options}
    source = raysp.Shards(f"{place.url('in')}/*.parquet", **options)
    checkpoint = str(CHECKPOINT) if isinstance(place, Folder) else place.url("model")
    label = raysp.Label(checkpoint, outputs=[raysp.Transcript()], device="cpu", pool=raysp.Pool(actors=(1, 3)))
    sink = raysp.Parquet(place.url(file.stem), **options)
    pipeline_file(file, a_pipeline(source, sink, steps=[raysp.Decode(), label]))
    return subprocess.Popen(
        [sys.executable, "-m", "raysp", "run", str(file), "--json", *arguments],
        cwd=ROOT,
        env={**os.environ, **NO_TOKENS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_loss_of_a_node_costs_no_row_and_stdout_has_only_the_result(corpus, tmp_path):
    place, sink = Folder(tmp_path), tmp_path / "labels"
    place.put(corpus / "in", "in")
    with small_cluster(2) as cluster:
        driver = start_driver(place, tmp_path / "labels.py", "--address", cluster.address)
        while len([*sink.glob("*.parquet")]) < 3 and driver.poll() is None:
            time.sleep(0.02)
        cluster.kill_a_node()
        out, said = driver.communicate(timeout=180)
    assert driver.returncode == 0, said
    assert json.loads(out)["shards_committed"] == SHARDS
    assert row_hash(sink) == row_hash(corpus / "undisturbed")
    assert raysp.verify(str(sink), trust=True).differences == ()


@pytest.mark.soak
@pytest.mark.parametrize("where", ["disk", "s3"])
@pytest.mark.parametrize("engine", list(KILLS))
def test_kills_at_random_moments_lose_double_and_change_nothing(request, corpus, tmp_path, engine, where):
    """Between buckets the nodes share no file with the driver, where this machine can have such nodes."""
    dice = random.Random(int(os.environ.get("RAYSP_SOAK_SEED", "0")))
    named = dict(one.split("=") for one in os.environ.get("RAYSP_SOAK_KILLS", "").split(",") if one)
    wanted = {victim: int(named.get(victim, 0 if named else number)) for victim, number in KILLS[engine].items()}
    server = request.getfixturevalue("s3") if where == "s3" else None
    place = Bucket(server, server.bucket(), tmp_path) if server else Folder(tmp_path)
    place.put(corpus / "in", "in")
    place.put(CHECKPOINT, "model")
    kills, runs, is_isolated = Counter(dict.fromkeys(wanted, 0)), 0, where == "s3" and not obstacle()
    with small_cluster(2, is_isolated=is_isolated) if engine == "ray" else contextlib.nullcontext() as cluster:
        for hidden in (tmp_path, CHECKPOINT, Path(__file__)) if cluster and is_isolated else ():
            assert not cluster.nodes[0].sees(hidden)
        start = ("--address", cluster.address) if cluster else ("--engine", "here")
        for number in itertools.count():
            if kills == wanted:
                break
            sink, written, on = f"labels-{number}", dict[str, object](), start
            while True:
                runs, before = runs + 1, kills.total()
                driver = start_driver(place, tmp_path / f"{sink}.py", *on)
                if on == start:
                    _disturb(driver, cluster, dice, kills, wanted)
                out, said = driver.communicate(timeout=300)
                now = place.writes(sink)
                assert written.items() <= now.items()  # what is committed is never written again
                written = now
                if driver.returncode == 0:
                    assert json.loads(out)["shards"] == len(now) == SHARDS
                    break
                assert driver.returncode in (-signal.SIGKILL, 1, 3), said
                is_refused = "consecutive processes" in said  # were killed over the same piece
                assert is_refused or kills.total() > before, said
                on = ("--engine", "ray", "--address", "local") if is_refused else start
            assert row_hash(place.copy(sink)) == row_hash(corpus / "undisturbed")
            verified = raysp.verify(place.url(sink), place.options, trust=True)
            assert verified.differences == ()
            sys.stderr.write(f"{number + 1} sinks whole after {runs} runs and {dict(kills)}\n")


def _disturb(
    driver: subprocess.Popen, cluster: Cluster | None, dice: random.Random, kills: Counter, wanted: dict[str, int]
) -> None:
    """Kill something at random moments until the driver ends, or as much was killed as is wanted."""
    while left := [victim for victim in wanted for _ in range(wanted[victim] - kills[victim])]:
        victim = dice.choice(left)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(dice.uniform(0.5, 3 if victim in TITLES else 12 if cluster else 8))
            return
        if victim == "driver":
            driver.kill()
        elif victim == "node":
            cluster.kill_a_node()
        elif not _kill_a_worker(TITLES[victim], driver, None if cluster else driver.pid, dice):
            continue
        kills[victim] += 1
        sys.stderr.write(f"{time.strftime('%X')} killed: {dict(kills)}\n")


def _kill_a_worker(title: str, driver: subprocess.Popen, of: int | None, dice: random.Random) -> bool:
    """Kill a process as soon as there is one; return whether there was one before the driver ended."""
    while driver.poll() is None:
        with contextlib.suppress(psutil.Error, IndexError):
            dice.choice(processes(title, of)).kill()
            return True
        time.sleep(0.02)
    return False
