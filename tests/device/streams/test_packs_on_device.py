"""Packs on the stand-in device: a row's label has the same bits whatever shares its pack, and the host waits once.

The device computes by the kernels of a CPU, so bits show that values of a row reach no other row, and that shapes do
not depend on neighbours. That a card's kernels keep them is what its certificate measures.
"""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import raysp
from raysp import RunError
from raysp.crossing import Room
from raysp.models import LoadedCheckpoint
from raysp.models.features.waves import end_to_end, fill, fill_pack
from raysp.models.kernels.pack_sizes import places_of_rows
from raysp.ops.blocks import pack_frames
from raysp.ops.labelling import Labelling, OneBatch
from raysp.ops.precision import Batching
from raysp.ops.rows import RowStatus, statuses_table, with_waves
from tests.device.class_cases import CASES as CLASSES
from tests.device.output_cases import ARPA, with_files
from tests.device.output_cases import CASES as OUTPUTS
from tests.device.stand_in import NAME, counted
from tests.models.encoder.test_encoder_packs import Arithmetic
from tests.ops.test_labelling import block_of, labels
from tests.ops.test_precision import noise
from tests.soaked import some

DECODERS = ("ParakeetForRNNT", "ParakeetForTDT", *(name for name in CLASSES if "EncoderDecoder" in name))
CASES = {name: outputs for name, outputs in CLASSES.items() if name not in DECODERS}
"""Without steps of decoders, whose number depends on the texts (tests/device/texts/test_cohorts.py)."""
HALF = ["bfloat16", "float16"]
OF_EACH = (
    *("UniSpeechForCTC", "Wav2Vec2ForXVector", "HubertModel", "SEWDForCTC", "Wav2Vec2BertForCTC", "ParakeetForCTC"),
    *("ParakeetForTDT", "SpeechEncoderDecoderModel"),
)
"""A checkpoint of each encoder, each way to pool frames and each kind of decoder, in float16 too."""
IN_HALF = some(
    itertools.product(CLASSES, HALF), *itertools.product(CLASSES, HALF[:1]), *itertools.product(OF_EACH, HALF)
)
SECONDS = (1.5, 0.6, 1.0, 2.4, 0.4)


def op(
    checkpoint: Path, outputs: Sequence[Any], *, dtype: str = "bfloat16", batch_seconds: float = 8, **options: Any
) -> Labelling:
    return Labelling(
        str(checkpoint),
        lambda loaded: [output.op(loaded) for output in outputs],
        batch_seconds=batch_seconds,
        dtype=dtype,
        device=NAME,
        window_seconds=2.5,
        overlap_seconds=0.5,
        certified=True,
        **options,
    )


def bits(of_rows: dict[int, dict[str, Any]]) -> dict[int, str]:
    return {row: json.dumps(label, sort_keys=True, default=str) for row, label in of_rows.items()}


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    return [(wave * 32767 / 2).astype(np.int16) for wave in noise(SECONDS, seed=1)]


@pytest.mark.parametrize(("name", "dtype"), IN_HALF)
def test_a_row_has_the_same_label_in_every_pack(name, dtype, waves, checkpoints):
    one = op(checkpoints(name), CLASSES[name], dtype=dtype)
    assert one.grouping.in_packs
    alone = {row: bits(labels(one, block_of([wave], [row])))[row] for row, wave in enumerate(waves)}
    assert len({*alone.values()}) == len(waves)
    for order in [(0, 1, 2, 3, 4), (4, 3, 0)]:
        assert bits(labels(one, block_of([waves[row] for row in order], order))) == {row: alone[row] for row in order}
    many = bits(labels(one, block_of([*waves, *waves[-1:] * 5])))  # attention has more places
    assert {row: many[row] for row in alone} == alone
    sizes = [places_of_rows(rows, one.grouping.size) for rows in (1, 10)]
    assert sizes[0] < sizes[1]


