"""Evaluation during a training: the best weights are kept and exported, patience ends it, workers agree."""

import dataclasses
import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, Evaluation, PlanError, RunError, Schedule, StoreError, finetune
from raysp.evaluation.recognition import compare_texts
from raysp.evaluation.scores import Estimate
from raysp.storage.store import LocalStore
from raysp.training.loop import dev_evaluation
from raysp.training.loop.best_evaluation import comparable
from raysp.training.loop.dev_evaluation import Evaluator
from raysp.training.sink import committed_steps
from raysp.training.sink.step_log import Steps
from tests.corpora import wav, write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.soaked import some
from tests.training.criteria import planned_training
from tests.training.runs.test_speakers import others, recipe_of
from tests.training.teams import Member, Team

__all__ = ["others"]  # a fixture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    """Nine rows with words of digits, in two shards: each evaluation recognises all of them."""
    return write_words(tmp_path_factory.mktemp("words"), 5, 4)


def evaluated(words, tiny, sink, **fields):
    source = fields.pop("source", raysp.Shards(words, text="text"))
    evaluation = Evaluation(source, **{"every": 2, "by": ["speaker", "seconds"], **fields})
    return a_recipe(words, tiny, sink, schedule=Schedule(steps=5, learning_rate=1e-3), evaluation=evaluation)


@pytest.fixture
def values(monkeypatch):
    """Values of the evaluations in place of those that they have."""
    given: list[float] = []
    original = Evaluator.__call__

    def replaced(self):
        found = original(self)
        if not given:
            return found
        estimate = Estimate(given.pop(0))
        if found.metric == "loss":
            return dataclasses.replace(found, loss=estimate.value)
        metrics = {**found.scores.metrics, found.metric: estimate}
        return dataclasses.replace(found, scores=dataclasses.replace(found.scores, metrics=metrics))

    monkeypatch.setattr(Evaluator, "__call__", replaced)
    return given


def run(recipe, **options):
    seen = []

    def keep(progress):
        if evaluation := progress.last[-1].evaluation:
            seen.append((progress.done, evaluation))

    return finetune(recipe, on_progress=keep, **options), seen


def test_weights_are_evaluated_every_few_steps_and_at_the_end(words, tiny, tmp_path):
    result, seen = run(evaluated(words, tiny, tmp_path / "out"))
    assert [done for done, _ in seen] == [2, 4, 5]
    _, last = seen[-1]
    assert last.scores.rows == 9
    assert {group.value for group in last.by["speaker"]} == {"s0", "s1", "s2"}
    assert [*last.by] == ["seconds", "speaker"]
    assert last.loss > 0
    assert last.failed == 0
    assert last.worst[0].id.startswith(("0.parquet:", "1.parquet:"))
    saved = Steps(LocalStore(tmp_path / "out")).evaluations
    assert [*saved] == [0, 2, 4, 5]
    assert saved[5] == last
    assert result.is_done


def test_the_weights_of_the_best_evaluation_are_exported(words, tiny, tmp_path, values):
    values[:] = [0.9, 0.7, 0.4, 0.5]
    result, _ = run(evaluated(words, tiny, tmp_path / "out"))
    assert (result.best, result.best_step, result.steps) == (0.4, 4, 5)
    assert result.facts[-1] == (
        "best",
        "WER 40.00% at step 4, whose weights the checkpoint has; 90.00% before the training",
    )
    store = LocalStore(tmp_path / "out")
    with committed_steps.local_file(store, committed_steps.load(store, 4), "model.safetensors") as file:
        best = load_file(file)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in best.items())
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["best"] == {
        "metric": "wer",
        "value": 0.4,
        "step": 4,
    }


