"""Evaluation of a training of speakers: equal error rates, also of speakers that it never heard."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import Batching, Evaluation, Schedule, Speakers
from tests import kit
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table
from tests.training.trained import evaluations_of

pytestmark = pytest.mark.slow

NAMES = ["s0", "s1", "new", "other", None, ""]


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> str:
    """Thirty rows: ten of speakers of the training, ten of two other ones, ten of none."""
    table = words_table(30, seed=7)
    table = table.set_column(table.column_names.index("speaker"), "speaker", pa.array(NAMES * 5, pa.string()))
    folder = tmp_path_factory.mktemp("others")
    write_shard(folder / "a.parquet", table=table.slice(0, 20), row_group_size=5)
    write_shard(folder / "b.parquet", table=table.slice(20), row_group_size=5)
    return f"{folder}/*.parquet"


def recipe_of(words, listener, others, sink):
    evaluation = Evaluation(raysp.Shards(others), every=2, best="eer", by=["text"])
    schedule = Schedule(steps=4, learning_rate=1e-2)
    objective = Speakers(listener, column="speaker", crop_seconds=0.5)
    fields = {"objective": objective, "evaluation": evaluation, "schedule": schedule}
    batching = Batching(seconds=6, micro_batches=1, window_seconds=10)
    return a_recipe(words, Path(), sink, seed=1, batching=batching, **fields)  # whose vectors are not all the same


def test_speakers_of_no_training_are_compared_in_pairs_and_the_weights_with_the_lowest_rate_are_exported(
    words, listener, others, tmp_path
):
    sink = tmp_path / "out"
    file = kit.pipeline_file(tmp_path / "recipe_of_speakers.py", recipe_of(words, listener, others, sink))
    ran = kit.run(["finetune", file])
    assert ran.code == 0, ran.err
    last = evaluations_of(sink)[4]
    scores = last["scores"]
    counts, eer = scores["counts"], scores["metrics"]["eer"]
    assert [*scores["metrics"]] == ["eer", "accuracy", "f1"]
    assert 10 < scores["rows"] <= 20  # rows without a speaker are left out
    assert counts["speakers"] == 4
    assert counts["correct"] <= counts["of_known_speakers"] < scores["rows"]
    assert 0 <= eer["low"] <= eer["value"] <= eer["high"] <= 1
    assert {one["name"] for one in last["classes"]} <= {"s0", "s1", "s2"}
    assert {one["reference"] for one in last["worst"]} <= {"s0", "s1"}
    assert last["loss"] > 0  # of the rows of known speakers
    rates = {done: one["scores"]["metrics"]["eer"]["value"] for done, one in evaluations_of(sink).items() if done}
    best = json.loads((sink / "metrics.json").read_text())["best"]
    assert [*rates] == [2, 4]
    assert best == {"metric": "eer", "value": min(rates.values()), "step": min(rates, key=rates.__getitem__)}
    value, step = f"{best['value']:.2%}", best["step"]
    line = rf"raysp: evaluation at step {step}: EER {re.escape(value)} \(.* to .*\), accuracy .*, macro F1 .*, loss \d"
    assert any(re.match(line, one) for one in (ran.out + ran.err).splitlines())
    status = raysp.status(str(sink))
    assert (status.best.metric, status.best.steps, status.best.estimate.value) == ("eer", step, best["value"])
    page = (sink / ".raysp" / "report.html").read_text()
    assert ">EER<" in page
    assert f"best {value}" in page
