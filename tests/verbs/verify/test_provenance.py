"""The run, the checkpoint and the pipeline of each row, from the metadata of label shards."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp.sink import footer
from raysp.sink.run_record import every_run
from raysp.sink.sinks import Sink
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
def test_rows_that_were_retried_name_the_run_of_the_last_retry_and_the_others_the_first_run(tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    pipeline = a_pipeline(write_manifest(tmp_path, [True, False, True, False]), tmp_path / "out")
    raysp.run(pipeline, progress=False)
    write_manifest(tmp_path, [True, True, True, False])
    raysp.retry(f"{tmp_path}/out", pipeline=pipeline, progress=False)
    write_manifest(tmp_path, [True] * 4)
    raysp.retry(f"{tmp_path}/out", pipeline=pipeline, progress=False)
    sink = Sink.open(f"{tmp_path}/out")
    first, second, third = (run.run_id for run in every_run(sink.store, sink.existing_record()))
    [shard] = sink.shards()
    assert footer.runs(sink.store, shard) == [first, second, first, third]
    found = pq.read_metadata(tmp_path / "out" / shard.name).metadata
    assert found[b"raysp.run"].decode() == first
    assert json.loads(found[b"raysp.retried"]) == {second: [1], third: [3]}
    assert found[b"raysp.checkpoint_digest"]