@pytest.mark.parametrize(
    ("table", "best"),
    [
        ({"texts": ["one"], "audio": b"junk"}, "wer"),
        ({"texts": ["one"], "audio": b"junk"}, "loss"),
        ({"texts": [" "]}, "wer"),
    ],
)
def test_an_evaluation_without_a_value_ends_the_training_each_time_and_exports_nothing(
    words, tiny, tmp_path, table, best
):
    rows = words_table(3, texts=3 * table["texts"])
    if "audio" in table:
        recordings = pa.array([{"bytes": table["audio"], "path": None}] * 3, rows["audio"].type)
        rows = rows.set_column(rows.column_names.index("audio"), "audio", recordings)
    write_shard(tmp_path / "dev" / "0.parquet", table=rows)
    source = raysp.Shards(f"{tmp_path}/dev/*.parquet", text="text")
    recipe = evaluated(words, tiny, tmp_path / "out", source=source, every=1, best=best)
    for _ in range(2):
        with pytest.raises(RunError, match=r"step 0: the evaluation has no finite value .* check evaluation\.source"):
            finetune(recipe)
    assert committed_steps.latest(LocalStore(tmp_path / "out")) is None
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_not_a_finite_number_is_none(value):
    assert comparable("wer", value) is None
    assert comparable("f1", value) is None


def test_a_failed_evaluation_is_made_again(words, tiny, tmp_path, values, monkeypatch):
    recipe = evaluated(words, tiny, tmp_path / "out", every=5)

    def fails(self):
        raise StoreError("the dev set is away")

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "_own", fails)
        with pytest.raises(RunError, match="the dev set is away"):
            finetune(recipe)
    assert run(recipe)[0].best_step == 5


def stopped(recipe, number):
    """Train for a few steps."""
    asked = iter(range(1, 100))
    return run(recipe, should_stop=lambda: next(asked) >= number)


@pytest.mark.parametrize("change", ["metric", "normalisation", "rows", "recordings"])
def test_another_measure_of_evaluations_begins_a_new_best(words, tiny, tmp_path, values, caplog, change):
    """The value before is lower, but of something else."""
    values[:] = [0.9, 0.1, 0.7, 0.6]
    dev = write_words(tmp_path / "dev", 6)
    source = raysp.Shards(dev, text="text")
    recipe = evaluated(words, tiny, tmp_path / "out", source=source)
    assert stopped(recipe, 3)[0].best_step == 2
    fields = {"metric": {"best": "loss"}, "normalisation": {"normalise": "none"}}.get(change, {})
    if change == "rows":
        write_words(tmp_path / "dev", 7)
    if change == "recordings":
        table = pq.read_table(tmp_path / "dev" / "0.parquet")
        noise = [{"bytes": wav(8000, seed=100 + i), "path": None} for i in range(table.num_rows)]
        table = table.set_column(table.column_names.index("audio"), "audio", pa.array(noise, table["audio"].type))
        write_shard(tmp_path / "dev" / "0.parquet", table=table)
    result, _ = run(evaluated(words, tiny, tmp_path / "out", **{"source": source, **fields}))
    assert (result.best, result.best_step) == (0.6, 5)
    assert "evaluations are measured otherwise than before" in caplog.text
    assert raysp.status(str(tmp_path / "out")).best.steps in (4, 5)


def test_the_same_rows_in_a_touched_file_are_the_same_measure(words, tiny, tmp_path, values, caplog):
    values[:] = [0.9, 0.1, 0.7, 0.6]
    source = raysp.Shards(write_words(tmp_path / "dev", 6), text="text")
    recipe = evaluated(words, tiny, tmp_path / "out", source=source)
    stopped(recipe, 3)
    (tmp_path / "dev" / "0.parquet").touch()
    assert run(recipe)[0].best_step == 2
    assert "measured otherwise" not in caplog.text


@pytest.mark.parametrize("until", [3, 5])
def test_an_evaluation_that_has_chosen_weights_cannot_be_taken_away(words, tiny, tmp_path, until):
    recipe = evaluated(words, tiny, tmp_path / "out")
    stopped(recipe, until)
    with pytest.raises(ChangedError, match=r"step \d is the best by an evaluation that the recipe does not have: wer"):
        finetune(dataclasses.replace(recipe, evaluation=None))


def test_weights_of_a_finished_training_are_not_chosen_by_another_metric(words, tiny, tmp_path):
    recipe = evaluated(words, tiny, tmp_path / "out")
    finetune(recipe)
    with pytest.raises(ChangedError, match="found in the recipe: loss"):
        finetune(evaluated(words, tiny, tmp_path / "out", best="loss"))
    assert finetune(recipe).metric == "wer"


