"""Listing of a corpus: names of label shards, kinds of shards, and sinks inside the source."""

import contextlib
import uuid
from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from raysp.labelling.planning.listing import list_corpus, refuse_listed_sink
from raysp.storage.stores import open_store
from tests.corpora import a_pipeline, write_shard


def names(source: raysp.Shards) -> list[str]:
    return [found.name for found in list_corpus(source).shards]


def write(folder: str, *files: str, data: bytes = b"junk") -> None:
    for name in files:
        open_store(folder).create(name, data)


class TestNames:
    @pytest.fixture
    def data(self, tmp_path) -> Path:
        write(f"{tmp_path}/data", "a.parquet", "b.parquet", "x/a.parquet", "x/y/a.parquet", "_a.parquet", "a.arrow")
        return tmp_path / "data"

    @pytest.mark.parametrize(
        ("urls", "root", "expected"),
        [
            ("x/a.parquet", None, ["a.parquet"]),
            ("x", None, ["a.parquet", "y/a.parquet"]),
            ("*.parquet", None, ["a.parquet", "b.parquet"]),
            ("*/a.parquet", None, ["x/a.parquet"]),
            ("x/**/*.parquet", None, ["a.parquet", "y/a.parquet"]),
            (["a.parquet", "x/y/a.parquet"], None, ["a.parquet", "x/y/a.parquet"]),
            (["x", "x/a.parquet"], None, ["a.parquet", "y/a.parquet"]),
            ("x/a.parquet", "x/../", ["x/a.parquet"]),
            ("*.parquet", "..", ["data/a.parquet", "data/b.parquet"]),
        ],
    )
    def test_label_shards_are_named_relative_to_the_root(self, data, urls, root, expected):
        urls = [str(data / url) for url in urls] if isinstance(urls, list) else str(data / urls)
        assert names(raysp.Shards(urls, root=None if root is None else f"{data}/{root}")) == expected

    @pytest.mark.parametrize(
        ("url", "root", "message"),
        [
            ("a.*", None, r"a.arrow and .*a.parquet would both become a.parquet; set source.root or"),
            ("_a.parquet", None, r"readers ignore names that begin with '_'; rename '_a.parquet'"),
            ("a.parquet", "x", r"source.root: .*/data/a.parquet is not below .*/data/x; give a folder that holds all"),
            ("*.flac", None, r"source.url: '.*\*.flac': no file matches"),
            ("missing.parquet", None, "source.url: .*no such file or folder; check the path"),
            ("missing/*.parquet", None, "source.url: .*missing: cannot list it .*check the path"),
        ],
    )
    def test_names_that_meet_or_that_readers_ignore_and_places_without_shards_are_refused(
        self, data, url, root, message
    ):
        with pytest.raises(PlanError, match=message):
            names(raysp.Shards(f"{data}/{url}", root=root and f"{data}/{root}"))

    @pytest.mark.parametrize("pattern", ["", "/**/*"])
    @pytest.mark.parametrize("scheme", ["", "memory://"])
    def test_hidden_files_of_a_folder_or_glob_are_passed_over(self, tmp_path, pattern, scheme):
        folder = f"{scheme}{tmp_path}/hidden"
        write(folder, "a.parquet", "_a.parquet", ".a.arrow", "__MACOSX/._a.parquet")
        found = list_corpus(raysp.Shards(f"{folder}{pattern}"))
        assert [one.name for one in found.shards] == ["a.parquet"]
        assert sum(found.passed_over.values()) == 1


