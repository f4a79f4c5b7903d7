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
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import a_pipeline
from tests.labelling.engine.clusters import NO_TOKENS, ROOT, small_cluster
from tests.runs import CHECKPOINT, DEMO, processes, row_hash

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]

PIPELINE = """
import raysp
from tests.labelling.engine.deadly import UnloadableOnOneNode
pipeline = raysp.Pipeline(
    source=raysp.Shards({corpus!r}),
    steps=[
        raysp.Decode(),
        raysp.Label({checkpoint!r}, outputs=[{output}], device="cpu", pool=raysp.Pool(actors=(1, 3))),
    ],
    sink=raysp.Parquet({sink!r}),
)
"""
SHARDS, ROWS = 24, 12


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


def start_driver(
    corpus: Path, sink: Path, address: str, output: str = "raysp.Transcript()", *arguments: str
) -> subprocess.Popen:
    file = sink.with_suffix(".py")
    values = {"corpus": f"{corpus}/in/*.parquet", "checkpoint": str(CHECKPOINT), "sink": str(sink), "output": output}
    file.write_text(PIPELINE.format(**values))
    return subprocess.Popen(
        [sys.executable, "-m", "raysp.cli", "run", str(file), "--json", "--address", address, *arguments],
        cwd=ROOT,
        env=NO_TOKENS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def committed(sink: Path) -> int:
    return len(list(sink.glob("*.parquet")))


def test_the_loss_of_a_node_costs_no_row_and_stdout_has_only_the_result(corpus, tmp_path):
    sink = tmp_path / "labels"
    with small_cluster(2) as cluster:
        driver = start_driver(corpus, sink, cluster.address)
        while committed(sink) < 3 and driver.poll() is None:
            time.sleep(0.02)
        cluster.kill_a_node()
        out, said = driver.communicate(timeout=180)
    assert driver.returncode == 0, said
    assert json.loads(out)["shards_committed"] == SHARDS
    assert row_hash(sink) == row_hash(corpus / "undisturbed")
    assert raysp.verify(str(sink), trust=True).differences == ()


@pytest.mark.soak
def test_a_node_on_which_the_model_does_not_load_ends_no_run(corpus, tmp_path):
    sink = tmp_path / "labels"
    output = f"UnloadableOnOneNode(folder={str(tmp_path)!r})"
    with small_cluster(2) as cluster:
        driver = start_driver(corpus, sink, cluster.address, output, "--set", "steps.1.pool.actors=1")
        _, said = driver.communicate(timeout=180)
    assert driver.returncode == 0, said
    assert (tmp_path / "failures").read_text() == "x"  # the next actor started on the other node
    assert row_hash(sink) == row_hash(corpus / "undisturbed")


@pytest.mark.soak
def test_a_hundred_kills_of_drivers_actors_readers_and_nodes_lose_double_and_change_nothing(corpus, tmp_path):
    seed = int(os.environ.get("RAYSP_SOAK_SEED", "0"))
    wanted = int(os.environ.get("RAYSP_SOAK_KILLS", "100"))
    dice = random.Random(seed)
    kills = dict.fromkeys(("driver", "actor", "reader", "node"), 0)
    runs = 0
    with small_cluster(2) as cluster:
        for number in itertools.count():
            if sum(kills.values()) >= wanted:
                break
            sink = tmp_path / f"labels-{number}"
            while True:
                runs += 1
                driver = start_driver(corpus, sink, cluster.address)
                _disturb(driver, cluster, dice, kills, wanted)
                out, said = driver.communicate(timeout=300)
                if driver.returncode == 0:
                    assert json.loads(out)["shards_committed"] == SHARDS
                    break
                assert driver.returncode in (-signal.SIGKILL, 1, 3), said
            assert row_hash(sink) == row_hash(corpus / "undisturbed")
            assert raysp.verify(str(sink), trust=True).differences == ()
            sys.stderr.write(f"{number + 1} sinks whole after {runs} runs and {kills}\n")


@pytest.mark.soak
def test_nodes_that_are_taken_away_every_few_seconds_make_no_row_an_error(corpus, tmp_path):
    dice = random.Random(int(os.environ.get("RAYSP_SOAK_SEED", "0")))
    wanted = int(os.environ.get("RAYSP_SOAK_PREEMPTIONS", "20"))
    sink = tmp_path / "labels"
    taken = 0
    with small_cluster(2) as cluster:
        driver = start_driver(corpus, sink, cluster.address)
        while driver.poll() is None and taken < wanted:
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(dice.uniform(3, 12))
                break
            cluster.kill_a_node()
            taken += 1
            sys.stderr.write(f"{time.strftime('%X')} {taken} nodes taken, {committed(sink)} shards committed\n")
        out, said = driver.communicate(timeout=900)
    assert driver.returncode == 0, said
    result = json.loads(out)
    assert (result["shards_committed"], result["errors"]) == (SHARDS, {})
    assert row_hash(sink) == row_hash(corpus / "undisturbed")
    assert taken >= min(wanted, 3)


def _disturb(driver: subprocess.Popen, cluster, dice: random.Random, kills: dict[str, int], wanted: int) -> None:
    """Kill something at random moments until the driver ends."""
    while driver.poll() is None and sum(kills.values()) < wanted:
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(dice.uniform(3, 25))
            return
        victim = dice.choice(list(kills))
        if victim == "driver":
            driver.kill()
        elif victim == "node":
            cluster.kill_a_node()
        else:
            name = "ray::ModelActor" if victim == "actor" else "ray::read_piece"
            if not (found := processes(name, cluster.host.pid)):
                continue
            with contextlib.suppress(psutil.Error):
                dice.choice(found).kill()
        kills[victim] += 1
        sys.stderr.write(f"{time.strftime('%X')} killed: {kills}\n")
