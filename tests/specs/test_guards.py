"""Guards of secrets in specs, switched off one by one: the fault that each prevents happens then."""

from pathlib import Path

import pytest

import raysp
from raysp import SpecError
from tests.corpora import a_pipeline, write_shard

SECRET = "sEcReT/neverInAMessage"


def pipeline(folder: Path, options: dict[str, object]) -> raysp.Pipeline:
    write_shard(folder / "in" / "a.parquet", 2)
    sink = raysp.Parquet(str(folder / "out"), storage_options=options)
    return a_pipeline(raysp.Shards(f"{folder}/in/*.parquet", storage_options=options), sink)


def written(folder: Path) -> bytes:
    files = [file for file in (folder / "out").rglob("*") if file.is_file()]
    assert {"run.json", "a.parquet"} <= {file.name for file in files}
    return b"".join(file.read_bytes() for file in files)


@pytest.mark.slow
def test_without_the_refusal_of_literals_a_secret_would_be_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_SECRET", SECRET)
    raysp.run(pipeline(tmp_path / "by name", {"secret": raysp.Env("THE_SECRET")}), engine="here", progress=False)
    assert SECRET.encode() not in written(tmp_path / "by name")
    with pytest.raises(SpecError, match="holds a literal secret"):
        pipeline(tmp_path / "literal", {"secret": SECRET})
    monkeypatch.setattr("raysp.specs.pipeline.refuse_literal_secrets", lambda options, where: None)
    raysp.run(pipeline(tmp_path / "literal", {"secret": SECRET}), engine="here", progress=False)
    assert SECRET.encode() in written(tmp_path / "literal")
