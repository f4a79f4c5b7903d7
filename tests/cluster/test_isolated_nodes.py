"""A run on nodes that share no file with their driver, between object stores, while the nodes come and go."""

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.cluster.nodes import ROOT, Cluster, isolated_cluster, obstacle
from tests.corpora import DEMO, a_pipeline
from tests.kit import pipeline_file
from tests.runs import CHECKPOINT, row_hash
from tests.s3_servers import SECRET_VARIABLE, S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.soak]

ROWS = 6
SLOW = """
import time

def slow(rows):
    time.sleep({seconds} if rows.num_rows else 0)  # a plan asks about no row
    return [True] * rows.num_rows
"""
"""A filter that takes its time over each shard, and no processor: an actor waits for it with a piece in hand."""


class Place:
    """A bucket with a corpus and a checkpoint, and pipelines over it in a folder of the driver's."""

    def __init__(self, s3: S3Server, folder: Path, num_shards: int) -> None:
        self.s3, self.folder, self.bucket = s3, folder, s3.bucket()
        rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
        (folder / "in").mkdir()
        for number in range(num_shards):
            taken = rows.take([(ROWS * number + place) % rows.num_rows for place in range(ROWS)])
            pq.write_table(taken, folder / "in" / f"{number:04}.parquet")
        s3.upload(folder / "in", self.bucket, "in/")
        s3.upload(CHECKPOINT, self.bucket, "model/")
        (folder / "slowly.py").write_text(SLOW.format(seconds=SHARD_SECONDS))

    def start(self, cluster: Cluster) -> subprocess.Popen[bytes]:
        """Start a driver on the head, whose output and errors are in the folder."""
        source, model, labels = (self.s3.url(self.bucket, name) for name in ("in", "model", "labels"))
        pool = raysp.Pool(actors=(1, GPU_NODES), gpus=1, cpus=1)
        label = raysp.Label(model, outputs=[raysp.Transcript()], device="cpu", pool=pool)
        pipeline = raysp.Pipeline(
            raysp.Shards(source, storage_options=self.s3.options),
            steps=[raysp.Keep(where="slowly:slow"), raysp.Decode(), label],
            sink=raysp.Parquet(labels, storage_options=self.s3.options),
        )
        file = pipeline_file(self.folder / "labels.py", pipeline)
        command = [sys.executable, "-m", "raysp.cli", "run", str(file), "--json", "--address", cluster.address]
        with file.with_suffix(".said").open("wb") as said, file.with_suffix(".json").open("wb") as answer:
            return subprocess.Popen(
                command, cwd=ROOT, env=cluster.environment, stdin=subprocess.DEVNULL, stdout=answer, stderr=said
            )

    def rows(self) -> str:
        """Return all label rows."""
        self.s3.download(self.bucket, self.folder / "bucket")
        return row_hash(self.folder / "bucket" / "labels")


@pytest.fixture
def cluster(s3) -> Iterator[Cluster]:
    """A cluster whose nodes have the secret of the object store in their environment."""
    if reason := obstacle():
        pytest.skip(reason)
    with isolated_cluster({SECRET_VARIABLE: s3.secret}) as found:
        yield found


CPU_NODES = GPU_NODES = 4
SHARD_SECONDS = 8.0
KILL_SECONDS = 20
LOST_BEFORE_ALL_GPUS = 7
WITHOUT_GPUS_SECONDS = 30


def test_nodes_that_share_no_file_and_are_lost_every_twenty_seconds_cost_no_row(s3, cluster, tmp_path, monkeypatch):
    """The nodes come up after the driver. Each lost node is replaced at once. Once, all nodes with GPUs are lost, and
    come up again half a minute later.

    RAYSP_SOAK_SEED chooses the nodes, RAYSP_SOAK_SHARDS the length: 220 shards take four minutes undisturbed.
    """
    dice = random.Random(int(os.environ.get("RAYSP_SOAK_SEED", "0")))
    num_shards = int(os.environ.get("RAYSP_SOAK_SHARDS", "220"))
    monkeypatch.syspath_prepend(tmp_path)
    place = Place(s3, tmp_path, num_shards)
    driver = place.start(cluster)
    for gpus in [0] * CPU_NODES + [1] * GPU_NODES:
        cluster.add(cpus=2 - gpus, gpus=gpus).wait_until_up()  # one after the other: each takes seconds of a core
    for hidden in (tmp_path, CHECKPOINT, Path(__file__)):
        assert hidden.exists()
        assert not cluster.nodes[0].sees(hidden)
    lost = 0
    while is_working(driver, KILL_SECONDS):
        cluster.mend()
        are_all = lost == LOST_BEFORE_ALL_GPUS
        killed = [node for node in cluster.nodes if node.gpus] if are_all else [dice.choice(cluster.nodes)]
        for node in killed:
            cluster.kill(node)
        if are_all:
            is_working(driver, WITHOUT_GPUS_SECONDS)
        for node in killed:
            cluster.add(cpus=node.cpus, gpus=node.gpus)
        lost += len(killed)
    assert driver.returncode == 0, (tmp_path / "labels.said").read_text()[-3000:]
    result = json.loads((tmp_path / "labels.json").read_text())
    assert (result["shards_committed"], result["errors"]) == (num_shards, {})
    raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "undisturbed"), engine="here", progress=False)
    assert place.rows() == row_hash(tmp_path / "undisturbed")
    assert lost >= GPU_NODES + LOST_BEFORE_ALL_GPUS


def is_working(driver: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for the end of a driver for so many seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        driver.wait(seconds)
    return driver.poll() is None
