"""Trainings on the stand-in device: the course, evaluations and weights of the CPU, and one wait of the host a step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import raysp
from raysp import CTC, Checkpoint, Classify, Evaluation, Schedule, Seq2Seq, Speakers, Text, finetune
from raysp.models import AutoModel, AutoModelForCTC
from tests.device.class_cases import make_checkpoint
from tests.device.stand_in import NAME, counted
from tests.golden import checkpoints as golden
from tests.golden.trainings import UNDETERMINED
from tests.recipes import a_recipe, second_shard, tiny_checkpoint, tiny_listener, write_words

DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
STILL = dict.fromkeys([*DROPOUTS, "layerdrop", "mask_time_prob"], 0.0)
"""Without random numbers of the device, of which a GPU has others than a CPU."""
DRAWN = {"hidden_dropout": 0.2, "mask_time_prob": 0.3, "mask_feature_prob": 0.3, "mask_feature_length": 4}


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    return write_words(tmp_path_factory.mktemp("words"), 18, 6)


def assert_same_weights(folder: Path, other: Path, auto: type = AutoModelForCTC) -> None:
    found, expected = (auto.from_pretrained(one).state_dict() for one in (folder, other))
    for name, value in expected.items():
        if not name.endswith(UNDETERMINED):
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_training_has_the_course_of_the_cpu_and_goes_on_there_once_it_was_stopped(words, tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    evaluation = Evaluation(second_shard(words), every=2)

    def recipe(sink: str, device: str) -> raysp.Finetune:
        given = {"objective": {"masks": STILL}, "evaluation": evaluation, "dtype": "float32"}
        return a_recipe(words, checkpoint, tmp_path / sink, device=device, **given)

    expected = finetune(recipe("cpu", "cpu"))
    found = finetune(recipe("sink", NAME))
    assert (found.steps, found.is_done, found.best_step) == (4, True, expected.best_step)
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    assert found.best == pytest.approx(expected.best, rel=1e-3)
    assert_same_weights(tmp_path / "sink", tmp_path / "cpu")
    asked = iter([False, False, True])
    stopped = finetune(recipe("both", NAME), should_stop=lambda: next(asked))
    assert (stopped.steps, stopped.is_done) == (3, False)
    assert finetune(recipe("both", "cpu")).is_done
    assert_same_weights(tmp_path / "both", tmp_path / "cpu")


def of_encoder(name: str) -> Callable[[Path], CTC]:
    """Return a function that makes the objective of a CTC class with all that is drawn in a training."""

    def make(folder: Path) -> CTC:
        make_checkpoint(name, folder)
        return CTC(str(folder), text=Text("upper"), masks=DRAWN)

    return make


def seq2seq(folder: Path) -> Seq2Seq:
    untied = {"dropout": 0.0, "tie_word_embeddings": False}  # names of one tensor are apart once it is on the stand-in
    golden.encoder_decoder("bart", of_decoder=untied, **STILL)(folder)
    return Seq2Seq(str(folder), text=Text("lower"))


OBJECTIVES: dict[str, Callable[[Path], object]] = {
    "classes": lambda folder: Classify(str(tiny_checkpoint(folder, head=False)), column="speaker", masks=STILL),
    "speakers": lambda folder: Speakers(str(tiny_listener(folder)), column="speaker", crop_seconds=0.35, masks=STILL),
    "texts of a decoder": seq2seq,
    **{name: of_encoder(name) for name in ("SEWDForCTC", "Wav2Vec2BertForCTC")},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_of_every_objective_and_encoder_cost_one_wait_each(name, words, tmp_path):
    objective, waits = OBJECTIVES[name](tmp_path / "checkpoint"), []

    def trained(num_steps: int, device: str) -> Any:
        sink = Checkpoint(str(tmp_path / f"{device} {len(waits)}"), every=100)
        given = {"objective": objective, "schedule": Schedule(steps=num_steps, learning_rate=1e-3), "dtype": "float32"}
        return finetune(a_recipe(words, tmp_path, sink, device=device, **given))

    for num_steps in (2, 1, 2):  # constants are made in the first
        with counted() as counts:
            found = trained(num_steps, NAME)
        waits.append(counts.waits + counts.blocking)
    assert sum(waits[2].values()) - sum(waits[1].values()) == 1, waits[2] - waits[1]
    if "CTC" not in name:
        assert found.loss == pytest.approx(trained(2, "cpu").loss, rel=1e-3)
        auto = raysp.models.SpeechEncoderDecoderModel if "decoder" in name else AutoModel
        assert_same_weights(tmp_path / f"{NAME} 2", tmp_path / "cpu 3", auto)
