"""Listing of a corpus: names of label shards, kinds of shards, and sinks inside the source."""

import contextlib
import os
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp import PlanError, StoreError
from raysp.corpus import folders
from raysp.labelling.planning.listing import list_corpus, refuse_listed_sink
from raysp.storage.store import join_url
from raysp.storage.stores import expand, open_store
from tests.corpora import a_pipeline, wav, write_shard


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

    def test_a_relative_url_and_a_file_url_give_the_same_names(self, data, monkeypatch):
        monkeypatch.chdir(data.parent)
        expected = names(raysp.Shards(str(data)))
        assert names(raysp.Shards("data")) == names(raysp.Shards(f"file://{data}", root="data")) == expected

    @given(st.sets(st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}", fullmatch=True), min_size=1, max_size=6))
    @settings(max_examples=25, deadline=None)
    def test_every_shard_of_a_folder_has_one_label_shard_of_its_own(self, tmp_path_factory, found):
        folder = tmp_path_factory.mktemp("corpus")
        for name in found:
            (folder / f"{name}.parquet").parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.parquet").write_text("")
        listed = list_corpus(raysp.Shards(str(folder))).shards
        assert {(one.name, one.url) for one in listed} == {
            (f"{name}.parquet", f"{folder}/{name}.parquet") for name in found
        }

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

    def test_a_root_with_an_unknown_scheme_is_refused(self, data):
        with pytest.raises(PlanError, match=r"source\.root: 'foo://x': found the scheme 'foo'; expected a local path"):
            names(raysp.Shards(f"{data}/a.parquet", root="foo://x"))

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("*.flac", r"source.url: '.*\*.flac': no file matches"),
            ("missing.parquet", "source.url: .*no such file or folder; check the path"),
            ("missing/*.parquet", "source.url: .*missing: cannot list it .*check the path"),
        ],
    )
    def test_nothing_there_is_refused(self, data, url, message):
        with pytest.raises(PlanError, match=message):
            names(raysp.Shards(f"{data}/{url}"))

    def test_a_scheme_that_cannot_be_read_is_refused(self):
        with pytest.raises(
            PlanError, match=r"source.url: 'nowhere://b/x': found the scheme 'nowhere'; expected a local path, s3://"
        ):
            names(raysp.Shards("nowhere://b/x"))


