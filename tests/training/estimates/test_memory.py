"""Memory of the workers of a training, from its parts."""

from dataclasses import replace

import pytest

import raysp
from raysp.training.estimates import worker_memory
from raysp.training.estimates.activation_memory import Batch
from raysp.training.estimates.weight_sizes import model_of, weights_of
from raysp.training.estimates.worker_memory import Memory, predict
from raysp.training.finetuning import plan_recipe
from raysp.training.planning.training_plan import TrainingPlan
from tests.recipes import a_recipe

BATCH = Batch(2, 3.0, 10)


@pytest.fixture(scope="module")
def prepared(words, tiny, tmp_path_factory):
    return plan_recipe(a_recipe(words, tiny, tmp_path_factory.mktemp("sink") / "out"))[1]


def memory_of(prepared, window_bytes: float = 1e6, workers: int = 1, device: str = "cpu", **fields: object) -> Memory:
    plan: TrainingPlan = prepared.plan
    settled = replace(plan.workers, low=workers, high=workers, device=device)
    plan = replace(plan, recipe=replace(plan.recipe, **fields), workers=settled)
    model = model_of(plan, prepared.task)
    return predict(plan, model, weights_of(plan.recipe, model), [BATCH], window_bytes=window_bytes)


def test_a_worker_holds_weights_gradients_moments_activations_copies_and_two_windows(prepared):
    found = memory_of(prepared)
    assert found.gradients == found.weights
    assert found.moments == 2 * found.weights
    assert found.copies == pytest.approx(3 * found.weights, rel=0.2)
    assert found.rows == 2 * worker_memory.WINDOW_SHARE * 1e6
    parts = 4 * found.weights + found.activations + found.copies + found.rows
    assert found.worker - worker_memory.PROCESS_BYTES - worker_memory.TRAINING_BYTES == pytest.approx(
        parts, abs=200_000
    )
    assert (found.machine, found.gpu, found.average) == (found.worker, None, 0.0)


def test_a_moving_average_is_held_and_committed(prepared):
    found, without = memory_of(prepared, ema=0.9), memory_of(prepared)
    assert found.average == found.weights
    assert found.worker == pytest.approx(without.worker + 2 * found.weights, abs=10_000)


def test_workers_share_the_windows_and_need_ray_together(prepared):
    one, two = memory_of(prepared), memory_of(prepared, workers=2)
    assert two.rows == one.rows / 2
    assert two.machine > 2 * two.worker + worker_memory.RAY_BYTES + 2 * worker_memory.READER_BYTES
    plan = prepared.plan
    model = model_of(plan, prepared.task)
    few = replace(plan, workers=replace(plan.workers, low=2, high=2))
    found = predict(few, model, weights_of(plan.recipe, model), [BATCH], window_bytes=1e6, window_pieces=1)
    others = worker_memory.RAY_BYTES + worker_memory.PROCESS_BYTES + worker_memory.READER_BYTES
    assert found.machine == pytest.approx(2 * found.worker + others)


def test_checkpointing_is_of_the_recipe(prepared):
    schedule = raysp.Schedule(steps=6, checkpointing=True)
    assert memory_of(prepared, schedule=schedule).activations < memory_of(prepared).activations


def test_sounds_are_held_up_to_an_hour(prepared, words):
    noise = raysp.Noise(words)
    with_sounds = replace(prepared.plan, sounds={0: prepared.plan.corpus})
    found = memory_of(replace(prepared, plan=with_sounds), augment=(noise,))
    num_bytes = sum(shard.num_bytes for shard in prepared.plan.corpus.shards)
    sounds = 4 * 16_000 * min(3600.0, num_bytes / worker_memory.LEAST_SOUND_BYTES)
    assert found.rows == pytest.approx(memory_of(prepared).rows + sounds)


def test_on_a_gpu_the_rows_stay_in_main_memory(prepared, monkeypatch):
    monkeypatch.setattr(worker_memory, "gpu_memory", lambda: 80e9)
    found = memory_of(prepared, device="cuda", window_bytes=1e9)
    assert found.gpu is not None
    assert found.gpu < 2e9 < found.worker
    assert found.gpu_has == 80e9
    assert not found.is_too_much


@pytest.mark.parametrize(("device", "main", "gpu"), [("cpu", 1e8, None), ("cuda", 1e12, 1e8), ("cuda", 1e8, 1e12)])
def test_too_much_is_more_than_the_machine_or_its_gpu_has(prepared, monkeypatch, device, main, gpu):
    monkeypatch.setattr(worker_memory, "gpu_memory", lambda: gpu)
    monkeypatch.setattr(worker_memory, "memory_bytes", lambda: main)
    assert memory_of(prepared, device=device).is_too_much


def test_a_gpu_of_unknown_size_is_not_too_small(prepared, monkeypatch):
    monkeypatch.setattr(worker_memory, "gpu_memory", lambda: None)
    assert not memory_of(prepared, device="cuda").is_too_much
