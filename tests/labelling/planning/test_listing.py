"""Listing of a corpus: names of label shards, kinds of shards, and sinks inside the source."""

import contextlib
import uuid
from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from raysp.corpus import folders
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
            ("a.parquet", None, ["a.parquet"]),
            ("x/a.parquet", None, ["a.parquet"]),
            ("", None, ["a.parquet", "b.parquet", "x/a.parquet", "x/y/a.parquet"]),
            ("*.parquet", None, ["a.parquet", "b.parquet"]),
            ("*/a.parquet", None, ["x/a.parquet"]),
            ("x/**/*.parquet", None, ["a.parquet", "y/a.parquet"]),
            (["a.parquet", "b.parquet"], None, ["a.parquet", "b.parquet"]),
            (["a.parquet", "x/y/a.parquet"], None, ["a.parquet", "x/y/a.parquet"]),
            (["x/a.parquet", "x/y/*"], None, ["a.parquet", "y/a.parquet"]),
            (["x", "x/a.parquet"], None, ["a.parquet", "y/a.parquet"]),
            ("x/a.parquet", "", ["x/a.parquet"]),
            ("x/a.parquet", "x/../", ["x/a.parquet"]),
            ("*.parquet", "..", ["data/a.parquet", "data/b.parquet"]),
        ],
    )
    def test_label_shards_are_named_relative_to_the_root(self, data, urls, root, expected):
        urls = [str(data / url) for url in urls] if isinstance(urls, list) else str(data / urls)
        assert names(raysp.Shards(urls, root=None if root is None else f"{data}/{root}")) == expected

    def test_two_label_shards_that_would_meet_are_refused_with_both_shards(self, data):
        (data / "a.arrow").write_text("")
        with pytest.raises(PlanError, match=r"a.arrow and .*a.parquet would both become a.parquet; set source.root or"):
            names(raysp.Shards(f"{data}/a.*"))

    @pytest.mark.parametrize("name", ["_a.parquet", ".a.parquet"])
    def test_a_shard_that_readers_would_pass_over_is_refused_if_its_url_names_it(self, data, name):
        write_shard(data / name)
        with pytest.raises(PlanError, match=rf"readers ignore names that begin with '[_.]'; rename '{name}'"):
            names(raysp.Shards(f"{data}/{name}"))

    @pytest.mark.parametrize("name", ["_a.parquet", ".a.arrow", "__MACOSX/._a.parquet"])
    @pytest.mark.parametrize("pattern", ["", "/*", "/**", "/**/*"])
    @pytest.mark.parametrize("scheme", ["", "memory://"])
    def test_hidden_files_of_a_folder_or_glob_are_passed_over(self, tmp_path, name, pattern, scheme):
        store = open_store(f"{scheme}{tmp_path}/hidden")
        for path in ("a.parquet", name):
            store.create(path, b"junk")
        found = list_corpus(raysp.Shards(f"{scheme}{tmp_path}/hidden{pattern}"))
        assert [one.name for one in found.shards] == ["a.parquet"]
        assert sum(found.passed_over.values()) == name.startswith("_a") + name.startswith("_m")

    def test_a_shard_outside_the_root_is_refused(self, data):
        told = r"source.root: .*/data/a.parquet is not below .*/data/x; give a folder that holds all"
        with pytest.raises(PlanError, match=told):
            names(raysp.Shards(f"{data}/a.parquet", root=f"{data}/x"))


class TestUrls:
    """Corpora and sinks on storage that has urls; memory stands for it."""

    @pytest.fixture
    def bucket(self) -> str:
        url = f"memory://{uuid.uuid4().hex}"
        for name in ("in/a.parquet", "in/x/b.parquet", "other/c.parquet"):
            open_store(url).create(name, b"x")
        return url

    @pytest.mark.parametrize(
        ("url", "sink", "refused"),
        [
            ("in", "in", True),
            ("in", "in/labels", True),
            ("in/**", "in/x", True),
            ("in/*.parquet", "in", True),
            ("in/a.parquet", "in", True),
            ("in/*.parquet", "in/labels", False),
            ("in/a.parquet", "labels", False),
            ("in", "labels", False),
            ("in", "in-labels", False),
            ("**/*.parquet", "labels", True),
            ("*/*.parquet", "labels", False),
        ],
    )
    def test_a_sink_inside_the_source_is_refused(self, bucket, url, sink, refused):
        source = raysp.Shards(f"{bucket}/{url}")
        found = list_corpus(source).shards
        with pytest.raises(PlanError, match=r"would be one of the shards") if refused else contextlib.nullcontext():
            refuse_listed_sink(source, found, f"{bucket}/{sink}/")


