"""Objects of an archive class: the reason says so and how to restore them, for shards and for recordings."""

import io
import json

import pyarrow.parquet as pq
import pytest

import raysp
from tests import s3_servers
from tests.corpora import a_pipeline, rows_table, wav

REASON = "it is archived (class GLACIER, DEEP_ARCHIVE or an archive tier): restore it (aws s3api restore-object"


@pytest.fixture
def put(moto_server, monkeypatch):
    """Write an object, in a class of storage, to a bucket, and return the url of its folder."""
    monkeypatch.setenv(s3_servers.SECRET_VARIABLE, moto_server.secret)
    bucket = moto_server.bucket()

    def write(name: str, data: bytes, kind: str = "STANDARD") -> str:
        moto_server.client.put_object(Bucket=bucket, Key=f"in/{name}", Body=data, StorageClass=kind)
        return moto_server.url(bucket, "in")

    return write


@pytest.fixture
def source(moto_server):
    return lambda url, **fields: raysp.Shards(url, storage_options=moto_server.options, **fields)


def test_a_shard_is_listed_with_the_reason(put, source, tmp_path):
    file = io.BytesIO()
    pq.write_table(rows_table(2), file)
    put("a.parquet", file.getvalue(), "DEEP_ARCHIVE")
    url = put("b.parquet", file.getvalue())
    plan = raysp.plan(a_pipeline(source(url), tmp_path / "out"))
    assert [shard.name for shard in plan.corpus.shards] == ["b.parquet"]
    assert REASON in plan.corpus.unreadable["a.parquet"]
    assert "permission" not in plan.corpus.unreadable["a.parquet"]


class TestRecordings:
    @pytest.mark.parametrize("of", ["manifest", "folder"])
    def test_the_plan_refuses_a_corpus_of_them(self, put, source, tmp_path, of):
        for row in range(3):
            url = put(f"{row}.wav", wav(seed=row), "GLACIER")
        if of == "manifest":
            lines = "".join(json.dumps({"audio_filepath": f"{row}.wav"}) + "\n" for row in range(3))
            url = f"{put('m.jsonl', lines.encode())}/m.jsonl"
        with pytest.raises(raysp.PlanError) as refused:
            raysp.plan(a_pipeline(source(url), tmp_path / "out"))
        assert REASON in str(refused.value)
        assert "0.wav: " in str(refused.value)

    @pytest.mark.usefixtures("without_ray")
    def test_a_single_one_costs_its_row_and_is_labelled_once_it_is_restored(self, put, source, tmp_path):
        for row in range(4):
            url = put(f"{row}.wav", wav(8000, seed=row), "GLACIER" if row == 1 else "STANDARD")
        pipeline = a_pipeline(source(url), tmp_path / "out")
        raysp.run(pipeline, progress=False)
        [file] = (tmp_path / "out").glob("*.parquet")
        rows = pq.read_table(file).to_pylist()
        assert [row["error_type"] for row in rows] == [None, "not_readable", None, None]
        assert "it is archived: restore it and run raysp retry" in rows[1]["error_message"]
        assert "permission" not in rows[1]["error_message"]
        put("1.wav", wav(8000, seed=1))
        raysp.retry(str(tmp_path / "out"), pipeline=pipeline, progress=False)
        assert pq.read_table(file).column("status").to_pylist() == ["ok"] * 4
