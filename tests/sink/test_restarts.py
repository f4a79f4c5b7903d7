"""Trainings whose record was removed by a restart: killed before it began anew, or of another process meanwhile."""

import shutil

import pytest

from raysp import StoreError, finetune
from tests.recipes import a_recipe
from tests.training.trained import commits_of, steps_of, stopping_after


@pytest.mark.slow
def test_what_a_killed_restart_left_is_removed_and_a_record_that_is_gone_meanwhile_is_not_made_again(
    words, tiny, tmp_path
):
    recipe, record = a_recipe(words, tiny, tmp_path / "out"), tmp_path / "out" / ".raysp" / "recipe.json"
    finetune(recipe, should_stop=stopping_after(2))
    assert [*commits_of(tmp_path / "out")] == [2]
    record.unlink()
    finetune(recipe, should_stop=stopping_after(1))
    assert [step["done"] for step in steps_of(tmp_path / "out")] == [1]
    shutil.rmtree(record.parent / "index")
    with pytest.raises(StoreError, match=r"recipe\.json: it was removed; check which process"):
        finetune(recipe, on_indexed=lambda *_: record.unlink(missing_ok=True))
    assert not record.exists()
