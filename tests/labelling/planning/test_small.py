"""Which runs are so small that they need no Ray."""

from dataclasses import replace

import pytest

import raysp
from raysp.cluster.resources import Resources
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.planning.run_plan import SMALL_BYTES, SMALL_ROWS, Opened
from tests.corpora import a_pipeline

MACHINE = Resources(cpus=2, machine_cpus=2)
SHARD = Shard("a.parquet", "in/a.parquet", SMALL_BYTES // 2, "1", 10, "0", (Piece(0, 10),))
BY_PATH = replace(SHARD, kind="manifest", num_bytes=10 * SMALL_BYTES, num_rows=SMALL_ROWS)


@pytest.mark.parametrize(
    ("label", "machine", "shards", "is_small"),
    [
        ({}, MACHINE, [SHARD, SHARD], True),
        ({}, MACHINE, [SHARD, SHARD, replace(SHARD, num_bytes=1)], False),
        ({}, MACHINE, [BY_PATH], True),
        ({}, MACHINE, [BY_PATH, replace(BY_PATH, num_rows=1)], False),
        ({"pool": raysp.Pool(2)}, MACHINE, [SHARD], False),
        ({"pool": raysp.Pool(memory=2**30)}, MACHINE, [SHARD], False),
        ({"device": "cuda"}, MACHINE, [SHARD], False),
        ({}, replace(MACHINE, machine_cpus=None), [SHARD], False),
        ({"device": "cuda", "pool": raysp.Pool(gpus=0.5)}, replace(MACHINE, gpus=1), [SHARD], True),
    ],
)
def test_little_audio_on_what_one_process_has_is_small(label, machine, shards, is_small):
    assert Opened.of(a_pipeline(label=label), machine).is_small(shards) == is_small
