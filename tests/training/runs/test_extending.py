"""Another length of a training that has begun or is finished."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, Evaluation, Finetune, Schedule, Speakers, finetune
from tests.recipes import a_recipe, second_shard
from tests.soaked import soaked

pytestmark = pytest.mark.slow


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def with_schedule(words: str, tiny: Path, sink: Path, **fields: object) -> Finetune:
    rates = {"learning_rate": 1e-3, "shape": "constant", "warmup": 0.0}
    objective = fields.pop("objective", {"masks": {"layerdrop": 0.3, "hidden_dropout": 0.2}})
    evaluation = fields.pop("evaluation", None)
    schedule = Schedule(**{**rates, **fields})
    return a_recipe(words, tiny, sink, objective=objective, schedule=schedule, evaluation=evaluation)


@pytest.mark.parametrize(
    ("short", "long", "ema"),
    [
        ({"steps": 2}, {"steps": 5}, 0.9),
        ({"epochs": 1}, {"steps": 6}, None),
        *soaked(
            [
                ({"steps": 2}, {"steps": 5}, None),
                ({"epochs": 1}, {"steps": 6}, 0.9),
                ({"epochs": 1}, {"epochs": 2}, None),
                ({"epochs": 1}, {"epochs": 2}, 0.9),
            ]
        ),
    ],
)
def test_a_finished_training_goes_on_to_a_greater_length_bit_for_bit(words, tiny, tmp_path, short, long, ema):
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    expected = finetune(dataclasses.replace(with_schedule(words, tiny, whole, **long), ema=ema))
    begun = finetune(dataclasses.replace(with_schedule(words, tiny, extended, **short), ema=ema))
    assert begun.is_done
    assert not same(weights(extended), weights(whole))
    longer = dataclasses.replace(with_schedule(words, tiny, extended, **long), ema=ema)
    result = finetune(longer)
    assert (result.steps, result.epochs, result.is_done) == (expected.steps, expected.epochs, True)
    assert result.steps > begun.steps
    assert result.fingerprint == begun.fingerprint
    assert same(weights(extended), weights(whole))
    status = raysp.status(str(extended))
    assert status.is_complete
    assert (status.steps_planned, status.epochs_planned) == (long.get("steps"), long.get("epochs"))
    assert finetune(longer).steps == result.steps
    with pytest.raises(ChangedError, match=rf"another length .*: {result.steps} steps are done already"):
        finetune(dataclasses.replace(with_schedule(words, tiny, extended, **short), ema=ema))
    assert same(weights(extended), weights(whole))


def test_a_training_that_was_stopped_amid_its_greater_length_goes_on(words, tiny, tmp_path):
    finetune(with_schedule(words, tiny, tmp_path / "out", steps=2))
    longer = with_schedule(words, tiny, tmp_path / "out", steps=6)
    stops = iter([False, False, True, True])
    assert not finetune(longer, should_stop=lambda: next(stops, True)).is_done
    assert finetune(longer).steps == 6
    finetune(with_schedule(words, tiny, tmp_path / "whole", steps=6))
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_a_training_may_end_earlier_than_it_was_begun_for(words, tiny, tmp_path):
    recipe = with_schedule(words, tiny, tmp_path / "out", steps=9)
    stops = iter([False, True])
    finetune(recipe, should_stop=lambda: next(stops, True))
    assert finetune(with_schedule(words, tiny, tmp_path / "out", steps=4)).steps == 4


def test_the_plan_of_a_greater_length_shows_what_is_left(words, tiny, tmp_path):
    finetune(with_schedule(words, tiny, tmp_path / "out", steps=2))
    left = raysp.estimate(with_schedule(words, tiny, tmp_path / "out", steps=6)).left
    assert (left.steps, left.share) == (4, pytest.approx(4 / 6))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"shape": "linear"}, "with schedule.shape='linear' the learning rates of the 2 steps that are done depend on"),
        ({"warmup": 0.1}, r"schedule.warmup=0.1 is a share of the length, on which the learning rates of the 2 steps"),
    ],
)
def test_a_length_on_which_the_rates_of_past_steps_depend_cannot_change_and_the_error_says_why(
    words, tiny, tmp_path, fields, reason
):
    finetune(with_schedule(words, tiny, tmp_path / "out", steps=2, **fields))
    longer = with_schedule(words, tiny, tmp_path / "out", steps=4, **fields)
    with pytest.raises(ChangedError, match=rf"`schedule.steps` was 2, now 4\): {reason}") as found:
        finetune(longer)
    assert found.value.differences == ("`schedule.steps` was 2, now 4",)
    assert f"objective.checkpoint='{tmp_path / 'out'}'" in str(found.value)
    assert finetune(with_schedule(words, tiny, tmp_path / "out", steps=2, **fields)).is_done


def test_margins_that_grow_over_the_length_cannot_have_another(words, listener, tmp_path):
    objective = Speakers(str(listener), column="speaker", margin_warmup=0.2)
    finetune(with_schedule(words, listener, tmp_path / "out", steps=2, objective=objective))
    with pytest.raises(ChangedError, match=r"objective.margin_warmup=0.2 is a share of the length"):
        finetune(with_schedule(words, listener, tmp_path / "out", steps=3, objective=objective))


def test_a_training_that_patience_ended_has_no_other_length(words, tiny, tmp_path):
    evaluation = Evaluation(second_shard(words), every=1, patience=1, best="wer")
    recipe = with_schedule(words, tiny, tmp_path / "out", steps=9, evaluation=evaluation)
    assert finetune(recipe).steps < 9
    with pytest.raises(ChangedError, match=r"it ended by evaluation.patience=1 after \d steps, not by its length"):
        finetune(dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, steps=12)))


def test_another_length_and_another_field_are_another_recipe(words, tiny, tmp_path):
    finetune(with_schedule(words, tiny, tmp_path / "out", steps=2))
    longer = with_schedule(words, tiny, tmp_path / "out", steps=4)
    with pytest.raises(ChangedError, match=r"another recipe or corpus: `schedule.steps` was 2, now 4; `seed` was 0"):
        finetune(dataclasses.replace(longer, seed=1))
