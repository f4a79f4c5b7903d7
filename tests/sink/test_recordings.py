"""Files that rows name, replaced while a sink is labelled or after it was: no label is of two of their contents."""

import json
import os
import re

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import raysp
from raysp import verify
from tests import kit
from tests.corpora import AUDIO, a_pipeline, wav, write_shard

NAMES = [f"{number}.wav" for number in range(6)]


@pytest.fixture
def audio(tmp_path):
    folder = tmp_path / "audio"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(wav(1600 + 160 * number))
    return folder


def replace_recording(audio, number: int, num_samples: int = 8000) -> None:
    """Put another file in the place of a recording, in one step."""
    (audio / "new").write_bytes(wav(num_samples, seed=1))
    (audio / "new").replace(audio / NAMES[number])


@pytest.fixture
def pipeline(request, audio, tmp_path):
    """A pipeline over six rows that are read by path, but for the second one of "mixed", which is embedded."""
    out = tmp_path / "out"
    kind = getattr(request, "param", "mixed")
    if kind == "manifest":
        (audio / "m.jsonl").write_text("\n".join(json.dumps({"audio_filepath": name, "id": name}) for name in NAMES))
        return a_pipeline(raysp.Shards(str(audio / "m.jsonl")), out)
    rows = [{"bytes": None, "path": name} for name in NAMES]
    rows[1]["bytes"] = (audio / NAMES[1]).read_bytes()
    table = pa.table({"id": NAMES, "audio": pa.array(rows, AUDIO)})
    shard = write_shard(tmp_path / "in" / "m.parquet", table=table)
    return a_pipeline(raysp.Shards(str(shard), audio_root=str(audio)), out)


def labels_of(pipeline) -> dict[str, float]:
    return {row["id"]: row["seconds"] for row in kit.rows(pipeline.sink.url, "id", "seconds")}


def stage(pipeline: raysp.Pipeline, audio) -> None:
    """Stage all rows of which the last one is an error, so that the shard is not committed."""
    (audio / NAMES[5]).write_bytes(b"no audio at all")
    kit.interrupted(pipeline)
    assert raysp.status(pipeline.sink.url).shards_staged == 1


EXPECTED = {name: (1600 + 160 * number) / 16_000 for number, name in enumerate(NAMES)}


class TestCommit:
    @pytest.mark.slow
    def test_a_file_replaced_before_the_commit_has_the_label_of_what_was_read(self, pipeline, audio):
        stage(pipeline, audio)
        replace_recording(audio, 2)
        raysp.run(pipeline, engine="here", progress=False)
        assert labels_of(pipeline) == {**EXPECTED, "5.wav": None}
        (difference,) = verify(pipeline.sink.url, trust=True).differences
        assert "row 2 ('2.wav'); restore" in difference

    @pytest.mark.slow
    def test_a_file_replaced_between_two_reads_of_it_is_labelled_by_the_next_run(self, audio, tmp_path):
        reads = []

        class Replacing(MemoryFileSystem):
            cachable = False
            store: dict[str, object] = {}  # noqa: RUF012 - shared by the instances, as in the base
            pseudo_dirs = [""]  # noqa: RUF012

            def cat_file(self, path: str, *arguments: object, **keywords: object) -> bytes:
                data = super().cat_file(path, *arguments, **keywords)
                if path.endswith("4.wav"):
                    reads.append(path)
                    if len(reads) == 1:
                        self.pipe_file(path, wav(8000, seed=1))
                return data

        fsspec.register_implementation("memory", Replacing, clobber=True)
        try:
            Replacing().put(f"{audio}/", "memory://replaced/", recursive=True)
            rows = [{"bytes": None, "path": name} for name in NAMES]
            shard = write_shard(
                tmp_path / "in" / "m.parquet", table=pa.table({"id": NAMES, "audio": pa.array(rows, AUDIO)})
            )
            pipeline = a_pipeline(raysp.Shards(str(shard), audio_root="memory://replaced"), tmp_path / "out")
            with pytest.raises(raysp.RunError, match=r"4.wav: it was replaced while it was read; run again"):
                raysp.run(pipeline, engine="here", progress=False)
            raysp.run(pipeline, engine="here", progress=False)
            assert verify(pipeline.sink.url, trust=True).differences == ()
        finally:
            fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
        assert len(reads) > 1
        assert labels_of(pipeline) == {**EXPECTED, "4.wav": 0.5}


class TestFinished:
    @pytest.mark.slow
    @pytest.mark.parametrize("pipeline", ["manifest", "mixed"], indirect=True)
    def test_verify_names_rows_and_its_command_labels_the_shard_again(self, pipeline, audio):
        raysp.run(pipeline, engine="here", progress=False)
        assert verify(pipeline.sink.url, trust=True).differences == ()
        replace_recording(audio, 2)
        os.utime(audio / NAMES[3], ns=(5, 5))
        raysp.run(pipeline, engine="here", progress=False)  # the shard itself is as it was: nothing is to do
        printed = kit.run(["verify", pipeline.sink.url, "--trust"]).err
        assert "row 2 ('2.wav'), row 3 ('3.wav')" in printed
        command = re.search("`raysp (.*)`", printed)[1]
        assert kit.run(command).code == 0
        assert labels_of(pipeline) == {**EXPECTED, "2.wav": 0.5}
        assert verify(pipeline.sink.url, trust=True).differences == ()
