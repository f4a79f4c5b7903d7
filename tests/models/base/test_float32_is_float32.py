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


def by_labeller(shard, sink, dtype):
    label = raysp.Label(str(CHECKPOINT), outputs=[FlagsOfPass()], dtype=dtype)
    return raysp.Labeller([raysp.Decode(), label])(pq.read_table(shard)).column("pred_text").to_pylist()


def by_run(shard, sink, dtype):
    made = a_pipeline(str(shard), sink, label={"outputs": [FlagsOfPass()], "dtype": dtype})
    raysp.run(made, engine="here", progress=False)
    return [text for file in sink.glob("*.parquet") for text in pq.read_table(file).column("pred_text").to_pylist()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("verb", [by_labeller, by_run])
def test_labels_are_computed_without_tf32(verb, dtype, shard, tmp_path):
    assert [json.loads(one) for one in verb(shard, tmp_path / "sink", dtype)] == [EXACT] * ROWS


def test_tf32_is_used_by_name():
    """On the CPU, where a pipeline would refuse it."""
    op = Labelling(
        str(CHECKPOINT), lambda loaded: [FlagsOfPass().op(loaded.summary, loaded)], batch_seconds=8, dtype="tf32"
    )
    rows = op(block_of([np.zeros(16_000, np.int16)]))[0].to_pylist()
    assert [json.loads(row["pred_text"]) for row in rows] == [ROUNDED]
    assert op.loaded.dtype == torch.float32
