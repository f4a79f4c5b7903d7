"""Trainings whose parts are killed at random moments: the weights are those of an undisturbed one, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import fsspec
import pytest

import raysp
from tests.cluster.nodes import small_cluster
from tests.recipes import MASKS
from tests.runs import processes
from tests.training.runs.test_several_workers import check_same_curve

pytestmark = [pytest.mark.cluster, pytest.mark.soak]

KILLS = int(os.environ.get("RAYSP_TEST_KILLS", "5"))
"""Kills of a training."""
MOST_SECONDS = 1.0
"""Longest time from a commit to the next kill."""
DRIVER = "the driver"
WORKER = "ray::RayTrainWorker"
RECIPE = """
import raysp
recipe = raysp.Finetune(
    raysp.Shards({source!r}, text="text"),
    steps=[raysp.Decode()],
    objective=raysp.CTC({checkpoint!r}, text=raysp.Text("lower"), vocabulary="build", masks={masks!r}),
    schedule=raysp.Schedule(epochs={epochs}, learning_rate=1e-3),
    batching=raysp.Batching(seconds=6, micro_batches=3, window_seconds=10),
    sink=raysp.Checkpoint({sink!r}, every=2, storage_options={options}),
    pool=raysp.Pool({pool}, cpus=1),
)
"""


class Training:
    """A recipe that is run by the command line, again and again until it is done."""

    def __init__(
        self,
        folder: Path,
        sink: str,
        words: str,
        checkpoint: Path,
        *,
        options: Mapping[str, object] = MappingProxyType({}),
        line: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        **changes: object,
    ) -> None:
        values = {
            name: os.environ[value.name] if isinstance(value, raysp.Env) else value for name, value in options.items()
        }
        self.files, self.root = fsspec.core.url_to_fs(sink, **values)
        self.file = folder / f"recipe_{sink.rpartition('/')[2]}.py"
        self.line, self.environment = line, environment
        given = {"source": words, "checkpoint": str(checkpoint), "masks": MASKS, "epochs": 80, "pool": 2, **changes}
        shown = repr({**options}).replace("Env(", "raysp.Env(")
        self.file.write_text(RECIPE.format(**given, sink=sink, options=shown))
        self.begin()

    def begin(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raysp", "finetune", str(self.file), *self.line],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, "RAYSP_BEAT_SECONDS": "1"},
        )

    def done(self) -> int:
        self.files.invalidate_cache()
        markers = self.files.glob(f"{self.root}/.raysp/steps/*.json")
        return max((int(Path(marker).stem) for marker in markers), default=0)

    def wait_for_a_commit(self) -> bool:
        """Wait until more steps are committed, and return whether the training goes on."""
        before, deadline = self.done(), time.monotonic() + 240
        while self.done() == before and self.process.poll() is None:
            assert time.monotonic() < deadline, f"no commit after step {before}"
            time.sleep(0.1)
        return self.process.poll() is None

    def kill(self, part: str, number: int) -> bool:
        """Kill a part, and return whether it was there."""
        if part == DRIVER:
            self.process.kill()
            self.process.wait()
            self.begin()
            return True
        found = processes(part, self.process.pid)[:1]
        for one in found:
            one.send_signal(number)
        return bool(found)

    def weights(self) -> bytes:
        _, said = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, said
        return self.files.cat_file(f"{self.root}/model.safetensors")


@pytest.fixture(params=["disk", "s3"])
def train(request, words, tiny, tmp_path):
    """Begins a training with a sink of this name."""
    if request.param == "disk":
        return lambda name: Training(tmp_path, str(tmp_path / name), words, tiny)
    s3 = request.getfixturevalue("s3")
    bucket = s3.bucket()
    return lambda name: Training(tmp_path, f"s3://{bucket}/{name}", words, tiny, options=s3.options)


@pytest.mark.parametrize(
    ("part", "number"),
    [
        (WORKER, signal.SIGKILL),
        (WORKER, signal.SIGSTOP),
        ("ray::Feeder", signal.SIGKILL),
        ("ray::TrainController", signal.SIGKILL),
        (DRIVER, signal.SIGKILL),
    ],
)
def test_kills_at_random_moments_change_no_weight(train, part, number):
    expected = train("undisturbed").weights()
    chance, run, kills = random.Random(f"{part} {number}"), train("killed"), 0
    while kills < KILLS and run.wait_for_a_commit():
        time.sleep(chance.uniform(0, MOST_SECONDS))
        kills += run.process.poll() is None and run.kill(part, number)
    assert run.weights() == expected
    assert kills > KILLS // 2


def test_a_training_outlives_the_nodes_of_its_cluster(words, tiny, tmp_path):
    """Nodes of two CPUs: two workers of one while there are two nodes, one while there is one."""
    Training(tmp_path, str(tmp_path / "undisturbed"), words, tiny, epochs=105).weights()
    with small_cluster(2) as cluster:
        elastic = {"pool": (1, 2), "line": ("--address", cluster.address), "environment": cluster.environment}
        run = Training(tmp_path, str(tmp_path / "out"), words, tiny, epochs=105, **elastic)
        for commits in (4, 100):
            while run.done() < commits:
                assert run.wait_for_a_commit()
            cluster.kill_a_node()
        run.weights()
    check_same_curve(tmp_path / "out", tmp_path / "undisturbed")