class TestKinds:
    @pytest.mark.parametrize(
        ("files", "url", "expected"),
        [
            (["m.jsonl"], "m.jsonl", [("m-00000.parquet", "manifest")]),
            (
                ["m.jsonl", "n/m.jsonl"],
                "**/*.jsonl",
                [("m-00000.parquet", "manifest"), ("n/m-00000.parquet", "manifest")],
            ),
            (["a.arrow", "b/c.arrow"], "", [("a.parquet", "arrow"), ("b/c.parquet", "arrow")]),
            (["a.arrow", "b.parquet"], "", [("a.parquet", "arrow"), ("b.parquet", "parquet")]),
            (["x.wav", "y/z.mp3", "notes.txt", "_private/a.wav", ".hidden.wav"], "", [("in-00000.parquet", "folder")]),
            (["x.wav", "a.parquet"], "", [("a.parquet", "parquet")]),
            (["x.wav", "a.arrow", "m.jsonl"], "", [("a.parquet", "arrow")]),
            (["x.wav", "m.jsonl"], "", [("in-00000.parquet", "folder")]),
            (["x.m4a"], "", [("in-00000.parquet", "folder")]),
            (["x.wav", "y.WEBM"], "*.*", [("in-00000.parquet", "folder")]),
            (["x.wav"], "x.wav", [("in-00000.parquet", "folder")]),
            (["a.parquet", "t.csv", "x.wav", "part-0"], "*", [("a.parquet", "parquet"), ("part-0.parquet", "parquet")]),
        ],
    )
    def test_a_url_stands_for_shards_of_a_kind(self, tmp_path, files, url, expected):
        for name in files:
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_text('{"audio_filepath": "x.wav"}\n')
        found = list_corpus(raysp.Shards(str(tmp_path / "in" / url))).shards
        assert [(one.name, one.kind) for one in found] == expected

    @pytest.mark.parametrize("scheme", ["", "memory://"])
    def test_a_recording_whose_name_begins_with_an_underscore_is_a_row(self, tmp_path, scheme):
        store = open_store(f"{scheme}{tmp_path}/in")
        for name in ("_a.wav", "b.wav", "._b.wav", ".c.wav", "_raw/d.wav", "_notes.txt", "_SUCCESS"):
            store.create(name, b"x")
        found = list_corpus(raysp.Shards(f"{scheme}{tmp_path}/in"))
        assert [path for path, *_ in folders.unpack(found.shards[0].part)] == ["_a.wav", "b.wav"]
        assert found.passed_over == {".txt": 1}
        store.create("_e.arrow", b"x")
        assert list_corpus(raysp.Shards(f"{scheme}{tmp_path}/in")).passed_over == {".txt": 1, ".arrow": 1}

    @pytest.mark.parametrize("url", ["in", "in/*", "in/t.csv"])
    def test_a_source_of_other_files_alone_is_refused_with_what_there_is_and_what_is_read(self, tmp_path, url):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "t.csv").write_text("id,text\n1,2\n")
        with pytest.raises(PlanError, match=r"no recording.* 1 \.csv; expected Parquet .*manifest") as refused:
            names(raysp.Shards(f"{tmp_path}/{url}"))
        assert "Copy" not in str(refused.value)

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
        plan = raysp.plan(pipeline)
        assert [one.shard.name for one in plan.todo] == [
            "train-00000.parquet",
            *(["train_manifest-00000.parquet"] if "*" in name else []),
        ]
        assert plan.num_rows == 2 * len(plan.todo)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[{"audio_filepath": "x.wav"}]', r"begins with a JSON array; expected .* Convert it: jq -c '\.\[\]'"),
            ('{\n  "audio_filepath": "x.wav"\n}', r"its first line is b'\{', not a complete JSON object"),
            ('{"a": 1}', "expected a manifest: one JSON object with 'audio_filepath' per line"),
            ("3", "its first line is b'3'; expected a manifest"),
            ("\x89PNG", "not a complete JSON object"),
        ],
    )
    def test_a_json_file_that_is_not_a_manifest_is_refused_with_what_is_expected(self, tmp_path, text, message):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(PlanError, match=rf"{tmp_path}/m\.json: .*{message}"):
            names(raysp.Shards(f"{tmp_path}/m.json"))


class TestListedSink:
    @pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "x/a.parquet", "a.wav", "m.jsonl", "a.tar"])
    @pytest.mark.parametrize("is_link", [False, True])
    def test_a_sink_above_the_source_is_refused_since_readers_would_take_shards_for_labels(
        self, tmp_path, name, is_link
    ):
        place = tmp_path / "out" / "in" / name
        write_shard(place)
        if name.endswith(".jsonl"):
            place.write_text('{"audio_filepath": "a.wav"}\n')
        sink = tmp_path / "out"
        if is_link:
            sink = tmp_path / "link"
            sink.symlink_to(tmp_path / "out")
        source = raysp.Shards(str(tmp_path / "out" / "in"))
        if name.endswith(".jsonl"):
            source = raysp.Shards(str(place))
        with pytest.raises(PlanError, match=r"is a folder above the source .*choose a folder outside the source"):
            refuse_listed_sink(source, list_corpus(source).shards, str(sink))
        refuse_listed_sink(source, list_corpus(source).shards, str(tmp_path / "out-in"))

    def test_it_is_part_of_every_plan(self, data):
        with pytest.raises(PlanError, match=r"choose a folder outside the source"):
            raysp.plan(a_pipeline(str(data), data / "labels"))
