"""The run, the checkpoint and the pipeline of label shards, from their metadata."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import a_pipeline, wav
from tests.here import run_without_ray


def write_manifest(folder: Path, there: list[bool]) -> str:
    """Write a manifest of recordings of which some are missing."""
    for row, is_there in enumerate(there):
        if is_there:
            (folder / f"{row}.wav").write_bytes(wav(3200, seed=row))
    lines = [json.dumps({"audio_filepath": f"{row}.wav"}) for row in range(len(there))]
    (folder / "m.jsonl").write_text("\n".join(lines))
    return f"{folder}/m.jsonl"


@pytest.mark.slow
def test_a_label_shard_names_the_run_or_retry_that_wrote_it(tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    pipeline = a_pipeline(write_manifest(tmp_path, [True, False, True, False]), tmp_path / "out")
    for there in ([True, False, True, False], [True, True, True, False], [True] * 4):
        write_manifest(tmp_path, there)
        if there[1]:
            raysp.retry(f"{tmp_path}/out", pipeline=pipeline, progress=False)
        else:
            raysp.run(pipeline, progress=False)
        [shard] = (tmp_path / "out").glob("*.parquet")
        found = pq.read_metadata(shard).metadata
        assert found[b"raysp.run"].decode() == raysp.status(f"{tmp_path}/out").last_run.run_id
        assert found[b"raysp.checkpoint_digest"]
