"""Evaluations on several corpora: the first decides, the others are shown under their names everywhere."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import Evaluation, PlanError, Schedule, SpecError, finetune
from raysp.specs.values import from_json, override, to_json
from raysp.storage.store import LocalStore
from raysp.training.finetuning import plan_recipe
from raysp.training.reading.training_report import render
from raysp.training.reading.training_status import training_status
from raysp.training.sink import evaluation_records
from raysp.training.training_progress import evaluation_line
from tests.recipes import a_recipe, second_shard, write_words
from tests.training.sink.test_tensorboard import files, values


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> str:
    return write_words(tmp_path_factory.mktemp("noisy"), 6)


def recipe(words, tiny, sink, noisy, **fields) -> raysp.Finetune:
    dev = second_shard(words)
    others = {"noisy": raysp.Shards(noisy, text="text"), "far-field": dev}
    evaluation = Evaluation(dev, **{"every": 2, "others": others, "by": ["speaker"]})
    schedule = Schedule(steps=4, learning_rate=1e-3)
    return a_recipe(words, tiny, sink, schedule=schedule, evaluation=dataclasses.replace(evaluation, **fields))


@pytest.fixture(scope="module")
def trained(words, tiny, noisy, tmp_path_factory):
    sink, lines = tmp_path_factory.mktemp("trained") / "out", []

    def keep(progress):
        if progress.evaluated and progress.evaluated[0] == progress.done:
            lines.append(evaluation_line(*progress.evaluated))

    finetune(recipe(words, tiny, sink, noisy), on_progress=keep)
    return sink, lines


@pytest.mark.slow
def test_each_corpus_has_its_own_scores_and_the_first_decides(trained):
    sink, lines = trained
    found = evaluation_records.load(LocalStore(sink))
    assert [*found] == [0, 2, 4]
    for one in found.values():
        assert [*one.others] == ["noisy", "far-field"]
        assert (one.scores.rows, one.others["noisy"].scores.rows) == (12, 6)
        assert one.others["far-field"].scores == one.scores
        assert one.others["far-field"].loss == pytest.approx(one.loss)
        assert one.others["noisy"].measure != one.measure
        assert not one.others["noisy"].by
    best = json.loads((sink / "metrics.json").read_text())["best"]
    assert best["value"] == found[best["step"]].scores.metrics["wer"].value
    assert all("; noisy: WER " in line and "; far-field: WER " in line for line in lines)


@pytest.mark.slow
def test_they_decide_nothing(trained, words, tiny, noisy, tmp_path):
    sink, _ = trained
    finetune(recipe(words, tiny, tmp_path / "out", noisy, others={}))
    one, other = (load_file(folder / "model.safetensors") for folder in (sink, tmp_path / "out"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    alone = evaluation_records.load(LocalStore(tmp_path / "out"))
    for done, found in evaluation_records.load(LocalStore(sink)).items():
        assert dataclasses.replace(found, others={}) == alone[done]


@pytest.mark.slow
def test_status_report_and_tensorboard_name_them(trained):
    sink, _ = trained
    status = training_status(LocalStore(sink))
    found = evaluation_records.load(LocalStore(sink))[status.best.steps].others
    assert status.best.others == {name: one.scores.metrics["wer"] for name, one in found.items()}
    assert str(status.facts["evaluation"]).count("; noisy: ") == 1
    assert dataclasses.asdict(status)["best"]["others"]["noisy"]["value"] == found["noisy"].scores.metrics["wer"].value
    page = render(LocalStore(sink))
    assert "noisy: WER" in page
    assert f"Evaluation at step {status.best.steps}: noisy" in page
    assert "noisy: /" in page
    written = [value for events in files(LocalStore(sink)).values() for value in values(events)]
    names = {name for name, _ in written}
    assert {"evaluation/wer", "evaluation/noisy/wer", "evaluation/far-field/wer_low", "evaluation/noisy/loss"} <= names
    assert sorted(step for name, step in written if name == "evaluation/noisy/wer") == [0, 2, 4]


def test_a_plan_counts_their_rows_and_names_the_one_that_cannot_be_read(words, tiny, noisy, tmp_path):
    plan, _ = plan_recipe(recipe(words, tiny, tmp_path / "out", noisy))
    assert plan.facts["evaluation"].endswith("best by wer; noisy: 6 rows; far-field: 12 rows")
    gone = {"noisy": raysp.Shards(f"{tmp_path}/gone/*.parquet", text="text")}
    with pytest.raises(PlanError, match=r"^evaluation.others.noisy.url: "):
        plan_recipe(recipe(words, tiny, tmp_path / "out", noisy, others=gone))
    column = {"noisy": raysp.Shards(noisy, text="transcript")}
    with pytest.raises(PlanError, match=r"evaluation.others.noisy.*transcript"):
        plan_recipe(recipe(words, tiny, tmp_path / "out", noisy, others=column))


def test_corpora_without_texts_and_names_with_slashes_are_refused(words, tiny, noisy, tmp_path):
    with pytest.raises(SpecError, match=r"evaluation.others.noisy.text is not set; give the column"):
        recipe(words, tiny, tmp_path / "out", noisy, others={"noisy": raysp.Shards(noisy)})
    with pytest.raises(SpecError, match=r"others"):
        Evaluation(raysp.Shards(noisy), others={"a/b": raysp.Shards(noisy)})


def test_they_are_part_of_the_recipe_as_json_and_move_with_its_places(words, tiny, noisy, tmp_path):
    made = recipe(words, tiny, tmp_path / "out", noisy)
    assert from_json(to_json(made)) == made
    moved = made.with_places(lambda url: url.upper(), lambda name: name)
    assert moved.evaluation.others["noisy"].urls == [noisy.upper()] or moved.evaluation.others["noisy"].urls == (
        noisy.upper(),
    )
    assert override(made, "evaluation.others.noisy.text", "sentence").evaluation.others["noisy"].text == "sentence"
    assert [*made.sources] == ["source", "evaluation.source", "evaluation.others.noisy", "evaluation.others.far-field"]
