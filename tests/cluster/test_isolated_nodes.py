"""Runs on nodes that share no file with their driver, between object stores, while the nodes come and go."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.cluster.isolated_nodes import ROOT, IsolatedCluster, Node, isolated_cluster, obstacle
from tests.corpora import DEMO, a_pipeline
from tests.runs import CHECKPOINT, row_hash
from tests.s3_servers import SECRET_VARIABLE, S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.soak]

ROWS = 6
MODULE = """
import time

import raysp
from raysp.specs import spec


@spec
class SlowTranscript(raysp.Transcript):
    '''A transcript of a model that takes its time over each batch, and no processor.'''

    seconds: float = 1.0

    def op(self, checkpoint, loaded=None):
        op = super().op(checkpoint, loaded)
        return op if loaded is None else Slow(op, self.seconds)


class Slow:
    def __init__(self, op, seconds):
        self.op, self.seconds = op, seconds
        self.schema, self.staged, self.layers, self.empty = op.schema, op.staged, op.layers, op.empty

    def select(self, forward):
        return self.op.select(forward)

    def columns(self, arrays, rows):
        time.sleep(self.seconds)
        return self.op.columns(arrays, rows)
"""
PIPELINE = """
import raysp
from slow_transcript import SlowTranscript

options = {{"key": {key!r}, "secret": raysp.Env({secret!r}), "endpoint_url": {endpoint!r}}}
pipeline = raysp.Pipeline(
    source=raysp.Shards("s3://{bucket}/in", storage_options=options),
    steps=[
        raysp.Decode(),
        raysp.Label(
            "s3://{bucket}/model",
            outputs=[SlowTranscript(seconds={seconds})],
            device="cpu",
            pool=raysp.Pool(actors=(1, {actors}), gpus=1, cpus=1),
        ),
    ],
    sink=raysp.Parquet("s3://{bucket}/{sink}", storage_options=options),
)
"""


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
        (folder / "slow_transcript.py").write_text(MODULE)

    def start(self, sink: str, cluster: IsolatedCluster, *, actors: int, seconds: float) -> "Driver":
        """Start a driver on the head."""
        file = self.folder / f"{sink}.py"
        values = {"key": self.s3.key, "secret": SECRET_VARIABLE, "endpoint": self.s3.endpoint, "bucket": self.bucket}
        file.write_text(PIPELINE.format(**values, sink=sink, actors=actors, seconds=seconds))
        return Driver(file, cluster)

    def rows(self, sink: str) -> str:
        """Return all rows of a sink."""
        self.s3.download(self.bucket, self.folder / "bucket")
        return row_hash(self.folder / "bucket" / sink)

    def num_committed(self, sink: str) -> int:
        """Return the number of label shards."""
        found = self.s3.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{sink}/", Delimiter="/")
        return len(found.get("Contents", ()))


class Driver:
    """A command that labels."""

    def __init__(self, file: Path, cluster: IsolatedCluster) -> None:
        self.said = file.with_suffix(".said")
        self.answer = file.with_suffix(".json")
        self.started = time.monotonic()
        with self.said.open("wb") as said, self.answer.open("wb") as answer:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "raysp.cli", "run", str(file), "--json", "--address", cluster.address],
                cwd=ROOT,
                env=cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=said,
            )

    def is_working(self, seconds: float) -> bool:
        """Wait for its end for so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is None

    def result(self, timeout: float) -> dict[str, object]:
        """Return its answer, and its wall time in `seconds`."""
        code = self.process.wait(timeout)
        assert code == 0, self.said.read_text()[-3000:]
        return {**json.loads(self.answer.read_text()), "seconds": time.monotonic() - self.started}


@pytest.fixture
def cluster(s3) -> Iterator[IsolatedCluster]:
    """A cluster whose nodes have the secret of the object store in their environment."""
    if reason := obstacle():
        pytest.skip(reason)
    with isolated_cluster({SECRET_VARIABLE: s3.secret}) as found:
        yield found


