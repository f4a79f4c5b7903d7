"""Kinds of sources: what each claims, and that another kind is one class and one line."""

import hashlib
import zipfile
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ShardError
from raysp.corpus import sources
from raysp.corpus.shards import Group, SourceKind, Survey, check_same, estimated_seconds, place_of
from tests.corpora import AUDIO, a_pipeline, wav, write_shard


class ZipKind(SourceKind):
    """Archives of recordings, a row each."""

    name = "zip"
    suffixes = (".zip",)
    folder_suffixes = (".zip",)
    described = "archives (*.zip)"

    def survey(self, url, part, storage_options=None, columns=None):
        with self._open(url, storage_options) as archive:
            members = archive.infolist()
        digest = hashlib.sha256(repr([(one.filename, one.CRC) for one in members]).encode()).hexdigest()
        groups = [Group(1, one.file_size, estimated_seconds(one.file_size, one.filename)) for one in members]
        return Survey(pa.schema({"id": pa.string(), "audio": AUDIO}), len(members), groups, digest)

    def read_rows(self, shard, piece, columns, storage_options=None, as_dictionaries=()):
        check_same(shard, shard.num_bytes, self.survey(shard.url, shard.part, storage_options))
        with self._open(shard.url, storage_options) as archive:
            for one in archive.infolist()[piece.first : piece.end]:
                row = {"id": one.filename, "audio": {"bytes": archive.read(one), "path": None}}
                schema = pa.schema({"id": pa.string(), "audio": AUDIO})
                yield pa.RecordBatch.from_pylist([row], schema).select(list(columns))

    def _open(self, url, storage_options):
        store, name = place_of(url, storage_options)
        return zipfile.ZipFile(BytesIO(store.read(name)))


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "in" / "en.zip"
    write_shard(tmp_path / "in" / "de.parquet", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.wav", wav(8000, seed=number))
    return path


@pytest.mark.slow
def test_another_kind_is_one_class_and_one_line(archive, tmp_path, monkeypatch):
    registered = sources.Registered("zip", f"{__name__}:ZipKind", (".zip",))
    monkeypatch.setattr(sources, "KINDS", (*sources.KINDS, registered))
    pipeline = a_pipeline(str(archive.parent), tmp_path / "out")
    plan = raysp.plan(pipeline)
    assert [(shard.name, shard.kind, shard.num_rows) for shard in plan.corpus.shards] == [
        ("de.parquet", "parquet", 1),
        ("en.parquet", "zip", 3),
    ]
    raysp.run(pipeline, engine="here", progress=False)
    labels = pq.read_table(tmp_path / "out" / "en.parquet").select(["id", "row", "status"]).to_pylist()
    assert labels == [{"id": f"{number}.wav", "row": number, "status": "ok"} for number in range(3)]
    assert not raysp.plan(pipeline).todo
    assert raysp.verify(str(tmp_path / "out"), trust=True).differences == ()


def test_files_that_no_kind_claims_are_passed_over_in_a_folder(archive, tmp_path):
    plan = raysp.plan(a_pipeline(str(archive.parent), tmp_path / "out"))
    assert [shard.name for shard in plan.corpus.shards] == ["de.parquet"]
    assert plan.corpus.listed.passed_over == {".zip": 1}


@pytest.mark.parametrize(
    ("name", "kind", "stem"),
    [
        ("a/x.parquet", "parquet", "a/x"),
        ("a.b/x.arrow", "arrow", "a.b/x"),
        ("x.feather", "arrow", "x"),
        ("x.jsonl.gz", "manifest", "x"),
        ("x.v1.json", "manifest", "x.v1"),
        ("x.tar", "tar", "x"),
        ("x.tar.gz", "tar", "x"),
        ("x.unknown", "parquet", "x"),
        ("a/.hidden", "parquet", "a/.hidden"),
    ],
)
def test_a_file_is_read_by_the_kind_that_claims_its_name(name, kind, stem):
    found = sources.kind_of_file(name)
    assert (found.name, found.stem(name)) == (kind, stem)


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


@pytest.mark.parametrize("one", sources.KINDS, ids=lambda one: one.name)
def test_a_kind_is_asked_about_every_file_that_it_may_claim_or_describe(one):
    assert all(name.endswith(one.endings) for name in (*one.kind.suffixes, *one.kind.companions))
    assert {*one.kind.folder_suffixes, *one.kind.named_suffixes} <= {*one.kind.suffixes}
    names = [
        f"{stem}{suffix}"
        for stem in ("cuts.000001", "recording.000001", "features.000001", "cuts", "cuts.en", "recording", "x")
        for suffix in (
            "",
            ".jsonl",
            ".jsonl.gz",
            ".ndjson.gz",
            ".tar",
            ".tar.gz",
            ".parquet",
            ".arrow",
            ".json",
            ".wav",
        )
    ]
    missed = [name for name in names if not name.endswith(one.endings)]
    assert not [name for name in missed if one.kind.claims(name) or one.kind.describes(name)]


def test_a_kind_of_a_later_version_is_refused_by_name():
    with pytest.raises(
        ShardError, match="source kind 'zip', expected one of parquet, arrow, shar, manifest, tar, folder"
    ):
        sources.kind_named("zip")