def test_patience_ends_the_training_also_after_a_stop(words, tiny, tmp_path, values):
    values[:] = [0.9, 0.4, 0.5, 0.6]
    recipe = evaluated(words, tiny, tmp_path / "out", every=1, patience=2)
    stopped, _ = run(recipe, should_stop=lambda: True)
    assert (stopped.steps, stopped.is_done) == (1, False)
    result, seen = run(recipe)
    assert (result.steps, result.is_done, result.best_step) == (3, True, 1)
    assert [done for done, _ in seen] == [2, 3]
    assert run(recipe)[0].steps == 3


def test_an_evaluation_without_patience_changes_no_weight_and_no_fingerprint(words, tiny, tmp_path):
    with_it = finetune(evaluated(words, tiny, tmp_path / "with", best="loss"))
    without = finetune(dataclasses.replace(evaluated(words, tiny, tmp_path / "without"), evaluation=None))
    assert with_it.fingerprint == without.fingerprint
    _, patient = planned_training(evaluated(words, tiny, tmp_path / "more", patience=5))
    assert patient.fingerprint != without.fingerprint
    stores = [LocalStore(tmp_path / name) for name in ("with", "without")]
    weights = []
    for store in stores:
        with committed_steps.local_file(store, committed_steps.load(store, 5), "model.safetensors") as file:
            weights.append(load_file(file))
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_rows_without_a_reference_and_long_rows_are_left_out(tiny, tmp_path):
    url = write_words(tmp_path / "in", 12)
    texts = [None, "", "größe", "one", "two", "six"]
    write_shard(tmp_path / "dev" / "a.parquet", table=words_table(6, texts=texts))
    recipe = evaluated(url, tiny, tmp_path / "out")
    evaluation = Evaluation(raysp.Shards(f"{tmp_path}/dev/*.parquet", text="text"), every=100, max_seconds=0.55)
    _, seen = run(dataclasses.replace(recipe, evaluation=evaluation))
    _, last = seen[-1]
    assert last.scores.rows + last.failed == 5
    assert last.failed > 0


