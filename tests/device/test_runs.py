"""Runs, evaluations, try-outs and calls of Python programs on the stand-in device: the labels of the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import PlanError, RunError
from raysp.ops.device_passes import AHEAD, LAUNCHED
from tests.corpora import CHECKPOINT, DEMO, write_shard
from tests.device.conftest import assert_same, spoken
from tests.device.stand_in import NAME, counted, faulty

ROWS = 9
LONGEST = 8000
"""Samples of a row for which a device with little memory has room."""


def is_of_waves(result: torch.Tensor) -> bool:
    """Return whether a result of the device has the samples of rows: each has more of them than anything else."""
    return result.dim() == 2 and result.shape[1] > LONGEST // 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A shard of real speech with its texts, and one row that is no audio."""
    folder = tmp_path_factory.mktemp("corpus")
    table = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0).slice(0, ROWS)
    audio = table.column("audio").to_pylist()
    audio[4] = {"bytes": b"no audio", "path": None}
    place = table.column_names.index("audio")
    return write_shard(folder / "a.parquet", table=table.set_column(place, "audio", pa.array(audio)))


def steps(device: str) -> list[Any]:
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    return [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=outputs, device=device, dtype="float32")]


def pipeline(corpus: Path, device: str, sink: Path | str = "not written") -> raysp.Pipeline:
    source = raysp.Shards(str(corpus), text="text")
    return raysp.Pipeline(source, steps=steps(device), sink=raysp.Parquet(str(sink)))


def labels_of(made: raysp.Pipeline) -> list[dict[str, object]]:
    return raysp.run(made, rows=ROWS, progress=False).table.to_pylist()


def test_a_batch_that_exceeds_the_memory_of_the_device_is_halved(corpus):
    expected = labels_of(pipeline(corpus, NAME))
    sizes = []

    def with_little_memory(result: torch.Tensor) -> None:
        if not is_of_waves(result):
            return
        sizes.append(len(result))
        if len(result) > 2 or result.shape[1] > LONGEST:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with faulty(with_little_memory):
        found = labels_of(pipeline(corpus, NAME))
    assert max(sizes) > 2
    too_large = [row["error_type"] == "out_of_memory" for row in found]
    assert 0 < sum(too_large) < ROWS - 1
    kept = [(row, other) for row, other, large in zip(found, expected, too_large, strict=True) if not large]
    assert_same(*map(list, zip(*kept, strict=True)))


def test_a_device_that_fails_or_that_torch_cannot_use_ends_the_try_out_with_an_error(corpus):
    def lost(result: torch.Tensor) -> None:
        if is_of_waves(result):
            raise RuntimeError("CUDA error: unspecified launch failure")

    message = r"the device failed and cannot be used any more.*launch failure"
    with faulty(lost), pytest.raises(RunError, match=message):
        raysp.run(pipeline(corpus, NAME), rows=ROWS, progress=False)
    with pytest.raises(PlanError, match=r"steps\.1\.device='xpu': the installed torch can use no such device"):
        raysp.run(pipeline(corpus, "xpu"), rows=3, progress=False)


def test_labels_of_many_batches_are_those_of_the_cpu_and_pinned_memory_is_made_once_for_all():
    waves = [one[: 16_000 + 800 * place] for place, (one, _) in enumerate(spoken(6))]
    waves = [(32767 * waves[place % 6]).astype(np.int16) for place in range(20)]
    outputs = [raysp.Transcript(words=True), raysp.Embedding(), raysp.Signals()]
    given = {"batch_seconds": 2, "dtype": "float32"}
    here, there = (
        raysp.Labeller([raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=outputs, device=device, **given)])
        for device in ("cpu", NAME)
    )
    assert_same(there.arrays(waves, 16_000).to_pylist(), here.arrays(waves, 16_000).to_pylist())
    with counted() as counts:
        for _ in range(5):
            there.arrays(waves, 16_000)
    batches, made = sum(counts.copies_in.values()), sum(counts.pinned.values())
    assert batches > 40
    assert batches < made <= batches + 4 * (LAUNCHED + AHEAD)  # of results, which are small, and while rooms grow
