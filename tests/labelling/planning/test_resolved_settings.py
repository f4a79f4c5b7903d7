"""Resolution of "auto" settings, and what is refused before any work."""

import os

import pytest

import raysp
from raysp import PlanError
from tests.corpora import a_pipeline, write_shard


@pytest.fixture
def pipeline_with(monkeypatch, tmp_path):
    """Return a function that makes a pipeline on a machine of four CPUs, and of GPUs by CUDA_VISIBLE_DEVICES."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    write_shard(tmp_path / "in" / "a.parquet", 2)

    def make(gpus: str = "", **label: object) -> raysp.Pipeline:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        return a_pipeline(f"{tmp_path}/in", tmp_path / "out", label=label)

    return make


@pytest.mark.parametrize(
    ("gpus", "number", "device", "dtype"),
    [
        ("", 0, "cpu", "float32"),
        ("-1", 0, "cpu", "float32"),
        ("0,3", 2, "cuda", "bfloat16"),
        ("GPU-abc", 1, "cuda", "bfloat16"),
    ],
)
def test_auto_means_float32_without_a_gpu_and_bfloat16_on_one_gpu_an_actor(pipeline_with, gpus, number, device, dtype):
    plan = raysp.plan(pipeline_with(gpus))
    assert plan.resources.gpus == number
    found = plan.settings
    assert (found.device, found.dtype, found.gpus_per_actor) == (device, dtype, int(number > 0))
    assert found.checkpoint.sample_rate == 16_000


@pytest.mark.parametrize(
    ("gpus", "label", "expected"),
    [
        ("", {}, "free"),
        ("", {"dtype": "bfloat16"}, "alone"),
        ("0", {}, "recorded"),
        ("0", {"dtype": "float32"}, "free"),
        ("0", {"dtype": "tf32"}, "recorded"),
    ],
)
def test_the_budget_is_in_the_fingerprint_where_labels_may_depend_on_it(pipeline_with, gpus, label, expected):
    plans = [raysp.plan(pipeline_with(gpus, **label, batch_seconds=seconds)) for seconds in (7, 8)]
    assert {one.settings.batching.name.lower() for one in plans} == {expected}
    assert (plans[0].fingerprint != plans[1].fingerprint) == (expected == "recorded")
    found = [one.parts.get("steps.1.batch_seconds") for one in plans]
    assert found == ([7, 8] if expected == "recorded" else [None] * 2)
    for plan in plans:
        warned = any("a label may depend on the rows that share its batch" in one for one in plan.messages)
        assert warned == (expected == "recorded")


NO_TF32 = r"dtype='tf32' on the device 'cpu', expected the device 'cuda': .* Set dtype='float32'"
TOO_LARGE = r"its weights take \d\.\d MB in .*, and an actor has \d\.\d MB"


@pytest.mark.parametrize(
    ("gpus", "label", "message"),
    [
        ("", {"dtype": "tf32"}, NO_TF32),
        ("0", {"dtype": "tf32", "device": "cpu"}, NO_TF32),
        ("", {"pool": raysp.Pool(gpus=1)}, r"1 actor of 1 GPU, device='auto'; found 0 GPUs, and this machine has no m"),
        ("0", {"pool": raysp.Pool(gpus=2)}, r"1 actor of 2 GPUs.*found 1 GPU"),
        ("", {"device": "cuda"}, r"device='cuda'; found 0 GPU"),
        ("", {"pool": raysp.Pool(memory=4_000_000)}, TOO_LARGE),
        ("0", {"device": "cuda"}, TOO_LARGE),
    ],
)
def test_what_this_machine_does_not_have_is_refused_before_any_work(
    pipeline_with, tmp_path, monkeypatch, gpus, label, message
):
    (tool := tmp_path / "bin" / "nvidia-smi").parent.mkdir()
    tool.write_text("#!/bin/sh\necho 1\n")  # a megabyte of memory
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(PlanError, match=message):
        raysp.run(pipeline_with(gpus, **label), engine="here", progress=False)
    assert not (tmp_path / "out").exists()
