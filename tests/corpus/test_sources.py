"""Kinds of sources: what each claims, and the names that sinks record."""

import pytest

import raysp
from raysp import ShardError
from raysp.corpus import sources
from tests.corpora import a_pipeline, write_shard


@pytest.mark.parametrize(
    ("name", "url", "in_folder", "expected"),
    [
        ("x.parquet", "in", True, True),
        ("x.feather", "in", True, False),
        ("x.tar", "in", True, True),
        ("x.tar.gz", "in", True, False),
        ("x.tar.gz", "in/*", False, True),
        ("x.feather", "in/*", False, True),
        ("part-00000", "in/*", False, True),
        ("x.jsonl", "in", True, False),
        ("x.json", "in/*", False, False),
        ("x.json", "in/*.json", False, True),
        ("x.wav", "in/*", False, False),
        ("x.txt", "in/*", False, False),
    ],
)
def test_a_glob_takes_more_files_than_a_folder_and_json_is_named(name, url, in_folder, expected):
    assert sources.is_shard(name, url, in_folder=in_folder) is expected


def test_names_of_kinds_are_recorded_in_sinks_and_never_change():
    names = ["parquet", "arrow", "shar", "manifest", "tar", "folder"]
    assert [one.name for one in sources.KINDS] == [one.kind.name for one in sources.KINDS] == names


def test_a_kind_of_a_later_version_is_refused_by_name():
    with pytest.raises(
        ShardError, match="source kind 'zip', expected one of parquet, arrow, shar, manifest, tar, folder"
    ):
        sources.kind_named("zip")


def test_a_file_is_read_by_the_kind_that_claims_its_name(tmp_path):
    for name, kind, stem in (
        ("a/x.parquet", "parquet", "a/x"),
        ("a.b/x.arrow", "arrow", "a.b/x"),
        ("x.feather", "arrow", "x"),
        ("x.jsonl.gz", "manifest", "x"),
        ("x.v1.json", "manifest", "x.v1"),
        ("x.tar", "tar", "x"),
        ("x.tar.gz", "tar", "x"),
        ("x.unknown", "parquet", "x"),
        ("a/.hidden", "parquet", "a/.hidden"),
    ):
        found = sources.kind_of_file(name)
        assert (found.name, found.stem(name)) == (kind, stem)
    write_shard(tmp_path / "in" / "de.parquet", 1)
    (tmp_path / "in" / "en.zip").write_bytes(b"PK")
    plan = raysp.plan(a_pipeline(f"{tmp_path}/in", tmp_path / "out"))
    assert [shard.name for shard in plan.corpus.shards] == ["de.parquet"]
    assert plan.corpus.listed.passed_over == {".zip": 1}


@pytest.mark.parametrize("one", sources.KINDS, ids=lambda one: one.name)
def test_a_kind_is_asked_about_every_file_that_it_may_claim_or_describe(one):
    stems = ("cuts.000001", "recording.000001", "features.000001", "cuts", "cuts.en", "recording", "x")
    suffixes = ("", ".jsonl", ".jsonl.gz", ".ndjson.gz", ".tar", ".tar.gz", ".parquet", ".arrow", ".json", ".wav")
    missed = [f"{stem}{suffix}" for stem in stems for suffix in suffixes if not f"{stem}{suffix}".endswith(one.endings)]
    assert not [name for name in missed if one.kind.claims(name) or one.kind.describes(name)]