@pytest.mark.parametrize("evaluates", some([False, True], True))
def test_the_moving_average_is_evaluated_and_exported(words, tiny, tmp_path, evaluates):
    recipe = dataclasses.replace(evaluated(words, tiny, tmp_path / "out", every=3), ema=0.9)
    recipe = recipe if evaluates else dataclasses.replace(recipe, evaluation=None)
    stopped, _ = run(recipe, should_stop=lambda: True)
    result, seen = run(recipe)
    assert (stopped.steps, result.steps, len(seen)) == (1, 5, 2 if evaluates else 0)
    store = LocalStore(tmp_path / "out")
    done = result.best_step or 5
    with committed_steps.local_file(store, committed_steps.load(store, done), "ema.safetensors") as file:
        average = load_file(file)
    with committed_steps.local_file(store, committed_steps.load(store, done), "model.safetensors") as file:
        last = load_file(file)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(value, average[name]) for name, value in found.items())
    assert any(not torch.equal(value, last[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        ("none/*.parquet", {}, "evaluation.source.url: .*none"),
        ("in/*.parquet", {"by": ["gender"]}, "column 'gender'"),
        ("in/*.parquet", {"text": "sentence"}, "column 'sentence'"),
        ("in/*.parquet", {"max_seconds": 0.01}, r"max_seconds=0\.01: rows of that length are too short for the model"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_any_step(tiny, tmp_path, source, fields, message):
    url = write_words(tmp_path / "in", 12)
    text = fields.pop("text", "text") if "text" in fields else "text"
    evaluation = Evaluation(raysp.Shards(f"{tmp_path}/{source}", text=text), **fields)
    recipe = dataclasses.replace(evaluated(url, tiny, tmp_path / "out"), evaluation=evaluation)
    with pytest.raises(PlanError, match=message):
        finetune(recipe)


@pytest.mark.parametrize(("pieces", "num_workers"), [(1, 3), (9, 2)], ids=["of parts of pieces", "of whole pieces"])
def test_texts_do_not_depend_on_the_number_of_workers(words, tiny, tmp_path, monkeypatch, pieces, num_workers):
    """Each recognises some of the rows, they meet after every pass, and all know the metrics of all."""
    from raysp.training.loop.worker import new_session

    evaluated_on = raysp.Shards(write_words(tmp_path / "in", *[30 // pieces] * pieces), text="text")
    recipe = evaluated(words, tiny, tmp_path / "out")
    recipe = dataclasses.replace(recipe, evaluation=dataclasses.replace(recipe.evaluation, source=evaluated_on))
    _, prepared = planned_training(recipe)
    whole = new_session(prepared, lambda window: {}, None).evaluator
    monkeypatch.setattr(dev_evaluation, "MEETING_SECONDS", 0.0)
    monkeypatch.setattr(dev_evaluation, "SLICE_ROWS", 4)
    team, found = Team(num_workers), {}

    def work(number: int) -> None:
        with team.turn:
            member = Member(team, number)
            found[number] = Evaluator(prepared.plan, whole.evaluation, whole.criterion, member)()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(num_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = whole()
    assert found[0] == alone
    assert {one.estimate.value for one in found.values()} == {alone.estimate.value}
    assert {one.loss for one in found.values()} == {alone.loss}  # to the last bit


def test_an_evaluation_compares_by_the_case_rules_of_the_texts(words, tiny, tmp_path):
    recipe = evaluated(words, tiny, tmp_path / "out")
    turkish = raysp.Text("lower", keep="letters", language="tr")
    recipe = dataclasses.replace(recipe, objective=dataclasses.replace(recipe.objective, text=turkish))
    plan, prepared = planned_training(recipe)
    assert prepared is not None
    evaluation = plan.recipe.evaluation
    assert evaluation is not None
    assert evaluation.normalise == "letters-tr"
    found = compare_texts(["İSPARTA IĞDIR"], ["isparta ığdır"], normalise=evaluation.normalise)
    assert found.scores.metrics["cer"].value == 0


class Recorder:
    """A worker of two, or one that is alone; `gathered` holds what each has predicted."""

    def __init__(self, gathered: dict, number: int, count: int = 2) -> None:
        self.gathered, self.number, self.count = gathered, number, count

    def gather(self, value):
        self.gathered[self.number] = value
        return [self.gathered.get(number, value) for number in range(self.count)]


def test_vectors_do_not_depend_on_the_number_of_workers_nor_on_the_batch(listener, others, tmp_path):
    words = write_words(tmp_path / "words", 18, 12)
    from raysp.training.loop.worker import new_session

    _, prepared = planned_training(recipe_of(words, listener, others, tmp_path / "out"))
    run = new_session(prepared, lambda window: {}, None).evaluator

    def evaluated(member: Recorder, plan=prepared.plan):
        return Evaluator(plan, run.evaluation, run.criterion, member)()

    once, by_two, one_by_one = {}, {}, {}
    alone = evaluated(Recorder(once, 0, 1))
    for number in (0, 1, 0):
        last = evaluated(Recorder(by_two, number))
    assert dataclasses.replace(last, loss=alone.loss) == alone
    assert last.loss == pytest.approx(alone.loss, rel=1e-5)
    recipe = dataclasses.replace(prepared.plan.recipe, batching=raysp.Batching(seconds=0.001, micro_batches=1))
    evaluated(Recorder(one_by_one, 0, 1), dataclasses.replace(prepared.plan, recipe=recipe))
    expected = vectors_of(once)
    assert len(expected) > 10
    for found in (vectors_of(by_two), vectors_of(one_by_one)):
        assert found.keys() == expected.keys()
    assert all(np.array_equal(vector, expected[place]) for place, vector in vectors_of(by_two).items())
    for place, vector in vectors_of(one_by_one).items():
        np.testing.assert_allclose(vector, expected[place], rtol=1e-4, atol=1e-5)


def vectors_of(gathered: dict) -> dict[tuple[int, int], np.ndarray]:
    return {row.place: row.vector for rows, _ in gathered.values() for row in rows}
