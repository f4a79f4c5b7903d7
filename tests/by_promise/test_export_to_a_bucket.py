"""Exports to object storage: files that were deleted or edited since are noticed, as in a folder."""

import shutil

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import CHECKPOINT, digits_table


@pytest.fixture
def labels(tmp_path, without_ray) -> str:
    (tmp_path / "in").mkdir()
    table = digits_table(3)
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(words=True)])]
    sink = raysp.Parquet(f"{tmp_path}/out")
    raysp.run(raysp.Pipeline(raysp.Shards(f"{tmp_path}/in"), steps=steps, sink=sink), progress=False)
    return f"{tmp_path}/out"


@pytest.mark.slow
@pytest.mark.parametrize("to", ["srt", "ctm", "dataset"])
def test_files_that_were_edited_or_deleted_are_noticed(s3, labels, tmp_path, to):
    bucket = s3.bucket()

    def again():
        found = raysp.export(labels, to=to, dest=f"s3://{bucket}/x", dest_options=s3.options, trust=True)
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        s3.download(bucket, tmp_path / "copy")
        files = sorted(path for path in (tmp_path / "copy" / "x").rglob("*.*") if path.is_file())
        files = [path for path in files if ".raysp" not in path.parts and path.name != "README.md"]
        return found, {str(path.relative_to(tmp_path / "copy" / "x")): path.read_bytes() for path in files}

    before = again()[1]
    name = min(before)
    (tmp_path / "edited" / name).parent.mkdir(parents=True)
    (tmp_path / "edited" / name).write_bytes(before[name][:-1])
    s3.upload(tmp_path / "edited", bucket, "x/")
    found, after = again()
    assert (found.kept, found.rewritten) == ((1, 0) if to == "srt" else (0, 1))
    assert after == ({**before, name: before[name][:-1]} if to == "srt" else before)
    s3.client.delete_object(Bucket=bucket, Key=f"x/{name}")
    found, after = again()
    assert (found.kept, found.rewritten, after) == (0, 1, before)
