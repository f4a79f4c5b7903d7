"""Speed measured on a few micro-batches."""

from dataclasses import replace

import pytest
import torch

from raysp import PlanError
from raysp.training.estimates.training_calibration import calibrate
from raysp.training.finetuning import plan_recipe
from raysp.training.loop.training_steps import Training
from tests.recipes import a_recipe


@pytest.fixture(scope="module")
def prepared(words, tiny, tmp_path_factory):
    recipe = a_recipe(words, tiny, tmp_path_factory.mktemp("sink") / "out", ema=0.9)
    return plan_recipe(recipe)[1]


@pytest.mark.slow
def test_the_largest_micro_batch_warms_up_and_two_of_middle_cost_are_timed(prepared, monkeypatch):
    window = prepared.first_window
    ran: list[list[int]] = []
    step = Training.step

    def counted(self, epoch, number, batches, **options):
        ran.append([one.number for one in batches])
        before = [one.detach().clone() for one in self.objective.model.parameters()]
        update = step(self, epoch, number, batches, **options)
        assert all(map(torch.equal, before, self.objective.model.parameters()))
        assert update.is_finite
        return update

    monkeypatch.setattr(Training, "step", counted)
    threads = torch.get_num_threads()
    found = calibrate(prepared)
    assert [len(one) for one in ran] == [1, 2, 0]
    assert {number for numbers in ran for number in numbers} <= {*range(window.micro_batches)}
    assert found.rtfx > 0
    assert found.memory_bytes > 1e8
    assert found.origin.startswith("measured here on 1 CPU: 0:0")
    assert torch.get_num_threads() == threads


def test_a_device_that_is_not_here_is_refused(prepared):
    plan = prepared.plan
    on_gpu = replace(prepared, plan=replace(plan, workers=replace(plan.workers, device="cuda")))
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(PlanError, match="--calibrate: the workers train on GPUs, and this machine has none"):
        calibrate(on_gpu)


@pytest.mark.slow
def test_rows_that_cannot_be_decoded_are_refused(prepared, monkeypatch):
    monkeypatch.setattr("raysp.training.data.row_windows.PieceReader._add", lambda *_: None)
    with pytest.raises(PlanError, match="--calibrate: no row of a micro-batch of the first window can be decoded"):
        calibrate(prepared)
