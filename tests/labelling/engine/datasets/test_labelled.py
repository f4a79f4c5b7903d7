"""`raysp.datasource`: what is labelled in a sink, read by Ray Data."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, StoreError, TrustError
from tests.corpora import a_pipeline, write_shard


@pytest.fixture
def pipeline(tmp_path):
    for name in ("a", "b", "deep/c"):
        write_shard(tmp_path / "in" / f"{name}.parquet", 25, row_group_size=10)
    sink = raysp.Parquet(str(tmp_path / "out"), keep=["text"])
    return a_pipeline(f"{tmp_path}/in/**/*.parquet", sink)


@pytest.fixture
def labelled(pipeline):
    """A sink of three label shards."""
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline.sink.url


def read(source, parallelism: int = 2) -> pa.Table:
    tasks = source.get_read_tasks(parallelism)
    assert len(tasks) == min(parallelism, len(source))
    return pa.concat_tables([table for task in tasks for table in task()])


@pytest.mark.slow
def test_all_committed_label_shards_are_read_and_nothing_else(labelled):
    source = raysp.datasource(labelled)
    expected = pa.concat_tables([pq.read_table(f"{labelled}/{name}.parquet") for name in ("a", "b", "deep/c")])
    for parallelism in (1, 2, 99):
        found = read(source, parallelism)
        assert found.sort_by("id").equals(expected.replace_schema_metadata(None).sort_by("id"))
    assert source.estimate_inmemory_data_size() > 0


@pytest.mark.slow
def test_files_that_no_run_committed_are_not_read(labelled, tmp_path):
    shutil.copy(f"{labelled}/a.parquet", f"{labelled}/copy.parquet")
    assert len(raysp.datasource(labelled)) == 3


@pytest.mark.slow
def test_columns_are_chosen_and_those_of_the_audio_shards_read_beside(labelled, tmp_path):
    found = read(raysp.datasource(labelled, columns=["id", "seconds"], beside=["audio", "language"]))
    assert found.column_names == ["id", "seconds", "audio", "language"]
    names = [tmp_path / "in" / f"{name}.parquet" for name in ("a", "b", "deep/c")]
    shards = pa.concat_tables([pq.read_table(name, columns=["id", "audio", "language"]) for name in names])
    assert found.select(["id", "audio", "language"]).sort_by("id").equals(shards.sort_by("id"))


def test_label_shards_with_ok_rows_only_get_the_recordings_of_these_rows(tmp_path):
    rows = pa.table({"id": ["a", "b", "c"], "audio": pa.array([b"", None, b""], pa.binary())})
    table = write_shard(tmp_path / "in" / "a.parquet", 3)
    whole = pq.read_table(table)
    audio = [row if place != 1 else None for place, row in enumerate(whole.column("audio").to_pylist())]
    whole = whole.set_column(1, "audio", pa.array(audio, whole.schema.field("audio").type))
    write_shard(table, table=whole)
    sink = raysp.Parquet(str(tmp_path / "out"), rows="ok")
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", sink, max_error_rate=1), engine="here", progress=False)
    found = read(raysp.datasource(sink.url, columns=["id"], beside=["language"]), 1)
    assert found.to_pydict() == {"id": ["a0", "a2"], "language": ["de", "de"]}
    assert rows.num_rows == 3


@pytest.mark.slow
def test_a_label_shard_that_is_replaced_or_removed_later_is_not_read(labelled):
    source = raysp.datasource(labelled)
    again = pq.read_table(f"{labelled}/a.parquet")
    pq.write_table(again, f"{labelled}/a.parquet")
    with pytest.raises(StoreError, match=r"a.parquet: was replaced after raysp.datasource was called; call it again"):
        read(source)


@pytest.mark.slow
def test_columns_that_do_not_exist_or_exist_twice_are_refused(labelled):
    with pytest.raises(PlanError, match=r"columns=\['no'\]: not in its label shards, which have id, text, row"):
        raysp.datasource(labelled, columns=["id", "no"])
    with pytest.raises(PlanError, match=r"beside=\['text'\]: the label shards have columns of the same names"):
        raysp.datasource(labelled, beside=["audio", "text"])


@pytest.mark.slow
def test_the_source_that_a_record_names_is_read_by_its_own_user_only(labelled, pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
    assert read(raysp.datasource(labelled)).num_rows == 75
    with pytest.raises(TrustError, match=r"its record names .*source.url"):
        raysp.datasource(labelled, beside=["audio"])
    for trusted in ({"pipeline": pipeline}, {"trust": True}):
        assert "audio" in read(raysp.datasource(labelled, beside=["audio"], **trusted)).column_names


def test_a_folder_that_is_no_sink_is_refused(tmp_path):
    with pytest.raises(PlanError, match="not a sink of raysp"):
        raysp.datasource(str(tmp_path))


@pytest.mark.cluster
def test_ray_data_reads_the_source_and_the_folder_itself(local_ray, labelled):
    import ray.data

    found = ray.data.read_datasource(raysp.datasource(labelled, columns=["id"], beside=["language"]))
    assert sorted(row["id"] for row in found.take_all()) == sorted(f"{n}{k}" for n in "abc" for k in range(25))
    assert found.schema().names == ["id", "language"]
    plain = ray.data.read_parquet(labelled)
    assert plain.count() == 75
    assert not any("/.raysp/" in name for name in plain.input_files())