def test_all_packs_have_the_frames_of_the_plan_and_windows_of_a_row_too(checkpoints, monkeypatch):
    one, sizes = op(checkpoints("UniSpeechForCTC"), [raysp.Transcript()], batch_seconds=2), []
    run = LoadedCheckpoint.run_pack

    def seen(self, *given, size=None, **options):
        sizes.append(size)
        return run(self, *given, size=size, **options)

    monkeypatch.setattr(LoadedCheckpoint, "run_pack", seen)
    found = labels(one, block_of(noise([1.5, 2.4, 0.6, 1.0, 2.0])))
    assert {label["status"] for label in found.values()} == {"ok"}
    expected = pack_frames(one.loaded.summary, batch_seconds=2, window_seconds=2.5)
    assert sizes == [expected] * len(sizes)
    assert len(sizes) == 2


def test_a_failing_row_leaves_the_labels_of_its_neighbours(waves, checkpoints):
    one = op(checkpoints("UniSpeechForCTC"), [raysp.Transcript()])
    expected = bits(labels(one, block_of(waves)))
    with_loud = [*waves[:2], np.full(16_000, np.nan, np.float32), *waves[2:]]
    given = [wave.astype(np.float32) / 32768 if wave.dtype == np.int16 else wave for wave in with_loud]
    found = labels(one, block_of(given, [0, 1, 9, 2, 3, 4]))
    assert found.pop(9)["error_type"] == "model_output"
    assert bits(found) == expected


def test_lack_of_memory_ends_the_run_before_it_changes_a_pack(waves, checkpoints, monkeypatch):
    one, rows = op(checkpoints("UniSpeechForCTC"), [raysp.Transcript()]), []

    def too_much(self, waves, *given, **options):
        rows.append(len(waves))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LoadedCheckpoint, "run_pack", too_much)
    with pytest.raises(RunError, match=r"a pack of 512 frames \(10.24 s\) exceeds the memory of .* set batch_seconds"):
        one(block_of(waves))
    assert rows == [5, 5, 2, 1]


def test_lack_of_memory_of_other_work_costs_no_label(waves, checkpoints, monkeypatch):
    one, rows = op(checkpoints("UniSpeechForCTC"), [raysp.Transcript()]), []
    expected, run = bits(labels(one, block_of(waves))), LoadedCheckpoint.run_pack

    def at_first_too_much(self, waves, *given, **options):
        rows.append((len(waves), options["size"]))
        if len(rows) <= 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, waves, *given, **options)

    monkeypatch.setattr(LoadedCheckpoint, "run_pack", at_first_too_much)
    assert bits(labels(one, block_of(waves))) == expected
    assert rows == [(5, 512), (5, 512), (2, 512), (3, 512)]


GRAPHED = some(
    itertools.product(CASES, HALF),
    *((name, "bfloat16") for name in CASES),
    (next(iter(CASES)), HALF[1]),
    ("Wav2Vec2ForXVector", HALF[1]),
)


@pytest.mark.parametrize(("name", "dtype"), GRAPHED)
def test_passes_in_packs_are_graphs_for_any_rows(name, dtype, waves, checkpoints):
    plain, graphed = (op(checkpoints(name), CASES[name], dtype=dtype, graphs=graphs) for graphs in (False, True))
    for order in [(0, 1, 2), (4,), (3, 0), (0, 1, 2, 3, 4), (4, 2, 3, 1, 0)]:
        block = block_of([waves[row] for row in order], order)
        assert bits(labels(graphed, block)) == bits(labels(plain, block))
    places = {(places_of_rows(rows, graphed.grouping.size),) for rows in (1, 5)}
    assert ({numbers for _, numbers, *_ in graphed.graphs.graphs}, graphed.graphs.why_not) == (places, "")
    with counted() as counts:
        graphed(block_of(waves))
    assert sum("graph of" in at for at in counts.launches_at) == 1
    assert (sum(counts.waits.values()), sum(counts.copies_out.values())) == (1, 1)


