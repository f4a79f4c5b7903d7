"""A training that is killed and continues publishes the files of one that nothing disturbed."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from tests import kit
from tests.corpora import CHECKPOINT, damaged, digits_table, write_shard
from tests.soaked import soaked

PUBLISHED = ("README.md", "config.json", "metrics.json", "model.safetensors", "vocab.json")
RECIPE = """
import raysp

recipe = raysp.Finetune(
    raysp.Shards("{folder}/train/*.parquet", text="text"),
    steps=[raysp.Decode(), raysp.Keep(max_seconds=0.6)],
    objective=raysp.CTC("{checkpoint}", text=raysp.Text("upper")),
    schedule=raysp.Schedule(steps={steps}, learning_rate=1e-3),
    batching=raysp.Batching(seconds=3, micro_batches=2),
    evaluation=raysp.Evaluation(raysp.Shards("{dev}", text="text"), every={evaluated}, best="loss"),
    sink=raysp.Checkpoint("{sink}", every={every}, storage_options={options}),
    pool=raysp.Pool(1, cpus=1),
    ema=0.9,
    name="digits",
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two shards of digits with rows that are left out for four reasons, and one for evaluation."""
    folder = tmp_path_factory.mktemp("digits")
    rows = damaged(digits_table(22).select(["id", "audio", "text"]), 7)
    texts = rows.column("text").to_pylist()
    texts[3], texts[10], texts[11] = "?", "", "#"
    rows = rows.set_column(2, "text", pa.array(texts))
    for name, first, end in (("train/a", 0, 10), ("train/b", 10, 20), ("dev/c", 20, 22)):
        write_shard(folder / f"{name}.parquet", table=rows.slice(first, end - first))
    return folder


def write_recipe(file: Path, folder: Path, sink: object, **changes: object) -> Path:
    values = {"steps": 6, "every": 2, "evaluated": 2, "dev": folder / "dev" / "*.parquet", "options": "{}", **changes}
    file.write_text(RECIPE.format(folder=folder, checkpoint=CHECKPOINT, sink=sink, **values))
    return file


def published(sink: object, options: dict[str, object] | None = None) -> dict[str, bytes]:
    """Return the files of a checkpoint, with a word for the place of the sink."""
    files, root = fsspec.core.url_to_fs(str(sink), **(options or {}))
    files.invalidate_cache()
    return {name: files.cat_file(f"{root}/{name}").replace(str(sink).encode(), b"SINK") for name in PUBLISHED}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> dict[str, bytes]:
    sink = tmp_path_factory.mktemp("whole") / "model"
    assert kit.run(["finetune", write_recipe(sink.with_suffix(".py"), folder, sink)]).code == 0
    return published(sink)


@pytest.mark.drivers
def test_what_a_training_publishes_is_the_same_after_kills(folder, whole, tmp_path):
    sink = tmp_path / "model"
    command = ["finetune", write_recipe(tmp_path / "model.py", folder, sink)]
    for phase, n in (("after_step_committed", 2), ("before_exported", 1)):
        kit.killed_at(phase, n, command)
        assert not (sink / "metrics.json").exists()
    assert kit.run(command).code == 0
    found = published(sink)
    assert [name for name in PUBLISHED if found[name] != whole[name]] == []
    assert b"The mean loss of the last steps is " in found["README.md"]


# A sink that fails ---------------------------------------------------------------------------------------------------


PARTS_OF_A_SINK = (".raysp/index", ".raysp/log", ".raysp/steps", "the checkpoint")


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory) -> tuple[list[object], list[str], dict[str, bytes]]:
    """The command that trains to `memory://out`, the paths of its changes in order, and what it publishes."""
    file = write_recipe(tmp_path_factory.mktemp("memory") / "recipe.py", folder, "memory://out")
    line = ["finetune", file, "--engine", "here"]
    with kit.failing_files() as files:
        assert kit.run(line).code == 0
        return line, [*files.changed], published("memory://out")


@pytest.mark.parametrize("part", [*PARTS_OF_A_SINK[2:], *soaked([*PARTS_OF_A_SINK[:2], "the rest"])])
@pytest.mark.parametrize("how", ["death", *soaked(["lost", "error", "full"])])
def test_a_training_whose_sink_fails_at_a_change_is_completed_by_the_same_command(
    undisturbed, monkeypatch, request, part, how
):
    """At the last change of two parts of the sink; `make soak` at each change of each part."""
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", "1")
    line, changed, expected = undisturbed
    changes = [n for n, path in enumerate(changed, 1) if part_of(path) == part]
    assert changes
    for n in changes[-1:] if "not soak" in request.config.option.markexpr else changes:
        with kit.failing_files() as files:
            files.fail_at(n, how)
            first = kit.run(line)
            files.revive()
            again = kit.run(line)
            assert again.code == 0, (n, first.err, again.err)
            found = published("memory://out")
        assert [name for name in PUBLISHED if found[name] != expected[name]] == [], (n, first.err)


def part_of(path: str) -> str:
    inside = path.removeprefix("/out/")
    if not inside.startswith(".raysp/"):
        return "the checkpoint"
    return next((part for part in PARTS_OF_A_SINK if inside.startswith(part)), "the rest")
