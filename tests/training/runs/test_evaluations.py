"""Evaluation during a training: the best weights are kept and exported, patience ends it."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, Evaluation, RunError, Schedule, ShardError, finetune
from tests.corpora import wav, write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.training.trained import commits_of, committed_file, evaluations_of, planned, stopping_after

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    """Nine rows with words of digits, in two shards: each evaluation recognises all of them."""
    return write_words(tmp_path_factory.mktemp("words"), 5, 4)


def evaluated(words, tiny, sink, **fields):
    source, rate = fields.pop("source", raysp.Shards(words, text="text")), fields.pop("rate", 1e-3)
    ema = {"ema": fields.pop("ema", None)}
    evaluation = Evaluation(source, **{"every": 2, "by": ["speaker", "seconds"], **fields})
    schedule = Schedule(steps=5, learning_rate=rate, shape="constant", warmup=0.0)
    return a_recipe(words, tiny, sink, schedule=schedule, evaluation=evaluation, **ema)


def dev_of(folder: Path, texts: list[str | None], *, seconds: float | None = None) -> raysp.Shards:
    """Write a corpus to evaluate on: noise of the same length, or of the usual ones."""
    table = words_table(len(texts), texts=texts)
    if seconds is not None:
        audio = [{"bytes": wav(round(16_000 * seconds), seed=row), "path": None} for row in range(len(texts))]
        table = table.set_column(table.column_names.index("audio"), "audio", pa.array(audio, table["audio"].type))
    write_shard(folder / "dev" / "0.parquet", table=table)
    return raysp.Shards(f"{folder}/dev/*.parquet", text="text")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("rate", [1e-3, 0.1])
def test_weights_are_evaluated_every_few_steps_and_the_best_are_exported(words, tiny, tmp_path, rate):
    """At the high rate the loss rises in the end."""
    sink = tmp_path / "out"
    result = finetune(evaluated(words, tiny, sink, best="loss", rate=rate))
    found = evaluations_of(sink)
    assert [*found] == [0, 2, 4, 5]
    losses = {done: one["loss"] for done, one in found.items() if done}
    best = min(losses, key=losses.__getitem__)
    assert (best == 5) == (rate == 1e-3)
    assert (result.best_step, result.best, result.steps) == (best, losses[best], 5)
    assert f"at step {best}, whose weights the checkpoint has; " in result.facts[-1][1]
    assert same(weights(committed_file(sink, best, "model.safetensors")), weights(sink / "model.safetensors"))
    figures = json.loads((sink / "metrics.json").read_text())
    assert figures["best"] == {"metric": "loss", "value": losses[best], "step": best}
    assert (found[5]["scores"]["rows"], found[5].get("failed", 0)) == (9, 0)
    assert {group["value"] for group in found[5]["by"]["speaker"]} == {"s0", "s1", "s2"}
    assert [*found[5]["by"]] == ["seconds", "speaker"]
    assert found[5]["worst"][0]["shard"] in ("0.parquet", "1.parquet")


@pytest.mark.parametrize(("texts", "best"), [(["one"], "loss"), ([" "], "wer")])
def test_an_evaluation_without_a_value_ends_the_training_each_time_and_exports_nothing(
    words, tiny, tmp_path, texts, best
):
    source = dev_of(tmp_path, 3 * texts)
    if best == "loss":
        table = words_table(3)
        junk = pa.array([{"bytes": b"junk", "path": None}] * 3, table["audio"].type)
        write_shard(tmp_path / "dev" / "0.parquet", table=table.set_column(1, "audio", junk))
    recipe = evaluated(words, tiny, tmp_path / "out", source=source, every=1, best=best)
    for _ in range(2):
        with pytest.raises(RunError, match=r"step 0: the evaluation has no finite value .* check evaluation\.source"):
            finetune(recipe)
    assert commits_of(tmp_path / "out") == {}
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_failed_evaluation_is_made_again(words, tiny, tmp_path):
    source, file = dev_of(tmp_path, ["one", "two"]), tmp_path / "dev" / "0.parquet"
    recipe = evaluated(words, tiny, tmp_path / "out", source=source, every=5)

    def loses(progress):
        if progress.done == 2:
            file.rename(tmp_path / "away")

    with pytest.raises(ShardError, match=r"dev/0\.parquet: cannot read it"):
        finetune(recipe, on_progress=loses)
    (tmp_path / "away").rename(file)
    assert finetune(recipe).best_step == 5


@pytest.mark.parametrize("change", ["metric", "normalisation", "rows", "recordings"])
def test_another_measure_of_evaluations_begins_a_new_best(words, tiny, tmp_path, caplog, change):
    """The values before are lower or equal, but of something else."""
    easy = {"source": dev_of(tmp_path, ["e"] * 4, seconds=0.5), "best": "wer" if change == "metric" else "loss"}
    if change == "normalisation":
        easy["best"] = "wer"
    stopped = finetune(evaluated(words, tiny, tmp_path / "out", **easy), should_stop=stopping_after(3))
    assert stopped.best_step == 2
    fields = {"metric": {"best": "loss"}, "normalisation": {"normalise": "none"}}.get(change, {})
    if change in ("rows", "recordings"):
        dev_of(tmp_path, ["e"] * (5 if change == "rows" else 4), seconds=3.0)
    result = finetune(evaluated(words, tiny, tmp_path / "out", **{**easy, **fields}))
    assert result.best_step in (4, 5)
    assert result.best >= stopped.best
    assert "evaluations are measured otherwise than before" in caplog.text
    assert raysp.status(str(tmp_path / "out")).best.steps in (4, 5)


def test_an_evaluation_that_has_chosen_weights_cannot_be_taken_away_or_changed_at_the_end(words, tiny, tmp_path):
    recipe = evaluated(words, tiny, tmp_path / "out")
    finetune(recipe, should_stop=stopping_after(3))
    with pytest.raises(ChangedError, match=r"step \d is the best by an evaluation that the recipe does not have: wer"):
        finetune(dataclasses.replace(recipe, evaluation=None))
    finetune(recipe)
    with pytest.raises(ChangedError, match="found in the recipe: loss"):
        finetune(evaluated(words, tiny, tmp_path / "out", best="loss"))
    assert finetune(recipe).metric == "wer"


def test_patience_ends_the_training_also_after_a_stop(words, tiny, tmp_path):
    """The word error rate of weights that have learnt nothing stays as it is."""
    source = dev_of(tmp_path, ["q"] * 4, seconds=0.5)
    recipe = evaluated(words, tiny, tmp_path / "out", source=source, every=1, patience=2, rate=1e-9)
    stopped = finetune(recipe, should_stop=lambda: True)
    assert (stopped.steps, stopped.is_done) == (1, False)
    result = finetune(recipe)
    assert (result.steps, result.is_done, result.best_step) == (3, True, 1)
    assert [*evaluations_of(tmp_path / "out")] == [0, 1, 2, 3]
    assert finetune(recipe).steps == 3
    status = raysp.status(str(tmp_path / "out"))
    assert (status.has_given_up, status.is_complete, status.share < 1) == (True, True, True)


def test_an_evaluation_without_patience_changes_no_weight_and_no_fingerprint(words, tiny, tmp_path):
    with_it = finetune(evaluated(words, tiny, tmp_path / "with", best="loss"))
    without = finetune(dataclasses.replace(evaluated(words, tiny, tmp_path / "without"), evaluation=None))
    assert with_it.fingerprint == without.fingerprint
    assert planned(evaluated(words, tiny, tmp_path / "more", patience=5))["fingerprint"] != without.fingerprint
    one, other = (weights(committed_file(tmp_path / name, 5, "model.safetensors")) for name in ("with", "without"))
    assert same(one, other)


def test_rows_without_a_reference_and_long_rows_are_left_out(words, tiny, tmp_path):
    source = dev_of(tmp_path, [None, "", "größe", "one", "two", "six"])
    finetune(evaluated(words, tiny, tmp_path / "out", source=source, every=100, max_seconds=0.55))
    last = evaluations_of(tmp_path / "out")[5]
    assert last["scores"]["rows"] + last["failed"] == 5
    assert last["failed"] > 0


def test_the_moving_average_is_evaluated_and_exported_also_after_a_stop(words, tiny, tmp_path):
    recipe, sink = evaluated(words, tiny, tmp_path / "out", every=3, ema=0.9), tmp_path / "out"
    finetune(evaluated(words, tiny, tmp_path / "once", every=3, ema=0.9))
    assert finetune(recipe, should_stop=lambda: True).steps == 1
    result = finetune(recipe)
    assert (result.steps, [*evaluations_of(sink)]) == (5, [0, 3, 5])
    average, last = (
        weights(committed_file(sink, result.best_step, f"{name}.safetensors")) for name in ("ema", "model")
    )
    found = weights(sink / "model.safetensors")
    assert same(found, average)
    assert same(found, weights(tmp_path / "once" / "model.safetensors"))
    assert not same(found, last)
