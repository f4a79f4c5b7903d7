"""Evaluations on several corpora: the first decides, the others are shown under their names everywhere."""

import dataclasses
import json
import re

import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import Evaluation, Schedule, finetune
from tests import kit
from tests.recipes import a_recipe, second_shard, write_words
from tests.training.trained import evaluations_of, planned, record_of


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
    folder = tmp_path_factory.mktemp("trained")
    file = kit.pipeline_file(folder / "recipe_of_several.py", recipe(words, tiny, folder / "out", noisy))
    ran = kit.run(["finetune", file])
    assert ran.code == 0, ran.err
    return folder / "out", [line for line in (ran.out + ran.err).splitlines() if "evaluation at step" in line]


@pytest.mark.slow
def test_each_corpus_has_its_own_scores_and_the_first_decides(trained):
    sink, lines = trained
    found = evaluations_of(sink)
    assert [*found] == [0, 2, 4]
    for one in found.values():
        assert [*one["others"]] == ["noisy", "far-field"]
        assert (one["scores"]["rows"], one["others"]["noisy"]["scores"]["rows"]) == (12, 6)
        assert one["others"]["far-field"]["scores"] == one["scores"]
        assert one["others"]["far-field"]["loss"] == pytest.approx(one["loss"])
        assert one["others"]["noisy"]["measure"] != one["measure"]
        assert not one["others"]["noisy"]["by"]
    best = json.loads((sink / "metrics.json").read_text())["best"]
    assert best["value"] == found[best["step"]]["scores"]["metrics"]["wer"]["value"]
    assert len(lines) == 2
    assert all("; noisy: WER " in line and "; far-field: WER " in line for line in lines)


@pytest.mark.slow
def test_they_decide_nothing(trained, words, tiny, noisy, tmp_path):
    sink, _ = trained
    finetune(recipe(words, tiny, tmp_path / "out", noisy, others={}))
    one, other = (load_file(folder / "model.safetensors") for folder in (sink, tmp_path / "out"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    alone = evaluations_of(tmp_path / "out")
    for done, found in evaluations_of(sink).items():
        assert {**found, "others": {}} == alone[done]


@pytest.mark.slow
def test_status_and_report_name_them(trained):
    sink, _ = trained
    status = raysp.status(str(sink))
    found = evaluations_of(sink)[status.best.steps]["others"]
    shown = dataclasses.asdict(status)["best"]["others"]
    assert shown == {name: one["scores"]["metrics"]["wer"] for name, one in found.items()}
    assert str(status.facts["evaluation"]).count("; noisy: ") == 1
    page = (sink / ".raysp" / "report.html").read_text()
    assert "noisy: WER" in page
    assert f"Evaluation at step {status.best.steps}: noisy" in page
    assert "noisy: /" in page


def test_a_plan_counts_their_rows(words, tiny, noisy, tmp_path):
    plan = planned(recipe(words, tiny, tmp_path / "out", noisy))
    assert plan.facts["evaluation"].endswith("best by wer; noisy: 6 rows; far-field: 12 rows")


def test_they_are_part_of_the_recorded_recipe_and_can_be_set(trained, words, tiny, noisy, tmp_path):
    made = recipe(words, tiny, tmp_path / "out", noisy)
    recorded = record_of(trained[0])["recipe"]["evaluation"]["others"]
    assert {name: (one["url"], one["text"]) for name, one in recorded.items()} == {
        "noisy": (noisy, "text"),
        "far-field": (made.evaluation.source.url, "text"),
    }
    file = kit.pipeline_file(tmp_path / "recipe_to_set.py", made)
    ran = kit.run(["plan", file, "--set", "evaluation.others.noisy.text=sentence"])
    assert ran.code == 2
    assert re.search(r"evaluation.others.noisy.*sentence", ran.err)
