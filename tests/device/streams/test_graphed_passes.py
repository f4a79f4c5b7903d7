"""Passes of recurring shapes as graphs: the bits of passes without them in one launch, and a way back from errors."""

import gc
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raysp
from raysp.device_graphs import has_graphs
from raysp.models import LoadedCheckpoint, load_checkpoint
from raysp.models.encoder import conformer
from raysp.models.features.waves import pad
from raysp.models.labelled_passes import ModelPass
from raysp.ops.labelling import Labelling, OneBatch
from raysp.ops.passes.graphed_passes import GraphedPasses, _tensors
from tests.device.class_cases import CASES
from tests.device.output_cases import CASES as OUTPUTS
from tests.device.stand_in import NAME, Module, counted
from tests.device.streams import stand_in_graphs
from tests.ops.test_labelling import block_of
from tests.ops.test_precision import noise

SECONDS = (1.5, 1.1)


def inputs(seed: int, seconds: tuple[float, ...] = SECONDS) -> tuple[torch.Tensor, torch.Tensor]:
    waves, num_samples = pad(noise([*seconds], seed=seed))
    return waves.to(NAME), num_samples.to(NAME)


def loaded(checkpoints: Any, name: str, dtype: str = "float32") -> LoadedCheckpoint:
    return load_checkpoint(checkpoints(name), dtype=dtype, device=NAME)


def values(found: ModelPass) -> list[torch.Tensor]:
    return [one.cpu() for one in _tensors(found)]


def assert_equal(found: ModelPass, expected: ModelPass) -> None:
    pairs = list(zip(values(found), values(expected), strict=True))
    assert pairs
    assert all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in pairs)


@pytest.fixture
def passes(checkpoints) -> GraphedPasses:
    """Passes of a small model, of which one shape is recorded."""
    made = GraphedPasses(loaded(checkpoints, "ParakeetForCTC").run, torch.device(NAME))
    with torch.inference_mode():
        for seed in (1, 2):
            made(*inputs(seed), hidden_states=False)
    assert len(made.graphs) == 1
    return made


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_a_graph_gives_the_bits_of_its_kernels_one_by_one_for_other_values(name, checkpoints):
    model = loaded(checkpoints, name, "bfloat16")
    passes = GraphedPasses(model.run, torch.device(NAME))
    for seed in (1, 2):  # the second one is recorded, and compared
        passes(*inputs(seed), hidden_states=True)
    given, other = inputs(3), inputs(4, SECONDS[::-1])
    with counted() as counts:
        first = passes(*given, hidden_states=True)
    assert passes.why_not == ""
    copies = len(values(first)) + 2
    assert 1 < counts.launches <= 1 + copies
    assert sum(counts.waits.values()) == 0
    assert_equal(passes(*other, hidden_states=True), model.run(*other, hidden_states=True))  # rows of other lengths
    assert_equal(first, model.run(*given, hidden_states=True))  # after a later pass in the same memory


@torch.inference_mode()
def test_other_shapes_run_without_a_graph(passes, checkpoints):
    run, given = loaded(checkpoints, "ParakeetForCTC").run, inputs(5, (0.7,))
    assert_equal(passes(*given, hidden_states=False), run(*given, hidden_states=False))
    assert_equal(passes(*inputs(6), hidden_states=True), run(*inputs(6), hidden_states=True))
    assert len(passes.graphs) == 1


@torch.inference_mode()
def test_tensors_that_models_keep_stay_while_a_graph_reads_them(passes, checkpoints):
    for size in range(8, 17):  # tables of other lengths take the place of that of the graph
        conformer.sinusoids(1 << size, 32, torch.zeros(1, device=NAME))
    gc.collect()
    run = loaded(checkpoints, "ParakeetForCTC").run
    assert_equal(passes(*inputs(3), hidden_states=False), run(*inputs(3), hidden_states=False))


