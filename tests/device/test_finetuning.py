"""Trainings in this process on the stand-in device: commits, evaluations and the checkpoint, as on the CPU."""

import pytest
import torch

import raysp
from raysp import Evaluation, finetune
from raysp.models import AutoModelForCTC
from tests.device.stand_in import NAME
from tests.recipes import a_recipe, tiny_checkpoint, write_words

DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
STILL = dict.fromkeys([*DROPOUTS, "layerdrop"], 0.0)
"""Without random numbers of the device, of which a GPU has others than a CPU."""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("words"), 24)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def recipe(words, checkpoint, sink, device=NAME, **fields):
    objective = {"masks": STILL}
    evaluation = Evaluation(raysp.Shards(words, text="text"), every=2)
    return a_recipe(
        words, checkpoint, sink, objective=objective, evaluation=evaluation, device=device, dtype="float32", **fields
    )


def assert_same_weights(folder, other):
    found, expected = (AutoModelForCTC.from_pretrained(one).state_dict() for one in (folder, other))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_training_has_the_course_of_the_cpu_and_goes_on_there_once_it_was_stopped(words, checkpoint, tmp_path):
    expected = finetune(recipe(words, checkpoint, tmp_path / "cpu", "cpu"))
    found = finetune(recipe(words, checkpoint, tmp_path / "sink"))
    assert (found.steps, found.is_done, found.best_step) == (4, True, expected.best_step)
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    assert found.best == pytest.approx(expected.best, rel=1e-3)
    assert_same_weights(tmp_path / "sink", tmp_path / "cpu")
    asked = iter([False, False, True])
    stopped = finetune(recipe(words, checkpoint, tmp_path / "both"), should_stop=lambda: next(asked))
    assert (stopped.steps, stopped.is_done) == (3, False)
    assert finetune(recipe(words, checkpoint, tmp_path / "both", "cpu")).is_done
    assert_same_weights(tmp_path / "both", tmp_path / "cpu")
