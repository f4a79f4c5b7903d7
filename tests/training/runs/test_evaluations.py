"""Evaluation during a training: the best weights are kept and exported, other corpora are shown, patience ends it."""

import dataclasses
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, Evaluation, RunError, Schedule, ShardError, finetune
from raysp.training.loop.dev_evaluation import Evaluator
from tests import kit
from tests.corpora import wav, write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.training.trained import (
    commits_of,
    committed_file,
    evaluations_of,
    planned,
    record_of,
    recorded,
    same,
    steps_of,
    stopping_after,
    weights,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    """Nine rows with words of digits, in two shards."""
    return write_words(tmp_path_factory.mktemp("words"), 5, 4)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> str:
    return write_words(tmp_path_factory.mktemp("noisy"), 6)


def evaluated(words, tiny, sink, **fields):
    source, rate = fields.pop("source", raysp.Shards(words, text="text")), fields.pop("rate", 1e-3)
    evaluation = Evaluation(source, **{"every": 2, "by": ["speaker", "seconds"], **fields})
    schedule = Schedule(steps=5, learning_rate=rate, shape="constant", warmup=0.0)
    return a_recipe(words, tiny, sink, schedule=schedule, evaluation=evaluation, ema=0.9)


def with_others(words, tiny, sink, noisy, **fields):
    others = {"noisy": raysp.Shards(noisy, text="text"), "far-field": raysp.Shards(words, text="text")}
    return evaluated(words, tiny, sink, **{"others": others, **fields})


def dev_of(folder: Path, texts: list[str | None], *, seconds: float | None = None) -> raysp.Shards:
    """Write a corpus to evaluate on: noise of the same length, or of the usual ones."""
    table = words_table(len(texts), texts=texts)
    if seconds is not None:
        audio = [{"bytes": wav(round(16_000 * seconds), seed=row), "path": None} for row in range(len(texts))]
        table = table.set_column(table.column_names.index("audio"), "audio", pa.array(audio, table["audio"].type))
    write_shard(folder / "dev" / "0.parquet", table=table)
    return raysp.Shards(f"{folder}/dev/*.parquet", text="text")


@pytest.fixture(scope="module")
def trained(words, tiny, noisy, tmp_path_factory) -> tuple[Path, list[str]]:
    """The sink of a training with evaluations on three corpora, and the lines about them that it printed."""
    folder = tmp_path_factory.mktemp("trained")
    ran = kit.run(
        ["finetune", kit.pipeline_file(folder / "of_several.py", with_others(words, tiny, folder / "out", noisy))]
    )
    assert ran.code == 0, ran.err
    return folder / "out", [line for line in (ran.out + ran.err).splitlines() if "evaluation at step" in line]


def test_weights_are_evaluated_every_few_steps_and_the_best_are_exported(trained):
    sink, _ = trained
    found = evaluations_of(sink)
    assert [*found] == [0, 2, 4, 5]
    values = {done: one["scores"]["metrics"]["wer"]["value"] for done, one in found.items() if done}
    best = min(values, key=values.__getitem__)
    assert json.loads((sink / "metrics.json").read_text())["best"] == {
        "metric": "wer",
        "value": values[best],
        "step": best,
    }
    average = load_file(committed_file(sink, best, "ema.safetensors"))
    assert same(weights(sink), {name: average[name] for name in weights(sink)})
    assert (found[5]["scores"]["rows"], found[5].get("failed", 0)) == (9, 0)
    assert {group["value"] for group in found[5]["by"]["speaker"]} == {"s0", "s1", "s2"}
    assert [*found[5]["by"]] == ["seconds", "speaker"]
    assert found[5]["worst"][0]["shard"] in ("0.parquet", "1.parquet")


def test_each_corpus_has_its_own_scores_everywhere(trained, noisy):
    sink, lines = trained
    found = evaluations_of(sink)
    for one in found.values():
        assert [*one["others"]] == ["noisy", "far-field"]
        assert one["others"]["noisy"]["scores"]["rows"] == 6
        for of_scores in ("rows", "metrics", "counts"):
            assert one["others"]["far-field"]["scores"][of_scores] == one["scores"][of_scores]
        assert one["others"]["far-field"]["loss"] == pytest.approx(one["loss"])
        assert one["others"]["noisy"]["measure"] != one["measure"]
        assert not one["others"]["noisy"]["by"]
    assert len(lines) == 3
    assert all("; noisy: WER " in line and "; far-field: WER " in line for line in lines)
    status = raysp.status(str(sink))
    shown = dataclasses.asdict(status)["best"]["others"]
    of_best = found[status.best.steps]["others"]
    assert shown == {name: one["scores"]["metrics"]["wer"] for name, one in of_best.items()}
    assert str(status.facts["evaluation"]).count("; noisy: ") == 1
    page = (sink / ".raysp" / "report.html").read_text()
    for text in ("noisy: WER", f"Evaluation at step {status.best.steps}: noisy", "noisy: /"):
        assert text in page
    recorded = record_of(sink)["recipe"]["evaluation"]["others"]["noisy"]
    assert (recorded["url"], recorded["text"]) == (noisy, "text")


def test_a_plan_counts_the_rows_of_each_corpus_and_settings_reach_them(words, tiny, noisy, tmp_path):
    made = with_others(words, tiny, tmp_path / "out", noisy)
    assert planned(made).facts["evaluation"].endswith("best by wer; noisy: 6 rows; far-field: 9 rows")
    file = kit.pipeline_file(tmp_path / "recipe_to_set.py", made)
    ran = kit.run(["plan", file, "--set", "evaluation.others.noisy.text=sentence"])
    assert ran.code == 2
    assert re.search(r"evaluation.others.noisy.*sentence", ran.err)


def test_evaluations_change_no_weight_and_without_patience_no_fingerprint(trained, words, tiny, noisy, tmp_path):
    sink, _ = trained
    made = with_others(words, tiny, tmp_path / "out", noisy, others={})
    finetune(made)
    alone = evaluations_of(tmp_path / "out")
    assert {done: {**found, "others": {}} for done, found in evaluations_of(sink).items()} == alone
    none = dataclasses.replace(made, evaluation=None, sink=raysp.Checkpoint(str(tmp_path / "none"), every=2))
    finetune(none)
    sinks = (sink, tmp_path / "out", tmp_path / "none")
    with_it, *others = (load_file(committed_file(one, 5, "model.safetensors")) for one in sinks)
    assert all(same(with_it, other) for other in others)
    fingerprints = [planned(made)["fingerprint"], planned(none)["fingerprint"]]
    assert fingerprints[0] == fingerprints[1]
    assert planned(evaluated(words, tiny, tmp_path / "more", patience=5))["fingerprint"] != fingerprints[0]


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


def test_the_seconds_of_steps_are_without_evaluations(words, tiny, tmp_path, monkeypatch):
    evaluate, evaluations = Evaluator.__call__, []

    def slow(evaluator):
        evaluations.append(evaluator)
        return evaluate(evaluator)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * len(evaluations))
    monkeypatch.setattr(Evaluator, "__call__", slow)
    monkeypatch.setattr("raysp.training.loop.session.time", clock)
    result = finetune(evaluated(words, tiny, tmp_path / "out"))
    assert [*evaluations_of(tmp_path / "out")] == [0, 2, 4, 5]
    assert all(step["seconds"] < 1000 for step in steps_of(tmp_path / "out"))
    assert result.wall_seconds < 1000


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


