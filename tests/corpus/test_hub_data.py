"""Data sets of the hub as sources, from a server that stands in for the hub."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

import raysp
from raysp import ChangedError, PlanError, SpecError
from tests import hub_server
from tests.corpora import a_pipeline, write_shard
from tests.hub_server import COMMIT, HubServer

NAME = "owner/voices"
LATER = "f" * 40
CARD = """---
configs:
- config_name: en
  data_files:
  - {split: train, path: en/train-*}
  - {split: test, path: en/test-*}
- config_name: de
  data_files:
  - {split: test, path: de/*.parquet}
---
"""


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A hub for this process, with empty caches."""
    with hub_server.serving() as server:
        hub_server.use_cache(monkeypatch, tmp_path / "hub", server.url)
        for name, value in {"HF_ENDPOINT": server.url, "HF_DATASETS_CACHE": tmp_path / "datasets"}.items():
            monkeypatch.setattr(datasets.config, name, value)
        monkeypatch.chdir(tmp_path)
        yield server


@pytest.fixture
def data(hub, tmp_path) -> Path:
    """A data set with two configurations."""
    folder = tmp_path / "repository"
    for name, rows in (("en/train-0", 4), ("en/test-0", 2), ("en/test-1", 1), ("de/0", 1)):
        write_shard(folder / f"{name}.parquet", rows)
    (folder / "README.md").write_text(CARD)
    hub.push(f"datasets/{NAME}", folder)
    return folder


def source(split: str = "test", **fields: object) -> raysp.Shards:
    return raysp.Shards(**{"url": NAME, "split": split, "config": "en", **fields})


def split(name: str = "test", **fields: object) -> tuple[str | None, tuple[str, ...]]:
    """Return the root and the urls that a plan finds for a split."""
    found = raysp.plan(a_pipeline(source(name, **fields), "out")).pipeline.source
    return found.root, found.urls


@pytest.mark.slow
def test_the_files_of_a_split_are_one_glob_at_the_commit(data):
    root = f"hf://datasets/{NAME}@{COMMIT}"
    assert split() == (root, (f"{root}/en/test-*.parquet",))
    assert split("train", url=f"{NAME}@main") == (root, (f"{root}/en/train-0.parquet",))
    assert split(config="de", url=f"{NAME}@{COMMIT}") == (root, (f"{root}/de/0.parquet",))
    write_shard(data / "en" / "test-of-others.parquet")  # for which no glob of the others is right
    (data / "README.md").write_text(CARD.replace("en/test-*", "'en/test-[01]*'"))
    assert [url.rpartition("/")[2] for url in split()[1]] == ["test-0.parquet", "test-1.parquet"]


@pytest.mark.slow
def test_a_split_is_labelled_and_verified_from_the_hub_and_stays_at_its_commit(hub, data, tmp_path):
    pipeline = a_pipeline(source(), tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    sink = tmp_path / "out"
    assert sorted(str(file.relative_to(sink)) for file in sink.rglob("*.parquet")) == [
        "en/test-0.parquet",
        "en/test-1.parquet",
    ]
    write_shard(data.with_name("later") / "en" / "test-0.parquet", 9)
    hub.push(f"datasets/{NAME}", data.with_name("later"), LATER)
    plan = raysp.plan(pipeline)
    assert (plan.todo, plan.num_rows) == ((), 3)
    assert plan.pipeline.source.url == (f"hf://datasets/{NAME}@{COMMIT}/en/test-*.parquet",)
    for how in ({"trust": True}, {"pipeline": pipeline}):
        verified = raysp.verify(str(sink), **how)
        assert (verified.rows, verified.differences, verified.unused) == (3, (), ())
    with pytest.raises((PlanError, ChangedError)):
        raysp.plan(a_pipeline(raysp.Shards(f"{NAME}@{LATER}", split="test"), tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "dev"}, r"'owner/voices' of the Hugging Face hub: found no split 'dev'; it has train, test: give"),
        ({"config": "fr"}, r"(?s)not found.*en.*de.*give one of its configurations as source.config"),
        ({"config": None}, r"(?s)en.*de.*give one of its configurations as source.config"),
        ({"url": "owner/none"}, r"correct the name, or log in \(hf auth login, or HF_TOKEN\) if it is private"),
        ({"url": f"{NAME}@v9"}, r"it has no revision 'v9': give a branch, tag or commit that it has"),
    ],
)
def test_what_the_hub_does_not_have_is_refused_with_what_it_has(data, tmp_path, fields, message):
    wanted = raysp.Shards(**{"url": NAME, "split": "test", "config": "en", **fields})
    with pytest.raises(PlanError, match=message):
        raysp.plan(a_pipeline(wanted, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_data_set_that_is_made_by_a_script_or_holds_no_parquet_is_refused(hub, data):
    (data / "voices.py").write_text("raise SystemExit")
    with pytest.raises(PlanError, match=r"produced by the script voices.py, which raysp does not run"):
        split()
    plain = data.with_name("plain")
    plain.mkdir()
    (plain / "test.csv").write_text("id\n1\n")
    hub.push("datasets/owner/plain", plain)
    with pytest.raises(PlanError, match=r"'test' holds files such as 'test.csv', expected Parquet; download it and"):
        split(url="owner/plain", config=None)


def test_without_a_network_the_remedy_is_named(monkeypatch, tmp_path):
    hub_server.use_cache(monkeypatch, tmp_path / "hub")
    with pytest.raises(PlanError, match=r"check that this machine can reach the hub \(HF_ENDPOINT, HF_HUB_OFFLINE"):
        split(config=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "s3://bucket/x", "split": "test"}, r"split='test' needs a data set of the Hugging Face hub"),
        ({"url": ["owner/a", "owner/b"], "split": "test"}, r"needs a data set of the Hugging Face hub"),
        ({"url": "owner/a", "config": "en"}, r"config='en' given without split"),
    ],
)
def test_a_split_goes_with_the_id_of_one_data_set(fields, message):
    with pytest.raises(SpecError, match=message):
        raysp.Shards(**fields)
