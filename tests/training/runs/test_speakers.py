"""Evaluation of a training of speakers: equal error rates, also of speakers that it never heard."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import Batching, Classify, Evaluation, RunError, Schedule, Speakers, SpecError, finetune
from raysp.storage.store import LocalStore
from raysp.training.finetuning import plan_recipe
from raysp.training.loop.dev_evaluation import Evaluator
from raysp.training.loop.worker import new_session
from raysp.training.sink import evaluation_records
from raysp.training.sink.tensorboard import TENSORBOARD
from raysp.training.tasks.speaker_task import SpeakersTask
from raysp.training.training_progress import evaluation_line
from tests.corpora import write_shard
from tests.here import run_without_ray
from tests.recipes import a_recipe, words_table

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


def recipe_of(words, listener, others, sink, **fields):
    evaluation = Evaluation(raysp.Shards(others), **{"every": 2, "best": "eer", "by": ["text"], **fields})
    schedule = Schedule(steps=4, learning_rate=1e-2)
    objective = Speakers(listener, column="speaker", crop_seconds=0.5)
    fields = {"objective": objective, "evaluation": evaluation, "schedule": schedule}
    batching = Batching(seconds=6, micro_batches=1, window_seconds=10)
    return a_recipe(words, Path(), sink, seed=1, batching=batching, **fields)  # whose vectors are not all the same


class Evaluated:
    """A training with its evaluations."""

    def __init__(self, recipe, sink: Path) -> None:
        self.sink = sink
        self.store = LocalStore(sink)
        self.seen = {}
        self.result = finetune(recipe, on_progress=self._keep)

    def _keep(self, progress):
        if progress.evaluated:
            self.seen[progress.evaluated[0]] = progress.evaluated[1]


@pytest.fixture(scope="module")
def trained(words, listener, others, tmp_path_factory) -> Evaluated:
    sink = tmp_path_factory.mktemp("trained") / "out"
    return Evaluated(recipe_of(words, listener, others, sink), sink)


def test_speakers_of_no_training_are_compared_in_pairs(trained):
    last = trained.seen[4]
    scores = last.comparison.scores
    assert [*scores.metrics] == ["eer", "accuracy", "f1"]
    assert scores.rows + last.failed == 20  # rows without a speaker are left out
    assert scores.counts["speakers"] == 4
    assert scores.counts["of_known_speakers"] < scores.rows
    assert scores.counts["correct"] <= scores.counts["of_known_speakers"]
    assert 0 <= scores.metrics["eer"].low <= scores.metrics["eer"].value <= scores.metrics["eer"].high <= 1
    assert {one.name for one in last.comparison.classes} <= {"s0", "s1", "s2"}
    assert {one.reference for one in last.comparison.worst} <= {"s0", "s1"}
    assert last.loss > 0  # of the rows of known speakers


def test_the_weights_with_the_lowest_rate_are_exported(trained):
    rates = {done: one.comparison.scores.metrics["eer"].value for done, one in trained.seen.items()}
    assert trained.result.best == min(rates.values())
    assert rates[trained.result.best_step] == trained.result.best
    assert {done: one.value for done, one in trained.seen.items()} == rates


def test_the_rate_is_shown_where_people_look(trained):
    value = f"{trained.result.best:.2%}"
    step, evaluated = trained.result.best_step, trained.seen[trained.result.best_step]
    line = rf"evaluation at step {step}: EER {re.escape(value)} \(.* to .*\), accuracy .*, macro F1 .*, loss \d"
    assert re.match(line, evaluation_line(step, evaluated))
    status = raysp.status(str(trained.sink))
    assert (status.best.metric, status.best.steps, status.best.estimate.value) == ("eer", step, trained.result.best)
    page = (trained.sink / ".raysp" / "report.html").read_text()
    assert ">EER<" in page
    assert f"best {value}" in page
    assert evaluation_records.load(trained.store)[step].tracked["evaluation/eer"] == trained.result.best
    events = b"".join(trained.store.read(entry.path) for entry in trained.store.list(TENSORBOARD))
    assert b"evaluation/eer_low" in events


def test_vectors_and_rate_are_those_of_the_checkpoint_that_comes_out(
    words, listener, others, trained, tmp_path, monkeypatch
):
    vectors = {}
    original = SpeakersTask.compare

    def compare(self, rows):
        vectors["evaluated"] = [one.vector for one in rows.predictions]
        return original(self, rows)

    monkeypatch.setattr(SpeakersTask, "compare", compare)
    run_without_ray(monkeypatch)
    again = Evaluated(recipe_of(words, listener, others, tmp_path / "again", every=4), tmp_path / "again")
    sink = str(tmp_path / "labels")
    found = raysp.evaluate(str(again.sink), others, speaker="speaker", sink=sink, progress=False)
    tables = [pq.read_table(tmp_path / "labels" / name) for name in ("a.parquet", "b.parquet")]
    given = np.array(NAMES * 5)
    labels = pa.concat_tables(tables).column("embedding").to_pylist()
    labelled = [one for one, name in zip(labels, given, strict=True) if name and one is not None]
    assert len(labelled) == again.seen[4].comparison.scores.rows > 10
    np.testing.assert_allclose(np.array(vectors["evaluated"]), np.array(labelled), rtol=1e-4, atol=1e-5)
    assert found.scores.metrics["eer"].value == pytest.approx(again.result.best)
    assert found.scores.counts["target_pairs"] == again.seen[4].comparison.scores.counts["target_pairs"]
    assert found.rows.without_reference == 10


class Member:
    """A worker of two, or one that is alone; `gathered` holds what each has predicted."""

    def __init__(self, gathered: dict, number: int, count: int = 2) -> None:
        self.gathered, self.number, self.count = gathered, number, count

    def gather(self, value):
        self.gathered[self.number] = value
        return [self.gathered.get(number, value) for number in range(self.count)]


def test_vectors_do_not_depend_on_the_number_of_workers_nor_on_the_batch(words, listener, others, tmp_path):
    _, prepared = plan_recipe(recipe_of(words, listener, others, tmp_path / "out"))
    run = new_session(prepared, lambda window: {}, None).evaluations.run

    def evaluated(member: Member, plan=prepared.plan):
        return Evaluator(plan, run.evaluation, run.objective, prepared.task, member)()

    once, by_two, one_by_one = {}, {}, {}
    alone = evaluated(Member(once, 0, 1))
    for number in (0, 1, 0):
        last = evaluated(Member(by_two, number))
    assert (last.value, last.comparison) == (alone.value, alone.comparison)
    assert last.loss == pytest.approx(alone.loss, rel=1e-5)
    sizes = replace(prepared.plan.sizes, micro_seconds=0.001)
    evaluated(Member(one_by_one, 0, 1), replace(prepared.plan, sizes=sizes))
    expected = vectors_of(once)
    assert len(expected) > 10
    for found in (vectors_of(by_two), vectors_of(one_by_one)):
        assert found.keys() == expected.keys()
    assert all(np.array_equal(vector, expected[place]) for place, vector in vectors_of(by_two).items())
    for place, vector in vectors_of(one_by_one).items():
        np.testing.assert_allclose(vector, expected[place], rtol=1e-4, atol=1e-5)


def vectors_of(gathered: dict) -> dict[tuple[int, int], np.ndarray]:
    return {row.place: row.prediction.vector for rows, _ in gathered.values() for row in rows}


@pytest.mark.parametrize(
    ("objective", "best", "message"),
    [
        (Classify("c", column="speaker"), "eer", "found evaluation.best='eer'; Classify has accuracy, f1, loss"),
        (raysp.CTC("c"), "eer", "found evaluation.best='eer'; CTC has wer, cer, loss"),
        (Speakers("c", column="speaker"), "wer", "found evaluation.best='wer'; Speakers has eer, accuracy, f1, loss"),
    ],
)
def test_a_metric_that_an_objective_does_not_have_is_refused(objective, best, message):
    evaluation = Evaluation(raysp.Shards("dev", text="text"), best=best)
    with pytest.raises(SpecError, match=message):
        a_recipe("in", Path(), "out", objective=objective, evaluation=evaluation)


def test_a_corpus_without_pairs_has_no_rate_and_ends_the_training(words, listener, tmp_path):
    table = words_table(6, seed=7)
    table = table.set_column(table.column_names.index("speaker"), "speaker", pa.array([f"n{row}" for row in range(6)]))
    write_shard(tmp_path / "dev" / "a.parquet", table=table)
    recipe = recipe_of(words, listener, f"{tmp_path}/dev/*.parquet", tmp_path / "out", every=4, by=[])
    with pytest.raises(RunError, match=r"step 0: the evaluation has no finite value of its metric \(eer, rows"):
        Evaluated(recipe, tmp_path / "out")
