"""Resolution of "auto" settings, and what is refused before any work."""

import os
from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from tests.corpora import a_pipeline, write_shard


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_shard(folder / "a.parquet", 2)
    return folder


class TestResolvedSettings:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch, corpus, tmp_path):
        """A machine of four CPUs, with GPUs where a test says so."""
        self.patched, self.corpus, self.sink = monkeypatch, corpus, tmp_path / "out"
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
        self.have()

    def have(self, *, gpus: int = 0) -> None:
        self.patched.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))

    def pipeline(self, **fields: object) -> raysp.Pipeline:
        return a_pipeline(str(self.corpus), self.sink, **fields)

    def settled(self, *, gpus: int = 0, **label: object):
        return self.planned(gpus=gpus, **label).settings

    def planned(self, *, gpus: int = 0, **label: object):
        self.have(gpus=gpus)
        return raysp.plan(self.pipeline(label=label))

    def refused(self, message: str, pipeline: raysp.Pipeline, *, gpus: int = 0) -> None:
        """Check that a run on this machine, which has no more than is up, is refused."""
        self.have(gpus=gpus)
        with pytest.raises(PlanError, match=message):
            raysp.run(pipeline, engine="here", progress=False)
        assert not self.sink.exists()

    def test_without_a_gpu_auto_means_float32_on_the_cpu(self):
        found = self.settled()
        assert (found.device, found.dtype, found.gpus_per_actor) == ("cpu", "float32", 0)
        assert found.checkpoint.sample_rate == 16_000

    def test_with_a_gpu_auto_means_bfloat16_on_one_gpu_an_actor(self):
        found = self.settled(gpus=2)
        assert (found.device, found.dtype, found.gpus_per_actor) == ("cuda", "bfloat16", 1)

    @pytest.mark.parametrize(
        ("gpus", "label", "expected"),
        [
            (0, {}, "free"),
            (0, {"dtype": "bfloat16"}, "alone"),
            (1, {}, "recorded"),
            (1, {"dtype": "float32"}, "free"),
            (1, {"dtype": "tf32"}, "recorded"),
        ],
    )
    def test_the_budget_is_in_the_fingerprint_where_labels_may_depend_on_it(self, gpus, label, expected):
        plans = [self.planned(gpus=gpus, **label, batch_seconds=seconds) for seconds in (7, 8)]
        assert {one.settings.batching.name.lower() for one in plans} == {expected}
        assert (plans[0].fingerprint != plans[1].fingerprint) == (expected == "recorded")
        found = [one.parts.get("steps.1.batch_seconds") for one in plans]
        assert found == ([7, 8] if expected == "recorded" else [None] * 2)
        warned = [
            any("a label may depend on the rows that share its batch" in one for one in p.messages) for p in plans
        ]
        assert warned == [expected == "recorded"] * 2

    def test_weights_that_exceed_the_memory_of_an_actor_are_refused(self, tmp_path):
        message = r"its weights take \d\.\d MB in .*, and an actor has \d\.\d MB"
        self.refused(message, self.pipeline(label={"pool": raysp.Pool(memory=4_000_000)}))
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir()
        tool.write_text("#!/bin/sh\necho 1\n")
        tool.chmod(0o755)
        self.patched.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
        self.refused(message, self.pipeline(label={"device": "cuda"}), gpus=1)

    @pytest.mark.parametrize(
        ("gpus", "label", "where"),
        [
            (0, {}, "on the device 'cpu'"),
            (1, {"device": "cpu"}, "on the device 'cpu'"),
        ],
    )
    def test_tf32_is_refused_where_there_is_none(self, gpus, label, where):
        with pytest.raises(
            PlanError, match=rf"dtype='tf32' {where}, expected the device 'cuda': .* Set dtype='float32'"
        ):
            self.settled(gpus=gpus, dtype="tf32", **label)

    @pytest.mark.parametrize(
        ("gpus", "label", "message"),
        [
            (
                0,
                {"pool": raysp.Pool(gpus=1)},
                r"1 actor of 1 GPU, device='auto'; found 0 GPUs, and this machine has no more",
            ),
            (1, {"pool": raysp.Pool(gpus=2)}, r"1 actor of 2 GPUs.*found 1 GPU"),
            (0, {"device": "cuda"}, r"device='cuda'; found 0 GPU"),
        ],
    )
    def test_a_pool_that_does_not_fit_is_refused_with_the_resources(self, gpus, label, message):
        self.refused(message, self.pipeline(label=label), gpus=gpus)

    def test_a_step_that_cannot_be_run_is_refused_and_not_passed_over(self):
        from tests.user_specs import Louder

        with pytest.raises(PlanError, match=r"steps\[1\] Louder: found a step that .* cannot run: it has no op"):
            raysp.plan(self.pipeline(keep=[Louder()]))

    @pytest.mark.parametrize(("visible", "expected"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("GPU-abc", 1)])
    def test_gpus_are_those_that_the_process_may_see(self, monkeypatch, visible, expected):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert raysp.plan(self.pipeline()).resources.gpus == expected
