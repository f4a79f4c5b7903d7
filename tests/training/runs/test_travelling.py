"""Tasks of trainings on their way to workers."""

import pickle

from raysp.training.finetuning import plan_recipe
from tests.recipes import a_recipe
from tests.training.runs.test_objectives import decoders, objective, trained

__all__ = ["decoders", "objective"]  # fixtures


def test_a_task_travels_to_workers_with_its_targets(words, objective, tmp_path):
    _, prepared = plan_recipe(trained(words, tmp_path / "out", objective))
    travelled = pickle.loads(pickle.dumps(prepared))
    values = {"speaker": "s1", "tags": ["noisy"], "age": 21, "frames": ["low", None, "high"]}
    value = values.get(prepared.plan.recipe.kept[0], "seven")
    assert travelled.task.targets()(value) == prepared.task.targets()(value)
    assert travelled.task.digest == prepared.task.digest


def test_pieces_travel_to_workers(words, tiny, tmp_path):
    _, prepared = plan_recipe(a_recipe(words, tiny, tmp_path / "out", objective={"vocabulary": "bpe:30"}))
    travelled = pickle.loads(pickle.dumps(prepared))
    assert travelled.task.digest == prepared.task.digest
    assert travelled.task.targets()("seven nine") == prepared.task.targets()("seven nine")
    assert prepared.task.shown(prepared.task.targets()("seven nine").ids) == "seven nine"
