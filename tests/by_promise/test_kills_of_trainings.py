"""A training that is killed and continues publishes the files of one that nothing disturbed."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import kit
from tests.corpora import CHECKPOINT, digits_table

pytestmark = pytest.mark.drivers  # two processes train, and are killed

PUBLISHED = ("README.md", "config.json", "metrics.json", "model.safetensors", "vocab.json")
RECIPE = """
import raysp

recipe = raysp.Finetune(
    raysp.Shards("{folder}/train/*.parquet", text="text"),
    steps=[raysp.Decode(), raysp.Keep(max_seconds=0.6)],
    objective=raysp.CTC("{checkpoint}", text=raysp.Text("upper")),
    schedule=raysp.Schedule(steps=6, learning_rate=1e-3),
    batching=raysp.Batching(seconds=3, micro_batches=2),
    evaluation=raysp.Evaluation(raysp.Shards("{folder}/dev/*.parquet", text="text"), every=2, best="loss"),
    sink=raysp.Checkpoint("{sink}", every=2),
    pool=raysp.Pool(1, cpus=1),
    ema=0.9,
    name="digits",
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two shards of digits with rows that are left out for four reasons, and one for evaluation."""
    folder = tmp_path_factory.mktemp("digits")
    rows = digits_table(22).select(["id", "audio", "text"])
    texts = rows.column("text").to_pylist()
    texts[3], texts[10], texts[11] = "?", "", "#"
    audio = rows.column("audio").to_pylist()
    audio[7] = {"bytes": b"no audio", "path": None}
    rows = rows.set_column(1, "audio", pa.array(audio, rows.schema.field("audio").type))
    rows = rows.set_column(2, "text", pa.array(texts))
    for name, first, end in (("train/a", 0, 10), ("train/b", 10, 20), ("dev/c", 20, 22)):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(rows.slice(first, end - first), path)
    return folder


def recipe_file(folder: Path, sink: Path) -> Path:
    file = sink.with_suffix(".py")
    file.write_text(RECIPE.format(folder=folder, checkpoint=CHECKPOINT, sink=sink))
    return file


def published(sink: Path) -> dict[str, bytes]:
    return {name: (sink / name).read_bytes().replace(str(sink).encode(), b"SINK") for name in PUBLISHED}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> dict[str, bytes]:
    sink = tmp_path_factory.mktemp("whole") / "model"
    assert kit.run(["finetune", recipe_file(folder, sink)]).code == 0
    return published(sink)


def test_what_a_training_publishes_is_the_same_after_kills(folder, whole, tmp_path):
    sink = tmp_path / "model"
    command = ["finetune", recipe_file(folder, sink)]
    for phase, n in (("after_step_committed", 2), ("before_exported", 1)):
        kit.killed_at(phase, n, command)
        assert not (sink / "metrics.json").exists()
    assert kit.run(command).code == 0
    found = published(sink)
    assert [name for name in PUBLISHED if found[name] != whole[name]] == []
    assert b"The mean loss of the last steps is " in found["README.md"]