OF_FRAMES = {
    "UniSpeechForSequenceClassification": raysp.Classes(),
    "Wav2Vec2ForXVector": raysp.Embedding(pooling="xvector"),
    "Wav2Vec2ForAudioFrameClassification": raysp.Segments(),
    "UniSpeechForCTC": raysp.Transcript(beams=4, words=True),
    "HubertModel": raysp.Embedding(layer="all"),
    "SEWDForCTC": raysp.Embedding(),
    "ParakeetForCTC": raysp.Embedding(layer=(1, -1)),
    "Wav2Vec2ForCTC": raysp.Embedding(pooling="none"),
    "HubertForCTC": raysp.Embedding(layer=(0, -1), pooling="none", normalize=True),
}
"""Outputs that are made of results for all rows of a pack at once."""


ALSO_AT_ONCE = {
    "signals": ("UniSpeechForCTC", [raysp.Signals()]),
    "speech": ("UniSpeechForCTC", [raysp.Speech()]),
}


@pytest.mark.parametrize("name", OF_FRAMES)
def test_heads_that_pool_rows_cost_no_launches_of_rows(name, waves, checkpoints):
    output = OF_FRAMES[name]
    one = op(checkpoints(name), [output])
    found, of_parts = ([launches_of(one, waves[:rows], parts=parts) for rows in (1, 3, 5)] for parts in (False, True))
    in_batches = Labelling(
        str(checkpoints(name)), lambda loaded: [output.op(loaded)], batch_seconds=8, dtype="bfloat16", device=NAME
    )
    assert found[0] == found[1] == found[2] <= 1.2 * launches_of(in_batches, waves[:3])
    assert of_parts[0] == of_parts[1] == of_parts[2]


@pytest.mark.parametrize("name", ALSO_AT_ONCE)
def test_outputs_of_samples_cost_no_launches_of_rows(name, waves, checkpoints):
    checkpoint, outputs = ALSO_AT_ONCE[name]
    one = op(checkpoints(checkpoint), outputs)
    for parts in (False, True):
        found = [launches_of(one, waves[:rows], parts=parts) for rows in (1, 3, 5)]
        assert found[0] == found[1] == found[2]


def launches_of(one: Labelling, waves: Sequence[np.ndarray], *, parts: bool = False) -> int:
    """Return the launches of a block after one that makes constants; `parts`: rows are windows of longer ones."""
    block = windows_of([RowStatus(row, 0, None) for row in range(len(waves))], waves) if parts else block_of(waves)
    one(block)
    with counted() as counts:
        one(block)
    return counts.launches


def windows_of(places: Sequence[RowStatus], waves: Sequence[np.ndarray]) -> pa.Table:
    """Return a block of windows, of rows or of parts of longer ones."""
    for place, wave in zip(places, waves, strict=True):
        place.seconds = len(wave) / 16_000
    return with_waves(statuses_table(places), waves)


def test_packs_are_not_measured(checkpoints):
    one = op(checkpoints("UniSpeechForSequenceClassification"), [raysp.Classes()], measured={})
    assert one.grouping.in_packs
    assert one.measuring is None


def test_float32_goes_in_batches_whatever_a_certificate_says(checkpoints):
    one = op(checkpoints("UniSpeechForCTC"), [raysp.Transcript()], dtype="float32")
    assert (one.grouping.batching, one.grouping.size) == (Batching.FREE, None)


@pytest.mark.parametrize("name", CLASSES)
def test_no_op_has_another_layout_for_other_neighbours(name, waves, checkpoints):
    one = op(checkpoints(name), CLASSES[name])
    arithmetic = partial(seen_arithmetic, with_results=name in CASES)
    arithmetic(one, waves)  # makes what is kept for all passes
    alone = {row: arithmetic(one, [waves[row]]) for row in (0, 1, 2, 4)}
    of_all_rows = alone[0] + alone[1] - arithmetic(one, waves[:2])
    assert sum(size_in(seen, one.grouping.size) for seen in of_all_rows) > 5
    for rows in [(1, 0), (4, 2, 1)]:
        expected = sum((alone[row] for row in rows), Counter())
        expected.subtract({seen: count * (len(rows) - 1) for seen, count in of_all_rows.items()})
        found = arithmetic(one, [waves[row] for row in rows])
        assert {seen: count for seen, count in expected.items() if count} == found