@pytest.mark.parametrize("change", ["metric", "recordings"])
def test_another_measure_of_evaluations_begins_a_new_best(words, tiny, tmp_path, caplog, change):
    """The values before are lower or equal, but of something else."""
    easy = {"source": dev_of(tmp_path, ["e"] * 4, seconds=0.5), "best": "wer" if change == "metric" else "loss"}
    stopped = finetune(evaluated(words, tiny, tmp_path / "out", **easy), should_stop=stopping_after(2))
    assert stopped.best_step == 2
    fields = {"best": "loss"} if change == "metric" else {}
    if change == "recordings":
        dev_of(tmp_path, ["e"] * 4, seconds=3.0)
    changed = evaluated(words, tiny, tmp_path / "out", **{**easy, **fields})
    before = finetune(changed, should_stop=stopping_after(1))  # it ends without an evaluation
    assert (before.steps, before.best_step) == (3, 2)
    assert recorded(tmp_path / "out", "evaluation.best") == changed.evaluation.best
    assert before.best == (None if change == "metric" else stopped.best)
    result = finetune(changed)
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
    assert recorded(tmp_path / "out", "evaluation.best") == "wer"
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


def test_rows_without_a_reference_and_long_rows_are_left_out(words, tiny, tmp_path):
    source = dev_of(tmp_path, [None, "", "größe", "one", "two", "six"])
    finetune(evaluated(words, tiny, tmp_path / "out", source=source, every=100, max_seconds=0.55))
    last = evaluations_of(tmp_path / "out")[5]
    assert last["scores"]["rows"] + last["failed"] == 5
    assert last["failed"] > 0
