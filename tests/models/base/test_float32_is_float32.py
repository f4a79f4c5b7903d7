"""TF32 is off in each pass of `dtype="float32"`, by whatever verb it is run, and on by name."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp.ops.labelling import Labelling
from raysp.specs.values import spec
from tests.corpora import CHECKPOINT, DEMO, a_pipeline
from tests.here import run_without_ray
from tests.ops.test_labelling import block_of

ROWS = 3


@spec
class FlagsOfPass(raysp.Transcript):
    """A transcript whose texts are the flags of TF32 while the model runs."""

    def op(self, checkpoint, loaded=None):
        op, found = super().op(checkpoint, loaded), []
        if loaded is None:
            return op
        projection = loaded.model.speech_encoder.feature_projection
        projection.register_forward_pre_hook(lambda *_: found.append(flags()))

        class Op:
            schema, staged, layers, empty, join = op.schema, op.staged, op.layers, op.empty, op.join

            select = op.select

            def columns(self, arrays, rows):
                columns = op.columns(arrays, rows)
                return [[json.dumps(found[-1])] * len(columns[0]), *columns[1:]]

        return Op()


def flags() -> list[object]:
    """Return whether products and convolutions may use TF32, by both interfaces."""
    backends = torch.backends
    newer = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return [backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, *(one.fp32_precision for one in newer)]


EXACT = [False, False, "ieee", "ieee", "ieee", "ieee"]
ROUNDED = [True, True, "tf32", "tf32", "tf32", "tf32"]


@pytest.fixture(autouse=True)
def allowed_by_a_user():
    torch.set_float32_matmul_precision("medium")
    before = flags_or_raises()
    yield
    assert flags_or_raises() == before
    torch.set_float32_matmul_precision("highest")
    for part in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        part.fp32_precision = "none"


def flags_or_raises():
    assert torch.backends.cudnn.allow_tf32
    return flags()


@pytest.fixture
def shard(tmp_path):
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, ROWS)
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "0.parquet")
    return tmp_path / "in" / "0.parquet"


def label(**options) -> raysp.Label:
    return raysp.Label(str(CHECKPOINT), outputs=[FlagsOfPass()], dtype="float32", **options)


def by_labeller(shard, sink, monkeypatch):
    return raysp.Labeller([raysp.Decode(), label()])(pq.read_table(shard)).column("pred_text").to_pylist()


def by_run(shard, sink, monkeypatch):
    run_without_ray(monkeypatch)
    return _run(shard, sink)


def _run(shard, sink):
    made = a_pipeline(str(shard), sink, label={"outputs": [FlagsOfPass()], "dtype": "float32"})
    raysp.run(made, progress=False)
    return texts_of(sink)


def texts_of(sink):
    return [text for file in sink.glob("*.parquet") for text in pq.read_table(file).column("pred_text").to_pylist()]


def by_evaluation(shard, sink, monkeypatch):
    run_without_ray(monkeypatch)
    step = label()
    raysp.evaluate(step, str(shard), text="text", sink=str(sink), progress=False)
    return texts_of(sink)


@pytest.mark.parametrize("verb", [by_labeller, by_run, by_evaluation])
def test_labels_in_float32_are_computed_without_tf32(verb, shard, tmp_path, monkeypatch):
    found = verb(shard, tmp_path / "sink", monkeypatch)
    assert [json.loads(one) for one in found] == [EXACT] * ROWS


@pytest.mark.parametrize(("dtype", "expected"), [("float32", EXACT), ("bfloat16", EXACT), ("tf32", ROUNDED)])
def test_tf32_is_used_by_name_alone_with_weights_in_float32(dtype, expected):
    op = Labelling(
        str(CHECKPOINT), lambda loaded: [FlagsOfPass().op(loaded.summary, loaded)], batch_seconds=8, dtype=dtype
    )
    rows = op(block_of([np.zeros(16_000, np.int16)]))[0].to_pylist()
    assert [json.loads(row["pred_text"]) for row in rows] == [expected]
    assert op.loaded.dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)
