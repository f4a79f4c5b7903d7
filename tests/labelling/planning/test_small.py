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


def test_little_audio_on_the_cpus_of_one_machine_is_small():
    assert Opened.of(a_pipeline(), MACHINE).is_small([SHARD, SHARD])
    assert Opened.of(a_pipeline(), MACHINE).is_small([])


def test_more_bytes_are_not():
    assert not Opened.of(a_pipeline(), MACHINE).is_small([SHARD, SHARD, replace(SHARD, num_bytes=1)])


@pytest.mark.parametrize("kind", ["manifest", "folder"])
def test_recordings_that_are_read_by_path_count_as_rows(kind):
    by_path = replace(SHARD, kind=kind, num_bytes=10 * SMALL_BYTES, num_rows=SMALL_ROWS)
    assert Opened.of(a_pipeline(), MACHINE).is_small([by_path])
    assert not Opened.of(a_pipeline(), MACHINE).is_small([by_path, replace(by_path, num_rows=1)])
    with_root = a_pipeline(raysp.Shards("in", audio_root="/recordings"))
    assert not Opened.of(with_root, MACHINE).is_small([replace(SHARD, num_rows=SMALL_ROWS + 1)])


@pytest.mark.parametrize(
    "label",
    [
        {"pool": raysp.Pool(2)},
        {"pool": raysp.Pool((1, 2))},
        {"pool": raysp.Pool(memory=2**30)},
        {"device": "cuda"},
        {"pool": raysp.Pool(gpus=2)},
    ],
)
def test_a_pool_or_device_that_one_process_does_not_give_needs_ray(label):
    assert not Opened.of(a_pipeline(label=label), MACHINE).is_small([SHARD])


def test_a_cluster_is_used():
    assert not Opened.of(a_pipeline(), replace(MACHINE, machine_cpus=None)).is_small([SHARD])


@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_one_process_uses_a_gpu_of_the_machine(device):
    assert Opened.of(a_pipeline(label={"device": device}), replace(MACHINE, gpus=1)).is_small([SHARD])
    on_part_of_it = {"device": device, "pool": raysp.Pool(gpus=0.5)}
    assert Opened.of(a_pipeline(label=on_part_of_it), replace(MACHINE, gpus=1)).is_small([SHARD])
