"""Folders that keep files with old rows: tables of Delta Lake, Iceberg and Hudi, and caches of the hub."""

from pathlib import Path

import pytest

import raysp
from tests import s3_servers
from tests.corpora import a_pipeline, wav, write_shard

TABLES = {
    "a Delta Lake table": ("", "_delta_log/00000000000000000000.json"),
    "an Iceberg table": ("data/", "metadata/v2.metadata.json"),
    "a Hudi table": ("", ".hoodie/hoodie.properties"),
}
"""Folder of the data, and a file of the log, by kind of table."""


def write_table(folder: Path, kind: str, partition: str = "") -> Path:
    data, log = TABLES[kind]
    for name in ("old", "new"):
        write_shard(folder / data / partition / f"part-{name}.parquet", 2)
    (folder / log).parent.mkdir(parents=True)
    (folder / log).write_text("{}")
    return folder


def refusal(source: raysp.Shards | str, out: Path) -> str:
    with pytest.raises(raysp.PlanError) as refused:
        raysp.plan(a_pipeline(source, out))
    return str(refused.value)


def num_rows(source: raysp.Shards | str | list[str], out: Path) -> int:
    source = raysp.Shards(source) if isinstance(source, list) else source
    return sum(shard.num_rows for shard in raysp.plan(a_pipeline(source, out)).corpus.shards)


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_refused_also_above_and_below_its_folder_and_a_list_of_its_files_is_labelled(tmp_path, kind):
    write_table(tmp_path / "in" / "table", kind, "lang=en")
    data = f"table/{TABLES[kind][0]}"
    for url in ("", "table", "table/**/*.parquet", f"{data}*/*.parquet", f"{data}lang=en"):
        message = refusal(str(tmp_path / "in" / url), tmp_path / "out")
        assert f"{tmp_path}/in/table: is {kind}, whose folder also holds" in message
        assert "Export the table as plain Parquet, or list its current files in source.url" in message
    current = f"{tmp_path}/in/{data}lang=en/part-new.parquet"
    assert num_rows(current, tmp_path / "out") == num_rows([current], tmp_path / "out") == 2


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_on_object_storage_is_refused(tmp_path, kind, moto_server, monkeypatch):
    monkeypatch.setenv(s3_servers.SECRET_VARIABLE, moto_server.secret)
    bucket, data = moto_server.bucket(), TABLES[kind][0]
    write_table(tmp_path / "table", kind)
    moto_server.upload(tmp_path / "table", bucket, "table/")
    for url in ("", f"/{data}*.parquet"):
        source = raysp.Shards(f"s3://{bucket}/table{url}", storage_options=moto_server.options)
        assert f"s3://{bucket}/table: is {kind}" in refusal(source, tmp_path / "out")


class TestCachesOfTheHub:
    def write(self, folder: Path, *, audio: bool = False) -> Path:
        cache = folder / "datasets--owner--voices"
        for revision in ("a1", "b2"):
            place = cache / "snapshots" / revision / "data"
            if audio:
                place.mkdir(parents=True)
                (place / "0.wav").write_bytes(wav())
            else:
                write_shard(place / "train.parquet", 2)
        (cache / "refs").mkdir()
        (cache / "refs/main").write_text("b2")
        return cache

    @pytest.mark.parametrize("audio", [False, True])
    def test_several_revisions_are_refused_with_the_main_one(self, tmp_path, audio):
        cache = self.write(tmp_path / "hub", audio=audio)
        for url in (cache, cache.parent, cache / "snapshots", f"{cache}/snapshots/*/data/*"):
            message = refusal(str(url), tmp_path / "out")
            assert f"{cache}: holds snapshots of 2 revisions ('a1', 'b2')" in message
            assert f"source.url='{cache}/snapshots/b2'" in message

    def test_one_revision_is_labelled(self, tmp_path):
        cache = self.write(tmp_path / "hub")
        assert num_rows(f"{cache}/snapshots/b2", tmp_path / "out") == 2
        (cache / "snapshots/a1/data/train.parquet").unlink()
        assert num_rows(str(cache), tmp_path / "out") == 2