@torch.inference_mode()
def test_two_threads_have_the_memory_of_a_graph_one_after_another(passes, checkpoints):
    run, found = loaded(checkpoints, "ParakeetForCTC").run, {}

    @torch.inference_mode()
    def label(seed: int) -> None:
        for turn in range(4):
            found[seed, turn] = passes(*inputs(seed), hidden_states=False)

    threads = [threading.Thread(target=label, args=(seed,)) for seed in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for seed in (7, 8):
        expected = run(*inputs(seed), hidden_states=False)
        for turn in range(4):
            assert_equal(found[seed, turn], expected)


@pytest.mark.parametrize("error", ["CUDA out of memory", "a wait"])
@torch.inference_mode()
def test_a_pass_that_cannot_be_recorded_has_run_and_later_ones_do_too(error, checkpoints, caplog):
    run = loaded(checkpoints, "ParakeetForCTC").run

    def failing(*given: torch.Tensor, hidden_states: bool) -> ModelPass:
        found = run(*given, hidden_states=hidden_states)
        if stand_in_graphs.current() is not None:
            if error != "a wait":
                raise torch.OutOfMemoryError(error)
            given[0].sum().item()
        return found

    passes = GraphedPasses(failing, torch.device(NAME))
    for seed in range(1, 5):
        assert_equal(passes(*inputs(seed), hidden_states=False), run(*inputs(seed), hidden_states=False))
    assert passes.graphs == {}
    assert [record.getMessage() for record in caplog.records] == [f"passes run without graphs: {passes.why_not}"]
    assert passes.why_not.startswith("recording a pass of 2 rows of 24000 samples failed: ")
    assert (error if error != "a wait" else stand_in_graphs.REFUSED) in passes.why_not


@torch.inference_mode()
def test_a_graph_with_other_values_is_not_used(checkpoints, monkeypatch):
    run = loaded(checkpoints, "ParakeetForCTC").run

    def other(*given: torch.Tensor, hidden_states: bool) -> ModelPass:
        """Run other kernels within a capture, as a library might choose them."""
        found = run(*given, hidden_states=hidden_states)
        if stand_in_graphs.current() is not None:
            next(iter(found.heads.values()))["logits"].mul_(1 + 2**-20)
        return found

    passes = GraphedPasses(other, torch.device(NAME))
    for seed in range(1, 5):
        assert_equal(passes(*inputs(seed), hidden_states=False), run(*inputs(seed), hidden_states=False))
    assert passes.why_not == (
        "a graph of a pass of 2 rows of 24000 samples gave other values than its kernels one by one"
    )


@torch.inference_mode()
def test_graphs_that_are_stopped_free_their_memory(passes, checkpoints):
    [graph] = passes.graphs.values()
    place = next(_tensors(graph._graph.result)).inner.untyped_storage()._weak_ref()
    del graph
    assert torch.UntypedStorage._new_with_weak_ptr(place) is not None
    passes.stop("the device is full")
    gc.collect()
    assert torch.UntypedStorage._new_with_weak_ptr(place) is None
    run = loaded(checkpoints, "ParakeetForCTC").run
    assert_equal(passes(*inputs(9), hidden_states=False), run(*inputs(9), hidden_states=False))


def labelling(folder: Path, *, graphs: bool, outputs: Sequence[Any]) -> Labelling:
    """Return the op that labels rows in batches of two seconds."""
    return Labelling(
        str(folder),
        lambda model: [output.op(model) for output in outputs],
        batch_seconds=2,
        dtype="bfloat16",
        device=NAME,
        graphs=graphs,
    )


WAVES = [(wave * 32767 / 2).astype(np.int16) for wave in noise([1.0] * 5 + [0.6] * 2, seed=1)]
OTHERS = [(wave * 32767 / 2).astype(np.int16) for wave in noise([0.6] + [1.0] * 4, seed=2)]


@pytest.mark.parametrize("name", ["greedy", "alignment of labels", "greedy generation"])
def test_labels_are_those_of_passes_without_graphs(name, checkpoints):
    checkpoint, outputs = OUTPUTS[name]
    plain, graphed = (labelling(checkpoints(checkpoint), graphs=one, outputs=outputs) for one in (False, True))
    for waves in (WAVES, OTHERS):  # a full pass follows a shorter last one
        expected, found = (op(block_of(waves))[0].to_pylist() for op in (plain, graphed))
        assert {row["status"] for row in found} == {"ok"}
        assert found == expected
    assert graphed.graphs is not None
    assert (2, 16_000) in [tuple(shape) for shape, *_ in graphed.graphs.graphs]
    assert graphed.graphs.why_not == ""


def test_lack_of_memory_frees_graphs_and_labels_all_rows(checkpoints, monkeypatch):
    op = labelling(checkpoints("demo"), graphs=True, outputs=[raysp.Transcript()])
    expected = op(block_of(WAVES))[0].to_pylist()
    assert op.graphs is not None
    assert len(op.graphs.graphs) == 1
    forward, failures = Labelling.forward, []

    def once_too_much(*given: Any) -> Any:
        if not failures:
            failures.append(given)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*given)

    monkeypatch.setattr(Labelling, "forward", once_too_much)
    assert op(block_of(WAVES))[0].to_pylist() == expected
    assert (op.graphs.graphs, op.graphs.why_not) == ({}, "a pass exceeded the memory of the device")


def test_sizes_of_passes_are_measured_without_graphs(checkpoints):
    checkpoint, outputs = OUTPUTS["greedy generation"]
    op = labelling(checkpoints(checkpoint), graphs=True, outputs=outputs)
    given = op.prepare(block_of(WAVES))
    for _ in range(4):
        batch = OneBatch(op, given.pending[:2], given)
        batch.fill()
        batch.try_out()
        batch.release()
    assert op.graphs is not None
    assert op.graphs.steps is not None
    assert (op.graphs.graphs, op.graphs._seen, op.graphs.steps._seen) == ({}, {}, {})
    assert op.graphs.steps.is_on


@pytest.mark.parametrize("device", ["cpu", NAME])
def test_graphs_are_off_by_default_and_on_cpus(device, checkpoints):
    outputs = [raysp.Transcript().op]
    op = Labelling(str(checkpoints("demo")), lambda model: [outputs[0](model)], batch_seconds=2, device=device)
    assert op.graphs is None
    on = Labelling(
        str(checkpoints("demo")), lambda model: [outputs[0](model)], batch_seconds=2, device=device, graphs=True
    )
    assert (on.graphs is None) == (device == "cpu")


def test_kinds_of_devices_without_graphs_have_none(monkeypatch):
    assert has_graphs(NAME)
    assert not has_graphs("cpu")
    monkeypatch.delattr(Module, "CUDAGraph")
    assert not has_graphs(NAME)
