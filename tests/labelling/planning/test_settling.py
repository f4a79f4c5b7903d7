"""Resolution of "auto" settings, and what is refused before any work."""

import pytest

import raysp
from raysp import CheckpointError, PlanError
from raysp.cluster.resources import Resources, count_gpus
from raysp.labelling.planning.fingerprints import hash_pipeline
from raysp.labelling.planning.settling import settle
from raysp.ops.precision import Batching
from tests.corpora import a_pipeline
from tests.user_specs import odd_rows


class TestSettle:
    def settled(self, *, cpus: float = 4, gpus: float = 0, **label: object):
        return settle(a_pipeline(label=label), Resources(cpus, gpus))

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
            (0, {}, Batching.FREE),
            (0, {"dtype": "bfloat16"}, Batching.PACKED),
            (0, {"dtype": "bfloat16", "exact": False}, Batching.RECORDED),
            (1, {}, Batching.RECORDED),
            (1, {"dtype": "float32"}, Batching.FREE),
            (1, {"dtype": "tf32"}, Batching.RECORDED),
        ],
    )
    def test_the_budget_is_in_the_fingerprint_where_labels_may_depend_on_it(self, gpus, label, expected):
        pipelines = [a_pipeline(label={**label, "batch_seconds": seconds}) for seconds in (7, 8)]
        settings = [settle(pipeline, Resources(4, gpus)) for pipeline in pipelines]
        assert {one.batching for one in settings} == {expected}
        parts, prints = zip(*map(hash_pipeline, pipelines, settings), strict=True)
        assert (prints[0] != prints[1]) == (expected is Batching.RECORDED)
        assert [one.get("steps.1.batch_seconds") for one in parts] == ([7, 8] if prints[0] != prints[1] else [None] * 2)

    @pytest.mark.parametrize(
        ("resources", "label"),
        [
            (Resources(4, 1, gpu_memory=1e6), {"device": "cuda"}),
            (Resources(4, memory=1e9), {"pool": raysp.Pool(memory=4_000_000)}),
        ],
        ids=["gpu", "pool.memory"],
    )
    def test_weights_that_exceed_the_memory_of_an_actor_are_refused(self, resources, label):
        with pytest.raises(PlanError, match=r"its weights take \d\.\d MB in .*, and an actor has \d\.0 MB"):
            settle(a_pipeline(label=label), resources)

    @pytest.mark.parametrize(
        ("gpus", "label", "where"),
        [
            (0, {}, "on the device 'cpu'"),
            (1, {"device": "cpu"}, "on the device 'cpu'"),
            (1, {"device": "xpu"}, "on the device 'xpu'"),
        ],
    )
    def test_tf32_is_refused_where_there_is_none(self, gpus, label, where):
        with pytest.raises(
            PlanError, match=rf"dtype='tf32' {where}, expected the device 'cuda' .* Set dtype='float32'"
        ):
            self.settled(gpus=gpus, dtype="tf32", **label)

    def test_tf32_has_a_fingerprint_of_its_own(self):
        made = [a_pipeline(label={"dtype": dtype}) for dtype in ("float32", "tf32")]
        first, second = (hash_pipeline(one, settle(one, Resources(4, 1)))[0] for one in made)
        assert (first["steps.1.dtype"], second["steps.1.dtype"]) == ("float32", "tf32")

    def test_explicit_settings_are_kept(self):
        found = self.settled(gpus=1, device="cpu", dtype="float16", batch_seconds=7)
        assert (found.device, found.dtype, found.batch_seconds, found.gpus_per_actor) == ("cpu", "float16", 7, 0)
        assert self.settled(gpus=1, pool=raysp.Pool(4, gpus=0.25), cpus=8).gpus_per_actor == 0.25

    def test_a_window_that_holds_no_frame_of_the_model_is_refused(self):
        message = (
            r"window_seconds=0\.02 is 320 samples at 16000 Hz; the model needs at least 400\. Raise window_seconds"
        )
        with pytest.raises(PlanError, match=message):
            self.settled(window_seconds=0.02, overlap_seconds=0)

    @pytest.mark.parametrize(
        ("have", "label", "message"),
        [
            (
                {},
                {"pool": raysp.Pool(gpus=1)},
                r"1 actor of 1 GPU, device='auto'; found 0 GPUs, and this machine has no more",
            ),
            ({"gpus": 1}, {"pool": raysp.Pool(gpus=2)}, r"1 actor of 2 GPUs.*found 1 GPU"),
            ({}, {"device": "cuda"}, r"device='cuda'; found 0 GPU"),
            (
                {"cpus": 4},
                {"pool": raysp.Pool(cpus=4)},
                r"one actor of 4 CPUs leaves no CPU of 4 for decoding",
            ),
        ],
    )
    def test_a_pool_that_does_not_fit_is_refused_with_the_resources(self, have, label, message):
        with pytest.raises(PlanError, match=message):
            self.settled(**have, **label)

    def test_the_pools_of_other_steps_take_their_share_of_a_machine(self):
        def settle_with(pool: raysp.Pool, resources: Resources) -> object:
            step = raysp.Map(odd_rows, adds={"odd": "bool"}, reads=["text"], pool=pool)
            return settle(a_pipeline(keep=[step]), resources)

        assert settle_with(raysp.Pool(2), Resources(4)).device == "cpu"
        with pytest.raises(PlanError, match=r"one actor of 1 CPU leaves no CPU of 1 for decoding"):
            settle_with(raysp.Pool(3), Resources(4))
        message = "found 0 GPUs beside 1 GPU of the pools of other steps, and this machine has no more"
        with pytest.raises(PlanError, match=message):
            settle_with(raysp.Pool(gpus=1), Resources(4, gpus=1))
        assert settle_with(raysp.Pool(gpus=1), Resources(4, gpus=2)).gpus_per_actor == 1
        message = r"steps\.1\.pool: 0.5 GPUs for the actors of these steps; found 0 GPUs, and this machine has no more"
        with pytest.raises(PlanError, match=message):
            settle_with(raysp.Pool(gpus=0.5), Resources(4))
        assert settle_with(raysp.Pool(gpus=0.5), Resources(4, can_grow=True)).device == "cpu"

    def test_a_checkpoint_that_is_not_there_is_refused(self):
        pipeline = a_pipeline(steps=[raysp.Decode(), raysp.Label("nowhere", outputs=[raysp.Transcript()])])
        with pytest.raises(
            CheckpointError, match=r"checkpoint 'nowhere': no such folder; expected a Hugging Face model"
        ):
            settle(pipeline, Resources(4))

    def test_an_output_that_the_model_cannot_give_is_refused(self):
        with pytest.raises(
            CheckpointError, match=r"does not support Classes; it supports Transcript, Align, Embedding"
        ):
            self.settled(outputs=[raysp.Classes()])

    def test_an_output_of_a_user_is_checked_like_the_output_it_derives_from(self):
        from tests.labelling.engine.deadly import DeadlyTranscript
        from tests.user_specs import Pitch

        self.settled(outputs=[Pitch(), DeadlyTranscript("other")])

    def test_a_step_that_cannot_be_run_is_refused_and_not_passed_over(self):
        from tests.user_specs import Louder

        with pytest.raises(PlanError, match=r"steps\[1\] Louder: found a step that .* cannot run: it has no op"):
            settle(a_pipeline(keep=[Louder()]), Resources(4))

    def test_a_step_whose_columns_have_no_types_is_refused(self):
        from tests.user_specs import Untyped

        with pytest.raises(
            PlanError, match=r"steps\[1\] Untyped: .* adds the columns \['gain'\], and its schema has \[\]"
        ):
            settle(a_pipeline(keep=[Untyped()]), Resources(4))

    @pytest.mark.parametrize(("visible", "expected"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("GPU-abc", 1)])
    def test_gpus_are_those_that_the_process_may_see(self, monkeypatch, visible, expected):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert count_gpus() == expected