def test_nodes_that_share_no_file_with_their_driver_come_up_after_its_start_and_label(s3, cluster, tmp_path):
    place = Place(s3, tmp_path, 12)
    driver = place.start("labels", cluster, actors=2, seconds=0.1)
    node = cluster.add(cpus=2, gpus=1)
    cluster.wait_until_up()
    for hidden in (tmp_path, CHECKPOINT, Path(__file__)):
        assert hidden.exists()
        assert not node.sees(hidden)
    result = driver.result(timeout=300)
    assert (result["shards_committed"], result["errors"]) == (12, {})
    raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "undisturbed"), engine="here", progress=False)
    assert place.rows("labels") == row_hash(tmp_path / "undisturbed")


CPU_NODES = GPU_NODES = 4
SHARDS = 220
BATCH_SECONDS = 4.0
KILL_SECONDS = 20
LOST_BEFORE_ALL_GPUS = 7
WITHOUT_GPUS_SECONDS = 30


def test_eight_nodes_that_are_lost_every_twenty_seconds_cost_no_row(s3, cluster, tmp_path):
    """Each lost node is replaced at once. Once, all nodes with GPUs are lost, and come up again half a minute later.

    RAYSP_SOAK_SEED chooses the nodes, RAYSP_SOAK_SHARDS the length: 220 shards take four minutes undisturbed. The time
    lost is printed and no part of the test, as it is also that of other programs on the machine.
    """
    dice = random.Random(int(os.environ.get("RAYSP_SOAK_SEED", "0")))
    num_shards = int(os.environ.get("RAYSP_SOAK_SHARDS", SHARDS))
    place = Place(s3, tmp_path, num_shards)
    for gpus in [0] * CPU_NODES + [1] * GPU_NODES:
        cluster.add(cpus=2 - gpus, gpus=gpus).wait_until_up()  # one after the other: each takes seconds of a core
    quiet = place.start("undisturbed", cluster, actors=GPU_NODES, seconds=BATCH_SECONDS).result(timeout=1800)
    _say(f"undisturbed: {quiet['seconds']:.0f} s")

    driver = place.start("labels", cluster, actors=GPU_NODES, seconds=BATCH_SECONDS)
    lost = 0
    while driver.is_working(KILL_SECONDS):
        cluster.mend()
        if lost == LOST_BEFORE_ALL_GPUS:
            lost += _lose_all_gpus(cluster, driver)
        else:
            lost += _lose(cluster, dice.choice(cluster.nodes))
        _say(f"{time.monotonic() - driver.started:.0f} s: {lost} nodes lost, {place.num_committed('labels')} shards")
    result = driver.result(timeout=1)
    overhead = result["seconds"] / quiet["seconds"] - 1
    _say(f"with {lost} nodes lost: {result['seconds']:.0f} s, {overhead:.0%} more; load {os.getloadavg()}")
    assert (result["shards_committed"], result["errors"]) == (num_shards, {})
    assert place.rows("labels") == place.rows("undisturbed")
    assert lost >= GPU_NODES + LOST_BEFORE_ALL_GPUS


def _lose(cluster: IsolatedCluster, node: Node) -> int:
    """Kill a node, start another like it, and return the number of lost nodes."""
    cluster.kill(node)
    cluster.add(cpus=node.cpus, gpus=node.gpus)
    return 1


def _lose_all_gpus(cluster: IsolatedCluster, driver: Driver) -> int:
    """Kill all nodes with GPUs, and start as many later."""
    lost = [node for node in cluster.nodes if node.gpus]
    for node in lost:
        cluster.kill(node)
    driver.is_working(WITHOUT_GPUS_SECONDS)
    for node in lost:
        cluster.add(cpus=node.cpus, gpus=node.gpus)
    return len(lost)


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%X')} {line}\n")
