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


@pytest.fixture
def data(tmp_path) -> Path:
    for name in ("a.parquet", "b.parquet", "x/a.parquet", "x/y/a.parquet"):
        write_shard(tmp_path / "data" / name)
    return tmp_path / "data"


class TestNames:
    @pytest.mark.parametrize(
        ("urls", "root", "expected"),
        [
            ("x/a.parquet", None, ["a.parquet"]),
            ("", None, ["a.parquet", "b.parquet", "x/a.parquet", "x/y/a.parquet"]),
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
        (data / "a.arrow").write_text("")
        write_shard(data / "_a.parquet")
        with pytest.raises(PlanError, match=message):
            names(raysp.Shards(f"{data}/{url}", root=root and f"{data}/{root}"))

    @pytest.mark.parametrize("name", ["_a.parquet", ".a.arrow", "__MACOSX/._a.parquet"])
    @pytest.mark.parametrize("pattern", ["", "/**/*"])
    @pytest.mark.parametrize("scheme", ["", "memory://"])
    def test_hidden_files_of_a_folder_or_glob_are_passed_over(self, tmp_path, name, pattern, scheme):
        store = open_store(f"{scheme}{tmp_path}/hidden")
        for path in ("a.parquet", name):
            store.create(path, b"junk")
        found = list_corpus(raysp.Shards(f"{scheme}{tmp_path}/hidden{pattern}"))
        assert [one.name for one in found.shards] == ["a.parquet"]
        assert sum(found.passed_over.values()) == name.startswith("_a") + name.startswith("_m")


class TestKinds:
    @pytest.mark.parametrize(
        ("files", "url", "expected"),
        [
            (["m.jsonl", "n/m.jsonl"], "**/*.jsonl", {"m-00000.parquet": "manifest", "n/m-00000.parquet": "manifest"}),
            (["a.arrow", "b.parquet"], "", {"a.parquet": "arrow", "b.parquet": "parquet"}),
            (["x.wav", "y/z.mp3", "notes.txt", "_private/a.wav", ".hidden.wav"], "", {"in-00000.parquet": "folder"}),
            (["x.wav", "a.arrow", "m.jsonl"], "", {"a.parquet": "arrow"}),
            (["x.wav", "m.jsonl", "n.json"], "", {"in-00000.parquet": "folder"}),
            (["x.wav"], "x.wav", {"in-00000.parquet": "folder"}),
            (["a.parquet", "t.csv", "x.wav", "part-0"], "*", {"a.parquet": "parquet", "part-0.parquet": "parquet"}),
        ],
    )
    def test_a_url_stands_for_shards_of_a_kind(self, tmp_path, files, url, expected):
        for name in files:
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_text('{"audio_filepath": "x.wav"}\n')
        found = list_corpus(raysp.Shards(str(tmp_path / "in" / url))).shards
        assert {one.name: one.kind for one in found} == expected

    @pytest.mark.parametrize("scheme", ["", "memory://"])
    def test_a_recording_whose_name_begins_with_an_underscore_is_a_row(self, tmp_path, scheme):
        store = open_store(f"{scheme}{tmp_path}/in")
        for name in ("_a.wav", "b.wav", "._b.wav", ".c.wav", "_raw/d.wav", "_notes.txt", "_SUCCESS"):
            store.create(name, b"x")
        plan = raysp.plan(a_pipeline(f"{scheme}{tmp_path}/in", tmp_path / "out"))
        assert plan.num_rows == 2
        assert list_corpus(plan.pipeline.source).passed_over == {".txt": 1}

    @pytest.mark.parametrize("url", ["in", "in/t.csv"])
    def test_a_source_of_other_files_alone_is_refused_with_what_there_is_and_what_is_read(self, tmp_path, url):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "t.csv").write_text("id,text\n1,2\n")
        with pytest.raises(PlanError, match=r"no recording.* 1 \.csv; expected Parquet .*manifest"):
            names(raysp.Shards(f"{tmp_path}/{url}"))

    @pytest.mark.parametrize("name", ["train.json", "*.json", "train*"])
    def test_a_manifest_named_json_is_one_if_the_url_names_it(self, tmp_path, name):
        lines = '\n{"audio_filepath": "x.wav"}\n{"audio_filepath": "y.wav", "text": "[]"}\n'
        (tmp_path / "train_manifest.json").write_text(lines)
        (tmp_path / "train.json").write_text(lines)
        pipeline = a_pipeline(f"{tmp_path}/{name}", tmp_path / "out")
        if name == "train*":
            with pytest.raises(PlanError, match=r"only 2 other files: 2 \.json"):
                raysp.plan(pipeline)
            return
        assert raysp.plan(pipeline).num_rows == (4 if "*" in name else 2)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[{"audio_filepath": "x.wav"}]', r"begins with a JSON array; expected .* Convert it: jq -c '\.\[\]'"),
            ('{\n  "audio_filepath": "x.wav"\n}', r"its first line is b'\{', not a complete JSON object"),
            ('{"a": 1}', "expected a manifest: one JSON object with 'audio_filepath' per line"),
        ],
    )
    def test_a_json_file_that_is_not_a_manifest_is_refused_with_what_is_expected(self, tmp_path, text, message):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(PlanError, match=rf"{tmp_path}/m\.json: .*{message}"):
            names(raysp.Shards(f"{tmp_path}/m.json"))


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
        for name in ("in/a.parquet", "in/x/b.parquet", "other/c.parquet", "wav/a.wav"):
            open_store(bucket).create(name, b"x")
        source = raysp.Shards(f"{bucket}/{url}")
        with pytest.raises(PlanError, match=r"would be one of the shards") if refused else contextlib.nullcontext():
            refuse_listed_sink(source, list_corpus(source).shards, f"{bucket}/{sink}/")

    @pytest.mark.parametrize("is_link", [False, True])
    def test_a_sink_above_the_source_is_refused_since_readers_would_take_shards_for_labels(self, tmp_path, is_link):
        write_shard(tmp_path / "out" / "in" / "x" / "a.parquet")
        (tmp_path / "link").symlink_to(tmp_path / "out")
        sink = tmp_path / ("link" if is_link else "out")
        with pytest.raises(PlanError, match=r"is a folder above the source .*choose a folder outside the source"):
            raysp.plan(a_pipeline(str(tmp_path / "out" / "in"), sink))

    def test_a_link_does_not_hide_that_a_sink_is_in_the_source(self, data, tmp_path):
        (tmp_path / "link").symlink_to(data)
        for url, sink in [(data, tmp_path / "link" / "labels"), (tmp_path / "link", data / "labels")]:
            with pytest.raises(PlanError, match=r"would be one of the shards"):
                raysp.plan(a_pipeline(str(url), sink))
