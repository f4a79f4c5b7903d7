"""TF32 is off in each pass of a model, by whatever verb it is run and whatever the process allows."""

import pyarrow.parquet as pq
import pytest
import torch

import raysp
from tests.corpora import CHECKPOINT, a_pipeline, digits_table, write_shard

EXACT = [False, False, "ieee", "ieee", "ieee", "ieee"]


def flags() -> list[object]:
    """Return whether products and convolutions may use TF32, by both interfaces."""
    backends = torch.backends
    newer = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return [backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, *(one.fp32_precision for one in newer)]


@pytest.fixture
def seen():
    """Flags in each pass, of a process whose user allows TF32, which stays allowed."""
    torch.set_float32_matmul_precision("medium")
    before, found = flags(), []
    assert before != EXACT
    hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: found.append(flags()))
    yield found
    hook.remove()
    assert flags() == before
    torch.set_float32_matmul_precision("highest")
    for part in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        part.fp32_precision = "none"


def test_labels_are_computed_without_tf32(tmp_path, seen):
    shard = write_shard(tmp_path / "in" / "a.parquet", table=digits_table(3))
    exact, half = (
        [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], dtype=dtype)]
        for dtype in ("float32", "bfloat16")
    )
    raysp.Labeller(exact)(pq.read_table(shard))
    of_the_first = len(seen)
    raysp.run(a_pipeline(str(shard), tmp_path / "sink", steps=half), engine="here", progress=False)
    assert 0 < of_the_first < len(seen)
    assert all(one == EXACT for one in seen)