class TestKinds:
    @pytest.mark.parametrize(
        ("files", "url", "expected"),
        [
            (["m.jsonl", "n/m.jsonl"], "**/*.jsonl", {"m-00000.parquet": "manifest", "n/m-00000.parquet": "manifest"}),
            (["x.wav", "y/z.mp3", "notes.txt", "_private/a.wav", ".hidden.wav"], "", {"in-00000.parquet": "folder"}),
            (["x.wav", "a.arrow", "m.jsonl"], "", {"a.parquet": "arrow"}),
            (["x.wav", "m.jsonl", "n.json"], "", {"in-00000.parquet": "folder"}),
            (["x.wav"], "x.wav", {"in-00000.parquet": "folder"}),
            (["a.parquet", "t.csv", "x.wav", "part-0"], "*", {"a.parquet": "parquet", "part-0.parquet": "parquet"}),
        ],
    )
    def test_a_url_stands_for_shards_of_a_kind(self, tmp_path, files, url, expected):
        write(f"{tmp_path}/in", *files, data=b'{"audio_filepath": "x.wav"}\n')
        found = list_corpus(raysp.Shards(str(tmp_path / "in" / url))).shards
        assert {one.name: one.kind for one in found} == expected

    @pytest.mark.parametrize("scheme", ["", "memory://"])
    def test_a_recording_whose_name_begins_with_an_underscore_is_a_row(self, tmp_path, scheme):
        write(f"{scheme}{tmp_path}/in", "_a.wav", "b.wav", "._b.wav", ".c.wav", "_raw/d.wav", "_notes.txt", "_SUCCESS")
        plan = raysp.plan(a_pipeline(f"{scheme}{tmp_path}/in", tmp_path / "out"))
        assert plan.num_rows == 2
        assert list_corpus(plan.pipeline.source).passed_over == {".txt": 1}

    @pytest.mark.parametrize(("name", "num_rows"), [("train.json", 2), ("*.json", 4), ("train*", None)])
    def test_a_manifest_named_json_is_one_if_the_url_names_it(self, tmp_path, name, num_rows):
        lines = b'\n{"audio_filepath": "x.wav"}\n{"audio_filepath": "y.wav", "text": "[]"}\n'
        write(str(tmp_path), "train_manifest.json", "train.json", data=lines)
        pipeline = a_pipeline(f"{tmp_path}/{name}", tmp_path / "out")
        if num_rows is None:
            with pytest.raises(PlanError, match=r"only 2 other files: 2 \.json"):
                raysp.plan(pipeline)
            return
        assert raysp.plan(pipeline).num_rows == num_rows

    @pytest.mark.parametrize(
        ("url", "text", "message"),
        [
            ("", "id,text\n1,2\n", r"no recording.* 1 \.json; expected Parquet .*manifest"),
            ("/m.json", '[{"audio_filepath": "x.wav"}]', r"begins with a JSON array; .* Convert it: jq -c '\.\[\]'"),
            ("/m.json", '{\n  "audio_filepath": "x.wav"\n}', r"its first line is b'\{', not a complete JSON object"),
            ("/m.json", '{"a": 1}', "expected a manifest: one JSON object with 'audio_filepath' per line"),
        ],
    )
    def test_other_files_are_refused_with_what_there_is_and_what_is_expected(self, tmp_path, url, text, message):
        write(str(tmp_path), "m.json", data=text.encode())
        with pytest.raises(PlanError, match=message):
            names(raysp.Shards(f"{tmp_path}{url}"))


class TestListedSink:
    @pytest.mark.parametrize(
        ("url", "sink", "refused"),
        [
            ("in", "in", True),
            ("in", "in/labels", True),
            ("in/**", "in/x", True),
            ("in/a.parquet", "in", True),
            ("in/*.parquet", "in/labels", False),
            ("in", "in-labels", False),
            ("**/*.parquet", "labels", True),
            ("*/*.parquet", "labels", False),
            ("wav", "wav/x/labels", True),
            ("wav", "wav/_labels", False),
            ("wav/*.wav", "wav/labels", False),
        ],
    )
    @pytest.mark.parametrize("scheme", ["", "memory://"])
    def test_a_sink_inside_the_source_is_refused(self, tmp_path, scheme, url, sink, refused):
        bucket = f"{scheme}{tmp_path}/{uuid.uuid4().hex}"
        write(bucket, "in/a.parquet", "in/x/b.parquet", "other/c.parquet", "wav/a.wav")
        source = raysp.Shards(f"{bucket}/{url}")
        with pytest.raises(PlanError, match=r"would be one of the shards") if refused else contextlib.nullcontext():
            refuse_listed_sink(source, list_corpus(source).shards, f"{bucket}/{sink}/")

    @pytest.mark.parametrize(
        ("source", "sink", "message"),
        [
            ("link/in", "out", r"is a folder above the source .*choose a folder outside the source"),
            ("out/in", "link", r"is a folder above the source"),
            ("out", "link/labels", "would be one of the shards"),
            ("link", "out/labels", "would be one of the shards"),
        ],
    )
    def test_a_link_does_not_hide_that_one_is_in_the_other(self, tmp_path, source, sink, message):
        write_shard(tmp_path / "out" / "in" / "x" / "a.parquet")
        (tmp_path / "link").symlink_to(tmp_path / "out")
        with pytest.raises(PlanError, match=message):
            raysp.plan(a_pipeline(f"{tmp_path}/{source}", tmp_path / sink))
