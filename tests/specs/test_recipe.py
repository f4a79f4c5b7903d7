"""Recipes: what is refused, JSON, and which fields change the weights."""

import dataclasses

import pytest

import raysp
from raysp import CTC, Batching, Checkpoint, Evaluation, Finetune, Schedule, SpecError, Text
from raysp.specs.code import UserCode
from raysp.specs.pipeline import fingerprint
from raysp.specs.values import override
from raysp.training.planning.training_plan import TrainingPlan

RECIPE = Finetune(
    raysp.Shards("in/*.parquet", text="text"),
    steps=[raysp.Decode(), raysp.Keep(min_seconds=0.3)],
    objective=CTC("checkpoint", text=Text("lower", keep="letters"), vocabulary="build"),
    schedule=Schedule(epochs=3),
    sink=Checkpoint("out"),
)


NORMALISED = Evaluation(raysp.Shards("dev"), best="loss", normalise="lower")


def hashed(recipe: Finetune) -> str:
    return fingerprint(TrainingPlan(recipe, None, "d", {}, "float32", None, UserCode()).parts("v"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": []}, r"found steps \[\]; expected one Decode and no Label"),
        ({"steps": [raysp.Decode(), raysp.Label("c", outputs=[raysp.Transcript()])]}, "one Decode and no Label"),
        ({"steps": [raysp.Decode(keep_prefix=True)]}, "damaged recordings are left out of a training"),
        (
            {"objective": raysp.Classify("c", column="language"), "evaluation": NORMALISED},
            "found evaluation.normalise='lower'; Classify compares no texts",
        ),
        ({"source": raysp.Shards("in")}, r"source.text is not set; give the column of the reference texts"),
    ],
)
def test_what_cannot_be_trained_is_refused(changed, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(RECIPE, **changed)


@pytest.mark.parametrize(
    ("path", "value", "changes"),
    [
        ("steps.1.min_seconds", "0.4", True),
        ("objective.text.case", "upper", True),
        ("objective.freeze", "base", True),
        ("objective.lora", '{"type": "LoRA"}', True),
        ("objective.adapter", "tur", True),
        ("objective.masks", '{"layerdrop": 0.0}', True),
        ("schedule.epochs", "4", True),
        ("batching.micro_batches", "4", True),
        ("ema", "0.99", True),
        ("mix", '{"type": "Mix", "parts": {"en/*": 1, "tr/*": 2}}', True),
        ("deterministic", "true", True),
        ("pool.actors", "4", False),
        ("sink.url", "elsewhere", False),
        ("name", "mine", False),
        ("objective.checkpoint", "a copy", False),
        ("source.url", "copies/*", False),
    ],
)
def test_fields_that_change_the_weights_change_the_fingerprint_and_no_others(path, value, changes):
    assert (hashed(override(RECIPE, path, value)) != hashed(RECIPE)) == changes


def test_every_field_of_a_recipe_was_judged():
    fields = {field.name for field in dataclasses.fields(Finetune)}
    judged = {"source", "steps", "objective", "schedule", "batching", "seed", "dtype", "ema", "evaluation", "augment"}
    judged |= {"deterministic", "mix"}
    assert fields == judged | {"pool", "sink", "name", "max_error_rate", "device", "callbacks"}
    assert {field.name for field in dataclasses.fields(Batching)} == {
        "seconds",
        "micro_batches",
        "window_seconds",
        "quadratic_seconds",
        "curriculum",
    }
