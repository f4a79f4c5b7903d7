"""Whole trainings of every objective: what comes out, resuming, evaluation, labels by the checkpoint."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file

import raysp
from raysp.engine.training.finetuning import finetune, try_out
from raysp.models.loading import load_checkpoint
from raysp.specs.objectives import Classify, Objective
from raysp.specs.recipe import Evaluation, Schedule
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table

MASKS = {"hidden_dropout": 0.1, "layerdrop": 0.2, "mask_time_prob": 0.2}
OBJECTIVES = {
    "single": (Classify, {"column": "speaker"}),
    "multi": (Classify, {"column": "tags", "problem": "multi"}),
    "regression": (Classify, {"column": "age", "problem": "regression"}),
}


@pytest.fixture(params=OBJECTIVES)
def objective(request, headless) -> Objective:
    cls, fields = OBJECTIVES[request.param]
    return cls(str(headless), masks=MASKS, **fields)


def trained(words, sink, objective, **fields):
    return a_recipe(words, Path(), sink, objective=objective, source=raysp.Shards(words, text="text"), **fields)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_its_checkpoint_loads_in_both_libraries(words, objective, tmp_path):
    finetune(trained(words, tmp_path / "once", objective))
    stopped = finetune(trained(words, tmp_path / "out", objective), should_stop=lambda: True)
    assert (stopped.steps, stopped.is_done) == (1, False)
    result = finetune(trained(words, tmp_path / "out", objective))
    assert (result.steps, result.is_done) == (6, True)
    once, found = weights(tmp_path / "once"), weights(tmp_path / "out")
    assert once.keys() == found.keys()
    assert all(torch.equal(once[name], value) for name, value in found.items())
    assert_same_logits(tmp_path / "out")


def assert_same_logits(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    theirs = getattr(transformers, type(loaded.model).__name__).from_pretrained(folder).eval()
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = theirs(wave).logits, loaded.model(wave).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_checkpoint_of_classes_labels_them(words, headless, tmp_path):
    objective = Classify(str(headless), column="speaker")
    finetune(trained(words, tmp_path / "out", objective))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- audio-classification\n" in card
    label = raysp.Label(str(tmp_path / "out"), outputs=[raysp.Classes(top_k=1)])
    sink = raysp.Parquet(str(tmp_path / "labels"))
    write_shard(tmp_path / "in" / "a.parquet", table=words_table(4))
    raysp.run(raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=[raysp.Decode(), label], sink=sink))
    table = pq.read_table(tmp_path / "labels" / "a.parquet")
    assert table.num_rows == 4
    assert {*table.column("pred_label").to_pylist()} <= {"s0", "s1", "s2"}


@pytest.mark.slow
@pytest.mark.parametrize("best", ["accuracy", "macro_f1", "loss"])
def test_the_best_weights_by_a_metric_of_classes_are_exported(words, headless, tmp_path, best):
    evaluation = Evaluation(raysp.Shards(words), every=2, best=best, by=["text"])
    seen = []

    def keep(progress):
        if progress.evaluated and progress.evaluated[0] == progress.done:
            seen.append(progress.evaluated)

    schedule = Schedule(steps=6, learning_rate=3e-3)
    objective = Classify(str(headless), column="speaker")
    recipe = trained(words, tmp_path / "out", objective, evaluation=evaluation, schedule=schedule)
    result = finetune(recipe, on_progress=keep)
    assert [done for done, _ in seen] == [2, 4, 6]
    metrics = {done: {**found.comparison.scores.metrics} for done, found in seen}
    values = {done: found.loss if best == "loss" else metrics[done][best].value for done, found in seen}
    chosen = min(values, key=values.get) if best == "loss" else max(values, key=values.get)
    assert (result.best_step, result.best) == (chosen, values[chosen])
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["best"] == {"metric": best, "value": values[chosen], "step": chosen}
    assert metrics[2].keys() == {"accuracy", "macro_f1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi", "regression"])
def test_lists_and_numbers_are_evaluated_by_their_loss(words, headless, tmp_path, name):
    cls, fields = OBJECTIVES[name]
    evaluation = Evaluation(raysp.Shards(words), every=10, best="loss")
    schedule = Schedule(steps=2, learning_rate=3e-3)
    objective = cls(str(headless), **fields)
    result = finetune(trained(words, tmp_path / "out", objective, evaluation=evaluation, schedule=schedule))
    assert result.best > 0
    assert result.best_step == 2


@pytest.mark.slow
def test_a_try_out_shows_classes(words, headless, tmp_path):
    result = try_out(trained(words, tmp_path / "out", Classify(str(headless), column="speaker")), 1)
    assert {one for pair in result.texts for one in pair} <= {"s0", "s1", "s2"}