OF_OUTPUTS = (
    *(
        "words and characters",
        "n-best texts",
        "beams with a language model",
        "alignment of labels",
        "signals",
        "speech",
    ),
    *("turns by vectors", "turns by classes of frames", "embeddings of frames", "beams over pieces"),
)


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_outputs_read_each_row_by_itself(name, waves, checkpoints, tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA)
    checkpoint, outputs = OUTPUTS[name]
    one = op(
        checkpoints(checkpoint), [with_files(output, checkpoints, str(tmp_path / "lm.arpa")) for output in outputs]
    )
    alone = {row: bits(labels(one, block_of([wave], [row])))[row] for row, wave in enumerate(waves)}
    for order in [(0, 1, 2, 3, 4), (3, 0, 4)]:
        assert bits(labels(one, block_of([waves[row] for row in order], order))) == {row: alone[row] for row in order}


OF_PARTS = {
    **{name: (name, CASES[name]) for name in ("UniSpeechForCTC", "Wav2Vec2BertForXVector", "ParakeetForCTC")},
    **{name: OUTPUTS[name] for name in ("alignment of labels", "signals", "speech", "embeddings of frames")},
}


@pytest.mark.parametrize("name", OF_PARTS)
def test_so_are_windows_of_longer_rows(name, waves, checkpoints):
    checkpoint, outputs = OF_PARTS[name]
    one = op(checkpoints(checkpoint), outputs)
    places = [RowStatus(0, 0, None), RowStatus(0, 1, 2), RowStatus(1), RowStatus(2)]

    def staged(chosen: Sequence[int]) -> list[str]:
        block = windows_of([places[place] for place in chosen], [waves[place] for place in chosen])
        return [json.dumps(row, sort_keys=True, default=str) for row in one(block)[0].to_pylist()]

    alone = [staged([place])[0] for place in range(4)]
    assert staged([0, 1, 2, 3]) == alone
    assert staged([3, 1, 0]) == [alone[3], alone[1], alone[0]]


def seen_arithmetic(one: Labelling, waves: Sequence[np.ndarray], *, with_results: bool) -> Counter[tuple[object, ...]]:
    """Return the layouts of the ops of a pack, and of its outputs, in the calling thread."""
    given = one.prepare(block_of(waves))
    batch = OneBatch(one, given.pending, given)
    batch.fill()
    with Arithmetic() as mode, torch.inference_mode():
        batch.launch()
        if with_results:
            batch.columns.results()
    batch.release()
    return mode.seen


def size_in(seen: tuple[object, ...], size: int | None) -> bool:
    return any(isinstance(layout, tuple) and size in layout for layout in seen)


@pytest.mark.parametrize("name", CASES)
def test_the_host_waits_once_for_all_rows_of_a_pack(name, waves, checkpoints):
    one = op(checkpoints(name), CASES[name])
    one(block_of(waves))  # constants are made
    with counted() as counts:
        one(block_of(waves))
    assert (sum(counts.waits.values()), sum(counts.copies_out.values())) == (1, 1)
    assert (sum(counts.copies_in.values()), counts.blocking, counts.pageable_in) == (1, {}, {})


@pytest.mark.parametrize("multiple", [64, 640])
def test_samples_go_end_to_end_with_zeros_between(multiple, waves):
    device = torch.device(NAME)
    room = Room(device)
    fill([np.full(100_000, 7, np.int16)], device, room).tensors()
    sending = fill_pack(waves, device, room, multiple=multiple, samples=8 * 16_000, rows=9)
    samples, counts = sending.tensors()
    found, places = samples.cpu().numpy(), end_to_end([*map(len, waves)], multiple)
    assert counts.cpu().tolist() == [*map(len, waves), 0, 0, 0, 0]
    assert all(np.array_equal(found[place], wave) for place, wave in zip(places, waves, strict=True))
    assert np.count_nonzero(found) == sum(map(np.count_nonzero, waves))
    assert len(found) == 8 * 16_000
    assert all(place.start % multiple == 0 for place in places)
