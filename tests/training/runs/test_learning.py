"""Trainings of real digits until all of them are recognised, by an objective of raysp and one of a user."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import finetune
from tests import kit
from tests.corpora import DEMO, write_shard
from tests.recipes import WORDS
from tests.training.checkpoints import parakeet

sys.path.insert(0, str(Path(raysp.__file__).parents[1] / "pipelines" / "transducer"))
from transducer import Transducer

pytestmark = [pytest.mark.drivers, pytest.mark.slow]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> str:
    """A shard with a recording of each digit."""
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    texts = table.column("text").to_pylist()
    file = tmp_path_factory.mktemp("digits") / "a.parquet"
    write_shard(file, table=table.take(sorted(texts.index(word) for word in WORDS)))
    return str(file)


def recipe(digits, objective, sink, *, steps: int, micro_batches: int = 1, **fields) -> raysp.Finetune:
    return raysp.Finetune(
        raysp.Shards(digits, text="text"),
        steps=[raysp.Decode()],
        objective=objective,
        schedule=raysp.Schedule(steps=steps, learning_rate=2e-3, head_rate=1.0, shape="constant"),
        batching=raysp.Batching(seconds=12, micro_batches=micro_batches),
        sink=raysp.Checkpoint(str(sink)),
        pool=raysp.Pool(1, cpus=1),
        **fields,
    )


@pytest.mark.parametrize("kind", ["CTC", "TDT"])
def test_digits_are_learnt_and_labelled_in_any_batch(digits, tmp_path, kind):
    checkpoint = str(parakeet(tmp_path / "random", kind, hidden_size=64))
    objective = Transducer(checkpoint) if kind == "TDT" else raysp.CTC(checkpoint, vocabulary="keep", blank_bias=0.0)
    evaluation = raysp.Evaluation(raysp.Shards(digits, text="text"), every=40)
    assert finetune(recipe(digits, objective, tmp_path / "out", steps=120, evaluation=evaluation)).is_done
    best = json.loads((tmp_path / "out" / "metrics.json").read_text())["best"]
    assert best == {"metric": "wer", "value": 0.0, "step": best["step"]}
    for seconds in (1, 600):
        label = raysp.Label(str(tmp_path / "out"), outputs=[raysp.Transcript()], batch_seconds=seconds)
        sink = raysp.Parquet(str(tmp_path / f"labels-{seconds}"), keep=["text"])
        pipeline = raysp.Pipeline(raysp.Shards(digits), steps=[raysp.Decode(), label], sink=sink)
        raysp.run(pipeline, engine="here", progress=False)
        rows = kit.rows(sink.url)
        assert [row["pred_text"] for row in rows] == [row["text"] for row in rows]


@pytest.mark.cluster
def test_workers_import_the_modules_of_an_objective_as_the_driver_read_them(local_ray, digits, tmp_path):
    """Their folder is on no path of the workers."""
    objective = Transducer(str(parakeet(tmp_path / "random", "TDT")))
    code = repr(recipe(digits, objective, tmp_path / "out", steps=4, micro_batches=2))
    (tmp_path / "recipe.py").write_text(f"from raysp import *\nfrom transducer import Transducer\n\nrecipe = {code}\n")
    ran = kit.run(["finetune", tmp_path / "recipe.py", "--set", "pool.actors=2", "--json"], RAYSP_ENGINE="ray")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["steps"] == 4