class TestUrls:
    """Corpora and sinks on storage that has urls; memory stands for it."""

    @pytest.fixture
    def bucket(self) -> str:
        url = f"memory://{uuid.uuid4().hex}"
        for name in ("in/a.parquet", "in/x/b.parquet", "other/c.parquet"):
            open_store(url).create(name, b"x")
        return url

    def test_urls_without_a_folder_in_common_are_refused(self, bucket, data):
        with pytest.raises(PlanError, match=r"have no folder in common; use a sink for each"):
            names(raysp.Shards([f"{bucket}/in", str(data)]))

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

    def test_label_shards_of_several_folders_stand_below_their_names(self, tmp_path):
        for name in ("dev", "train.clean", "train.other/v1.2"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "x.wav").write_text("")
        urls = [f"{tmp_path}/{name}" for name in ("dev", "train.clean", "train.other/v1.2")]
        assert names(raysp.Shards(urls)) == [
            "dev/dev-00000.parquet",
            "train.clean/train.clean-00000.parquet",
            "train.other/v1.2/v1.2-00000.parquet",
        ]

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

    def test_a_file_of_any_name_is_read_as_parquet_and_one_that_is_none_is_not_to_be_copied(self, tmp_path):
        write_shard(tmp_path / "in" / "part-0")
        (tmp_path / "in" / "part-1").write_text("a,b,c,d,e,f,g")
        (tmp_path / "in" / "b.parquet").write_text("version https://git-lfs.github.com/spec/v1")
        plan = raysp.plan(a_pipeline(f"{tmp_path}/in/*", tmp_path / "out"))
        assert plan.num_rows == 3
        assert "expected a Parquet file. Exclude it from source.url" in plan.corpus.unreadable["part-1.parquet"]
        assert "git lfs pull" in plan.corpus.unreadable["b.parquet"]

    def test_recordings_of_formats_that_were_passed_over_are_new_label_shards_of_a_sink(self, tmp_path, monkeypatch):
        for name in ("a.wav", "b.m4a", "c.wav"):
            (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"x")
        pipeline = a_pipeline(str(tmp_path / "in"), tmp_path / "out")
        with monkeypatch.context() as before:
            before.setattr("raysp.corpus.shards.SUFFIXES", {".wav"})
            first = raysp.plan(pipeline)
            raysp.run(pipeline, engine="here", progress=False)
        later = raysp.plan(pipeline)
        assert later.corpus.shards[0] == first.corpus.shards[0]
        assert [(shard.name, shard.num_rows) for shard in later.corpus.shards] == [
            *(("in-00000.parquet", 2), ("in-00001.parquet", 1))
        ]

    def test_a_storage_that_fails_is_not_taken_for_an_empty_one(self, tmp_path, monkeypatch):
        write_shard(tmp_path / "in" / "a.parquet")

        def fail(*_):
            raise StoreError("503, try again")

        monkeypatch.setattr("raysp.labelling.planning.listing.expand", fail)
        with pytest.raises(PlanError, match="503, try again"):
            names(raysp.Shards(str(tmp_path / "in")))

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

    def test_beside_recordings_a_file_named_json_is_passed_over_whatever_it_holds(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.wav").write_bytes(b"x")
        (tmp_path / "in" / "m.json").write_text('{"audio_filepath": "a.wav"}\n')
        for url in ("in", "in/*"):
            found = list_corpus(raysp.Shards(f"{tmp_path}/{url}"))
            assert [(one.kind, found.passed_over) for one in found.shards] == [("folder", {".json": 1})]

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

    def test_the_id_of_a_data_set_on_the_hub_is_refused_without_its_split(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(PlanError, match=r"'mozilla/voice' is a data set of the Hugging Face hub, give its split"):
            names(raysp.Shards("mozilla/voice"))


class TestListedSink:
    @staticmethod
    def check(source: raysp.Shards, sink: object) -> None:
        refuse_listed_sink(source, list_corpus(source).shards, str(sink))

    @pytest.mark.slow
    @settings(max_examples=30, deadline=None)
    @given(
        st.sampled_from(
            ["", "*.parquet", "**", "**/*.parquet", "*/*.parquet", "x/**", "[ax]*", "a.parquet", "x/?.parquet"]
        ),
        st.sampled_from(["", "labels", "x", "x/y", "x/labels", "_labels", "a", "y/x", "../other", ".raysp"]),
    )
    def test_it_is_refused_exactly_when_a_second_listing_would_find_a_label_shard(self, tmp_path_factory, url, sink):
        folder = tmp_path_factory.mktemp("corpus") / "data"
        for name in ("a.parquet", "x/b.parquet", "x/y/c.parquet"):
            write_shard(folder / name, 1)
        source = raysp.Shards(str(folder / url))
        try:
            self.check(source, folder / sink)
        except PlanError:
            refused = True
        else:
            refused = False
        place = Path(os.path.normpath(folder / sink))
        listed = {found.url for found in list_corpus(source).shards}
        label_shards = {f"{place}/{name}" for name in names(source)}
        replaced = bool(label_shards & listed)
        for label_shard in label_shards:
            write_shard(Path(label_shard), 1)
        listing = expand(source.urls[0])
        files = {join_url(listing.root, entry.path) for entry in listing.entries}
        is_above = any(url.startswith(f"{place}/") for url in listed)
        assert refused == (replaced or is_above or bool(label_shards & files))

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

    @pytest.mark.parametrize(
        ("url", "sink", "refused"),
        [
            ("in", "in/labels", True),
            ("in", "in/x/labels", True),
            ("in", "in", True),
            ("in", "in/_labels", False),
            ("in/*.wav", "in/labels", False),
            ("in/a.wav", "in/labels", False),
            ("in", "labels", False),
        ],
    )
    def test_a_sink_in_a_folder_of_recordings_is_refused_at_once(self, tmp_path, url, sink, refused):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.wav").write_bytes(wav(8_000))
        with pytest.raises(PlanError, match=r"would be one of the shards") if refused else contextlib.nullcontext():
            self.check(raysp.Shards(f"{tmp_path}/{url}"), tmp_path / sink)

    def test_a_link_does_not_hide_that_a_sink_is_in_the_source(self, data, tmp_path):
        (tmp_path / "link").symlink_to(data)
        for url, sink in [(data, tmp_path / "link" / "labels"), (tmp_path / "link", data / "labels")]:
            with pytest.raises(PlanError, match=r"would be one of the shards"):
                self.check(raysp.Shards(str(url)), sink)

    def test_a_link_to_a_shard_does_not_hide_that_it_would_be_replaced(self, data, tmp_path):
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "a.parquet").symlink_to(data / "a.parquet")
        with pytest.raises(PlanError, match=r"would be one of the shards"):
            self.check(raysp.Shards(f"{tmp_path}/links/*.parquet"), data)

    def test_it_is_part_of_every_plan(self, data):
        with pytest.raises(PlanError, match=r"choose a folder outside the source"):
            raysp.plan(a_pipeline(str(data), data / "labels"))
