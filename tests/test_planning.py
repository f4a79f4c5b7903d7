"""Planning: how shards are listed and named, what is refused before any work, what is left to do."""

import contextlib
import os
import uuid
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp import ChangedError, CheckpointError, PlanError, StoreError
from raysp.checkpoints import locating
from raysp.corpus.parquet import cut_pieces
from raysp.ops.precision import Batching
from raysp.planning import checkpoints
from raysp.planning.fingerprints import hash_pipeline
from raysp.planning.listing import count_files, list_corpus, list_source, refuse_listed_sink
from raysp.planning.opening import begin_run, make_plan
from raysp.planning.plans import Plan
from raysp.planning.resources import Resources, count_gpus
from raysp.planning.retrying import recorded_pipeline
from raysp.planning.settling import settle
from raysp.sink import stage
from raysp.sink.run_record import RunEntry
from raysp.storage.store import expand, open_store
from tests.corpora import CHECKPOINT, a_pipeline, begin_and_stage, rows_table, write_shard
from tests.hub_server import COMMIT, lay_out
from tests.sink.sinks import results


def names(source: raysp.Shards) -> list[str]:
    return [found.name for found in list_source(source)]


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


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
        listed = list_source(raysp.Shards(str(folder)))
        assert {(one.name, one.url) for one in listed} == {
            (f"{name}.parquet", f"{folder}/{name}.parquet") for name in found
        }

    def test_two_label_shards_that_would_meet_are_refused_with_both_shards(self, data):
        (data / "a.arrow").write_text("")
        with pytest.raises(PlanError, match=r"a.arrow and .*a.parquet would both become a.parquet; set source.root or"):
            names(raysp.Shards(f"{data}/a.*"))

    @pytest.mark.parametrize("name", ["_a.parquet", ".a.parquet"])
    @pytest.mark.parametrize("pattern", ["", "/*.parquet", "/**", "/{name}"])
    def test_a_shard_that_readers_would_pass_over_is_refused_and_not_skipped(self, data, name, pattern):
        write_shard(data / name)
        with pytest.raises(PlanError, match=rf"readers pass over names that begin with '[_.]'; rename '{name}'"):
            names(raysp.Shards(str(data) + pattern.format(name=name)))

    def test_what_spark_and_raysp_leave_beside_shards_is_passed_over(self, data):
        expected = names(raysp.Shards(str(data)))
        write_shard(data / "_temporary" / "a.parquet")
        write_shard(data / ".raysp" / "stage" / "a.parquet")
        (data / "_SUCCESS").write_text("")
        assert names(raysp.Shards(str(data))) == names(raysp.Shards(f"{data}/**")) == expected

    def test_a_shard_outside_the_root_is_refused(self, data):
        with pytest.raises(PlanError, match=r"source.root: .*/data/a.parquet is not below .*/data/x$"):
            names(raysp.Shards(f"{data}/a.parquet", root=f"{data}/x"))

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("*.flac", r"source.url: '.*\*.flac': no file matches"),
            ("missing.parquet", "source.url: .*no such file or folder; check the path"),
            ("missing/*.parquet", "source.url: .*missing: cannot list it .*it is not there"),
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

    @pytest.mark.parametrize(
        ("urls", "root", "expected"),
        [
            (["in"], None, ["a.parquet", "x/b.parquet"]),
            (["in/*.parquet"], None, ["a.parquet"]),
            (["in/x/b.parquet"], None, ["b.parquet"]),
            (["in/a.parquet", "other"], None, ["in/a.parquet", "other/c.parquet"]),
            (["in/x/*"], "in", ["x/b.parquet"]),
            (["in/x/*"], "in/", ["x/b.parquet"]),
        ],
    )
    def test_label_shards_are_named_below_the_root(self, bucket, urls, root, expected):
        source = raysp.Shards([f"{bucket}/{url}" for url in urls], root=root and f"{bucket}/{root}")
        assert names(source) == expected

    def test_a_shard_that_is_not_below_the_root_is_refused(self, bucket):
        with pytest.raises(PlanError, match=r"source.root: memory://.*/other/c.parquet is not below memory://.*/in"):
            names(raysp.Shards(f"{bucket}/other", root=f"{bucket}/in"))

    def test_urls_without_a_folder_in_common_are_refused(self, bucket, data):
        with pytest.raises(PlanError, match=r"have no folder in common; label them into two sinks"):
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
        found = list_source(source)
        with pytest.raises(PlanError, match=r"would be one of the shards") if refused else contextlib.nullcontext():
            refuse_listed_sink(source, found, f"{bucket}/{sink}/")

    def test_a_checkpoint_is_reached_by_the_options_of_a_source_of_its_scheme(self, monkeypatch):
        asked = []
        monkeypatch.setattr(locating, "fetch", lambda url, options: asked.append(options) or Path("copy"))
        options = {"key": "A", "secret": raysp.Env("S")}
        label = raysp.Label("s3://models/m", outputs=[raysp.Transcript()])
        for url in ("s3://corpus/in", "memory://corpus/in"):
            source = raysp.Shards(url, storage_options=options)
            pipeline = a_pipeline(source, steps=[raysp.Decode(), label])
            assert checkpoints.checkpoint_folder(pipeline) == Path("copy")
        assert asked == [options, {}]

    def test_a_checkpoint_that_came_with_other_bytes_is_refused(self):
        with pytest.raises(CheckpointError, match=r"s3://m.*its digest was 00ff when .* planned, here it is [0-9a-f]+"):
            checkpoints.check_digest("s3://m", CHECKPOINT, "00ff")


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
        found = list_source(raysp.Shards(str(tmp_path / "in" / url)))
        assert [(one.name, one.kind) for one in found] == expected

    @pytest.mark.parametrize(
        ("url", "passed_over"),
        [
            ("", {".txt": 2, "": 1, ".json": 1}),
            ("*", {".txt": 2, ".json": 1}),  # what has no suffix may be Parquet
            ("a.parquet", {}),
        ],
    )
    def test_files_that_are_neither_shards_nor_recordings_are_counted_by_suffix(self, tmp_path, url, passed_over):
        write_shard(tmp_path / "in" / "a.parquet")
        for name in ("a.txt", "b.TXT", "README", "c.json", "_SUCCESS", ".gitattributes"):
            (tmp_path / "in" / name).write_text("x")
        found = list_corpus(raysp.Shards(f"{tmp_path}/in/{url}"))
        assert found.passed_over == passed_over
        assert count_files(found.passed_over or {".txt": 1}, " passed over").startswith(("4 ", "3 ", "1 other file "))

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
        assert "no Parquet file. Leave it out of source.url" in plan.corpus.unreadable["part-1.parquet"]
        assert "git lfs pull" in plan.corpus.unreadable["b.parquet"]

    def test_recordings_of_formats_that_were_passed_over_are_new_label_shards_of_a_sink(self, tmp_path, monkeypatch):
        for name in ("a.wav", "b.m4a", "c.wav"):
            (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"x")
        pipeline = a_pipeline(str(tmp_path / "in"), tmp_path / "out")
        with monkeypatch.context() as before:
            before.setattr("raysp.corpus.folders.SUFFIXES", {".wav"})
            first = raysp.plan(pipeline)
            begin_and_stage(first)
        later = raysp.plan(pipeline)
        assert later.corpus.shards[0] == first.corpus.shards[0]
        assert [(shard.name, shard.num_rows) for shard in later.corpus.shards] == [
            *(("in-00000.parquet", 2), ("in-00001.parquet", 1))
        ]

    def test_a_folder_is_listed_alike_on_storage_with_urls(self):
        url = f"memory://{uuid.uuid4().hex}/in"
        for name in ("x.wav", "y/z.mp3", "notes.txt"):
            open_store(url).create(name, b"x")
        open_store(url).create("m.jsonl", b'{"audio_filepath": "x.wav"}\n')
        assert [(one.name, one.kind) for one in list_source(raysp.Shards(url))] == [("in-00000.parquet", "folder")]
        assert raysp.plan(a_pipeline(f"{url}/m.jsonl", "memory://out/x")).num_rows == 1
        open_store(url).create("a.arrow", b"x")
        assert [(one.name, one.kind) for one in list_source(raysp.Shards(url))] == [("a.parquet", "arrow")]

    def test_a_storage_that_fails_is_not_taken_for_an_empty_one(self, tmp_path, monkeypatch):
        write_shard(tmp_path / "in" / "a.parquet")

        def fail(*_):
            raise StoreError("503, try again")

        monkeypatch.setattr("raysp.planning.listing.expand", fail)
        with pytest.raises(PlanError, match="503, try again"):
            names(raysp.Shards(str(tmp_path / "in")))

    def test_a_gzipped_manifest_is_named_without_both_endings(self, tmp_path):
        import gzip

        (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(b'{"audio_filepath": "x.wav"}\n'))
        assert names(raysp.Shards(f"{tmp_path}/m.jsonl.gz")) == ["m-00000.parquet"]
        assert raysp.plan(a_pipeline(f"{tmp_path}/m.jsonl.gz", tmp_path / "out")).num_rows == 1

    @pytest.mark.parametrize("name", ["train.json", "*.json", "train*"])
    def test_a_manifest_named_json_is_one_where_the_url_says_so(self, tmp_path, name):
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
            assert [(one.kind, found.passed_over) for one in found.found] == [("folder", {".json": 1})]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[{"audio_filepath": "x.wav"}]', r"begins with a JSON array; expected .* Convert it: jq -c '\.\[\]'"),
            ('{\n  "audio_filepath": "x.wav"\n}', r"its first line is b'\{', which is no whole JSON object"),
            ('{"a": 1}', "expected a manifest, a JSON object with 'audio_filepath' in each line"),
            ("3", "its first line is b'3'; expected a manifest"),
            ("\x89PNG", "no whole JSON object"),
        ],
    )
    def test_a_json_file_that_is_no_manifest_is_refused_with_what_is_expected(self, tmp_path, text, message):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(PlanError, match=rf"{tmp_path}/m\.json: .*{message}"):
            names(raysp.Shards(f"{tmp_path}/m.json"))

    def test_the_id_of_a_data_set_on_the_hub_is_refused_with_the_command_that_gets_it(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(PlanError, match=r"download it first: hf download mozilla/voice --repo-type dataset"):
            names(raysp.Shards("mozilla/voice"))

    def test_a_damaged_manifest_is_listed_and_the_others_are_planned(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("{nonsense\n")
        (tmp_path / "b.jsonl").write_text('{"audio_filepath": "x.wav"}\n')
        plan = raysp.plan(a_pipeline(f"{tmp_path}/*.jsonl", tmp_path / "out"))
        assert [todo.shard.name for todo in plan.todo] == ["b-00000.parquet"]
        assert "line 1 of this slice is no JSON" in plan.corpus.unreadable["a-00000.parquet"]


class TestListedSink:
    @staticmethod
    def check(source: raysp.Shards, sink: object) -> None:
        refuse_listed_sink(source, list_source(source), str(sink))

    @pytest.mark.parametrize(
        ("url", "sink"),
        [
            ("", ""),
            ("", "labels"),
            ("", "x/deep/labels"),
            ("*.parquet", ""),
            ("a.parquet", ""),
            ("x/a.parquet", "x"),
            ("**", "labels"),
            ("**/*.parquet", "labels/deep"),
            ("x/**/*.parquet", "x/labels"),
            ("*/*.parquet", ""),
            ("*/a.parquet", ""),
            (["a.parquet", "x"], "x/labels"),
        ],
    )
    def test_a_sink_whose_label_shards_would_be_shards_is_refused(self, data, url, sink):
        url = [str(data / one) for one in url] if isinstance(url, list) else str(data / url)
        with pytest.raises(PlanError, match=r"sink.url: the label shard .* would be one of the shards of source.url="):
            self.check(raysp.Shards(url), data / sink)

    @pytest.mark.parametrize(
        ("url", "sink"),
        [
            ("*.parquet", "labels"),
            ("*.parquet", "x"),
            ("a.parquet", "labels"),
            ("a.parquet", "x"),
            ("x", "labels"),
            ("x", ""),
            ("x/**/*.parquet", "labels"),
            ("", "_labels"),
            ("**/*.parquet", ".labels"),
            ("", "../data-labels"),
            ("*.parquet", "../labels"),
            ("*/*.parquet", "labels"),
            ("*/*.parquet", "labels/deep"),
            ("[ab].parquet", "labels"),
        ],
    )
    def test_a_sink_whose_label_shards_would_not_be_shards_is_accepted(self, data, url, sink):
        source = raysp.Shards(str(data / url))
        before = {found.url for found in list_source(source)}
        label_shards = {str((data / sink / name).resolve()) for name in names(source)}
        self.check(source, data / sink)
        assert not label_shards & before

    @settings(max_examples=60, deadline=None)
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
        listed = {found.url for found in list_source(source)}
        label_shards = {f"{place}/{name}" for name in names(source)}
        replaced = bool(label_shards & listed)
        for label_shard in label_shards:
            write_shard(Path(label_shard), 1)
        listing = expand(source.urls[0])
        assert refused == (replaced or bool(label_shards & {listing.url(entry) for entry in listing.entries}))

    def test_a_link_does_not_hide_that_a_sink_lies_in_the_source(self, data, tmp_path):
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


class TestSettle:
    def settled(self, *, cpus: float = 4, gpus: float = 0, **label: object):
        return settle(a_pipeline(label=label), Resources(cpus, gpus))

    def test_without_a_gpu_auto_means_float32_on_the_cpu(self):
        found = self.settled()
        assert (found.device, found.dtype, found.gpus_per_actor) == ("cpu", "float32", 0)
        assert found.checkpoint.sample_rate == 16_000

    def test_with_a_gpu_auto_means_bfloat16_on_one_gpu_an_actor(self):
        found = self.settled(gpus=2)
        assert (found.device, found.dtype, found.gpus_per_actor) == ("cuda", "bfloat16", 1)

    @pytest.mark.parametrize(
        ("gpus", "label", "expected"),
        [
            (0, {}, Batching.FREE),
            (0, {"dtype": "bfloat16"}, Batching.ALONE),
            (0, {"dtype": "bfloat16", "exact": False}, Batching.RECORDED),
            (1, {}, Batching.RECORDED),
            (1, {"dtype": "float32"}, Batching.FREE),
        ],
    )
    def test_the_budget_is_in_the_fingerprint_where_labels_may_depend_on_it(self, gpus, label, expected):
        pipelines = [a_pipeline(label={**label, "batch_seconds": seconds}) for seconds in (7, 8)]
        settings = [settle(pipeline, Resources(4, gpus)) for pipeline in pipelines]
        assert {one.batching for one in settings} == {expected}
        parts, prints = zip(*map(hash_pipeline, pipelines, settings), strict=True)
        assert (prints[0] != prints[1]) == (expected is Batching.RECORDED)
        assert [one.get("steps.1.batch_seconds") for one in parts] == ([7, 8] if prints[0] != prints[1] else [None] * 2)

    def test_what_the_pipeline_says_is_kept(self):
        found = self.settled(gpus=1, device="cpu", dtype="float16", batch_seconds=7)
        assert (found.device, found.dtype, found.batch_seconds, found.gpus_per_actor) == ("cpu", "float16", 7, 0)
        assert self.settled(gpus=1, pool=raysp.Pool(4, gpus=0.25), cpus=8).gpus_per_actor == 0.25

    def test_a_window_that_holds_no_frame_of_the_model_is_refused(self):
        message = r"window_seconds=0\.02 is 320 samples at 16000 Hz; the model needs 400\. Raise window_seconds"
        with pytest.raises(PlanError, match=message):
            self.settled(window_seconds=0.02, overlap_seconds=0)

    @pytest.mark.parametrize(
        ("have", "label", "message"),
        [
            ({}, {"pool": raysp.Pool(gpus=1)}, r"1 actor of 1 GPU, device='auto'; found 0 GPUs, and no"),
            ({"gpus": 1}, {"pool": raysp.Pool(gpus=2)}, r"1 actor of 2 GPUs.*found 1 GPU"),
            ({}, {"device": "cuda"}, r"device='cuda'; found 0 GPU"),
            (
                {"cpus": 4},
                {"pool": raysp.Pool(cpus=4)},
                r"one actor of 4 CPUs leaves none of 4 CPUs to",
            ),
        ],
    )
    def test_a_pool_that_does_not_fit_is_refused_with_what_there_is(self, have, label, message):
        with pytest.raises(PlanError, match=message):
            self.settled(**have, **label)

    def test_a_checkpoint_that_is_not_there_is_refused(self):
        pipeline = a_pipeline(steps=[raysp.Decode(), raysp.Label("nowhere", outputs=[raysp.Transcript()])])
        with pytest.raises(
            CheckpointError, match=r"checkpoint 'nowhere': no such folder; expected a Hugging Face model"
        ):
            settle(pipeline, Resources(4))

    def test_an_output_that_the_model_cannot_give_is_refused(self):
        with pytest.raises(CheckpointError, match=r"cannot give Classes; it can give Transcript, Embedding"):
            self.settled(outputs=[raysp.Classes()])

    def test_a_users_own_output_is_judged_by_the_one_that_it_is_made_from(self):
        from tests.engine.deadly import DeadlyTranscript
        from tests.user_specs import Pitch

        self.settled(outputs=[Pitch(), DeadlyTranscript("other")])

    def test_a_step_that_cannot_be_run_is_refused_and_not_passed_over(self):
        from tests.user_specs import Louder

        with pytest.raises(PlanError, match=r"steps\[1\] Louder: found a step that this version of raysp cannot run"):
            settle(a_pipeline(keep=[Louder()]), Resources(4))

    @pytest.mark.parametrize(("visible", "expected"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("GPU-abc", 1)])
    def test_gpus_are_those_that_the_process_may_see(self, monkeypatch, visible, expected):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert count_gpus() == expected


class TestPlan:
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    @pytest.fixture
    def pipeline(self, tmp_path) -> raysp.Pipeline:
        write_shard(tmp_path / "in" / "a.parquet", 30)
        write_shard(tmp_path / "in" / "b.parquet", 5)
        return a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")

    @pytest.fixture
    def small_pieces(self, monkeypatch):
        monkeypatch.setattr("raysp.corpus.parquet.cut_pieces", partial(cut_pieces, max_bytes=2_000))

    def test_it_counts_shards_rows_and_pieces_and_writes_nothing(self, tmp_path, pipeline):
        before = files_below(tmp_path / "in")
        plan = raysp.plan(pipeline)
        assert (len(plan.corpus.shards), plan.num_rows, plan.rows_todo, plan.pieces_todo) == (2, 35, 35, 2)
        assert plan.done == frozenset()
        assert len(plan.corpus.fresh) == 2
        assert files_below(tmp_path / "in") == before
        assert not (tmp_path / "out").exists()

    def test_a_second_plan_of_a_begun_sink_writes_nothing_either(self, tmp_path, pipeline):
        begin_run(raysp.plan(pipeline), RunEntry.now())
        before = files_below(tmp_path / "out")
        assert before
        assert raysp.plan(pipeline).corpus.fresh == ()
        assert files_below(tmp_path / "out") == before

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda data: b"", "found 0 bytes; expected a Parquet file"),
            (lambda data: data[:-20], "expected b'PAR1', the end of a Parquet file"),
            (lambda data: data[:-8] + b"\xff\xff\xff\x00PAR1", "claims a footer of"),
            (lambda data: b"not parquet at all", "ends in b' all'"),
        ],
    )
    def test_a_shard_that_cannot_be_read_is_listed_and_the_others_are_planned(self, tmp_path, pipeline, damage, reason):
        path = tmp_path / "in" / "b.parquet"
        path.write_bytes(damage(path.read_bytes()))
        plan = raysp.plan(pipeline)
        assert list(plan.corpus.unreadable) == ["b.parquet"]
        assert reason in plan.corpus.unreadable["b.parquet"]
        assert [todo.shard.name for todo in plan.todo] == ["a.parquet"]

    def test_a_shard_with_an_extension_type_of_ray_is_listed_as_unreadable(self, tmp_path, pipeline):
        metadata = {"ARROW:extension:name": "ray.data.arrow_tensor", "ARROW:extension:metadata": "x"}
        evil = pa.field("evil", pa.binary(), metadata=metadata)
        table = rows_table(2).append_column(evil, pa.array([b"x", b"y"]))
        write_shard(tmp_path / "in" / "b.parquet", table=table)
        assert "would run code from the file" in raysp.plan(pipeline).corpus.unreadable["b.parquet"]

    @pytest.mark.parametrize(
        ("source", "fields", "message"),
        [
            ({"audio": "sound"}, {}, "a.parquet: has no column 'sound', expected one; its columns are id, audio, text"),
            ({"id": "key"}, {}, "has no column 'key'"),
            ({"text": "words"}, {}, "has no column 'words'"),
            ({"audio": "text"}, {}, "a.parquet: column 'text' is string; expected struct<bytes: binary, path: string>"),
            ({}, {"keep": [raysp.Keep(where=[("lang", "==", "en")])]}, "has no column 'lang'"),
            (
                {},
                {"keep": [raysp.Keep(where=[("language", "==", 3)])]},
                "a.parquet: Keep cannot ask 'language' == 3 of string: Function 'equal' has no kernel matching",
            ),
        ],
    )
    def test_a_wrong_column_is_refused_with_the_shard(self, tmp_path, pipeline, source, fields, message):
        with pytest.raises(PlanError, match=message):
            raysp.plan(a_pipeline(raysp.Shards(pipeline.source.url, **source), tmp_path / "out", **fields))

    @pytest.mark.parametrize(
        ("references", "found"),
        [
            (pa.array([7, 5, 3]), "int64"),
            (pa.array([7, 5, 3]).dictionary_encode(), "(int64|dictionary)"),
            (pa.array([0.5, None, 1.0]), "double"),
            (pa.array([["a"], [], None]), "list<"),
        ],
    )
    def test_references_that_are_no_texts_are_refused_with_what_to_do(self, tmp_path, references, found):
        table = rows_table(3).set_column(2, "text", references)
        write_shard(tmp_path / "in" / "a.parquet", table=table)
        with pytest.raises(PlanError, match=rf"a.parquet: column 'text' holds {found}.*, expected texts, .* sink.keep"):
            raysp.plan(a_pipeline(raysp.Shards(f"{tmp_path}/in", text="text"), tmp_path / "out"))
        pipeline = a_pipeline(f"{tmp_path}/in", raysp.Parquet(f"{tmp_path}/out", keep=["text"]))
        assert raysp.plan(pipeline).num_rows == 3

    @pytest.mark.parametrize(
        "kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.binary(), pa.null()]
    )
    def test_references_of_any_type_of_text_are_planned(self, tmp_path, kind):
        texts = pa.nulls(3) if kind == pa.null() else pa.array(["a", "b", None]).cast(kind)
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3).set_column(2, "text", texts))
        assert raysp.plan(a_pipeline(raysp.Shards(f"{tmp_path}/in", text="text"), tmp_path / "out")).num_rows == 3

    @pytest.mark.parametrize(
        "ids",
        [
            pa.array([1, 2, 3]),
            pa.array(["a", None, "b"]).dictionary_encode(),
            pa.array(["a", "b", "c"], pa.large_string()),
        ],
    )
    def test_ids_and_audio_of_any_stored_type_are_planned(self, tmp_path, ids):
        audio = pa.array([b"x", None, b""], pa.large_binary())
        write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": ids, "audio": audio}))
        assert raysp.plan(a_pipeline(f"{tmp_path}/in", tmp_path / "out")).num_rows == 3

    def test_a_shard_without_rows_is_planned_without_pieces(self, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", 0)
        plan = raysp.plan(a_pipeline(f"{tmp_path}/in", tmp_path / "out"))
        assert [(todo.shard.num_rows, todo.pieces) for todo in plan.todo] == [(0, ())]

    def test_a_shard_that_changed_after_it_was_planned_is_refused(self, tmp_path, pipeline):
        begin_and_stage(raysp.plan(pipeline))
        write_shard(tmp_path / "in" / "b.parquet", 6)
        with pytest.raises(PlanError, match=r"b.parquet: its content changed since it was planned \(.* bytes, now"):
            raysp.plan(pipeline)

    def test_a_shard_that_vanished_is_reported_and_a_new_one_is_added(self, tmp_path, pipeline):
        begin_run(raysp.plan(pipeline), RunEntry.now())
        (tmp_path / "in" / "a.parquet").unlink()
        write_shard(tmp_path / "in" / "c.parquet", 7)
        plan = raysp.plan(pipeline)
        assert plan.corpus.vanished == ("a.parquet",)
        assert [shard.name for shard in plan.corpus.fresh] == ["c.parquet"]
        assert [todo.shard.name for todo in plan.todo] == ["b.parquet", "c.parquet"]

    def test_pieces_are_never_cut_again(self, pipeline, small_pieces, monkeypatch):
        first = raysp.plan(pipeline)
        assert first.pieces_todo > 2
        begin_run(first, RunEntry.now())
        monkeypatch.setattr("raysp.corpus.parquet.cut_pieces", cut_pieces)
        assert [todo.pieces for todo in raysp.plan(pipeline).todo] == [todo.pieces for todo in first.todo]

    def test_pieces_that_are_staged_whole_are_not_to_do(self, pipeline, small_pieces):
        first = raysp.plan(pipeline)
        store = begin_run(first, RunEntry.now())
        shard = first.corpus.shards[0]
        whole, half = shard.pieces[0], shard.pieces[1]
        for piece, of in ((whole, 1), (half, 2)):
            block = stage.BlockName(shard.name, piece, shard.input_id, first.fingerprint, 0, of)
            stage.stage(store, block, results(list(range(piece.first, piece.end))))
        second = raysp.plan(pipeline)
        assert second.todo[0].pieces == shard.pieces[1:]
        assert second.rows_todo == first.rows_todo - whole.num_rows

    @pytest.mark.parametrize(
        ("change", "difference"),
        [
            ("steps.1.exact=false", r"`steps.1.exact` was True, now False"),
            ("steps.0.channel=0", r"`steps.0.channel` was 'mean', now 0"),
            (
                'sink.keep=["language"]',
                r"same labels in other columns or rows: `sink.keep` was \[\], now \['language'\]",
            ),
            ("source.text=text", r"same labels in other columns or rows: `source.text` was unset, now 'text'"),
        ],
    )
    def test_a_sink_of_another_pipeline_is_refused_with_what_differs(self, pipeline, change, difference):
        from raysp.specs.pipeline import with_overrides

        begin_and_stage(raysp.plan(pipeline))
        with pytest.raises(ChangedError, match=difference):
            raysp.plan(with_overrides(pipeline, [change]))

    @pytest.mark.parametrize(
        "change", ["steps.1.pool.actors=[1,9]", "steps.1.batch_seconds=5", "sink.compression=gzip"]
    )
    def test_a_change_that_changes_no_label_goes_on(self, pipeline, change):
        from raysp.specs.pipeline import with_overrides

        begin_run(raysp.plan(pipeline), RunEntry.now())
        assert raysp.plan(with_overrides(pipeline, [change])).corpus.fresh == ()

    def test_a_file_that_is_no_label_shard_in_the_place_of_one_is_refused(self, tmp_path, pipeline):
        write_shard(tmp_path / "out" / "a.parquet")
        with pytest.raises(ChangedError, match=r"a.parquet"):
            raysp.plan(pipeline)

    def test_the_first_rows_can_be_planned_alone(self, pipeline):
        plan = make_plan(pipeline, Resources(4), limit_rows=32)
        assert [shard.num_rows for shard in plan.corpus.shards] == [30, 2]
        assert plan.rows_todo == 32
        assert len(make_plan(pipeline, Resources(4), limit_rows=3).corpus.shards) == 1

    def test_the_sink_needs_not_exist_and_is_named_by_its_absolute_path(self, tmp_path, pipeline, monkeypatch):
        monkeypatch.chdir(tmp_path)
        begin_run(raysp.plan(a_pipeline("in/*.parquet", "out")), RunEntry.now())
        assert open_store("out").url == str(tmp_path / "out")
        assert raysp.plan(pipeline).corpus.fresh == ()

    def test_the_checkpoint_is_part_of_the_fingerprint_by_content(self, tmp_path, pipeline):
        import shutil

        copy = tmp_path / "copy"
        shutil.copytree(CHECKPOINT, copy)
        steps = [raysp.Decode(), raysp.Label(str(copy), outputs=[raysp.Transcript()])]
        copied = a_pipeline(pipeline.source, pipeline.sink, steps=steps)
        assert raysp.plan(copied).fingerprint == raysp.plan(pipeline).fingerprint
        raw = bytearray((copy / "model.safetensors").read_bytes())
        raw[-1] ^= 1
        (copy / "model.safetensors").write_bytes(raw)
        assert raysp.plan(copied).fingerprint != raysp.plan(pipeline).fingerprint


class TestHubIds:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.chdir(tmp_path)
        return tmp_path / "hub"

    def pipeline(self, tmp_path, checkpoint: str) -> raysp.Pipeline:
        write_shard(tmp_path / "in" / "a.parquet")
        label = raysp.Label(checkpoint, outputs=[raysp.Transcript()])
        return a_pipeline(
            raysp.Shards(str(tmp_path / "in")), steps=[raysp.Decode(), label], sink=raysp.Parquet(str(tmp_path / "out"))
        )

    def plan(self, tmp_path, checkpoint: str) -> Plan:
        return make_plan(self.pipeline(tmp_path, checkpoint), Resources(4))

    def test_a_plan_keeps_the_commit_that_the_id_meant(self, cache, tmp_path):
        lay_out(cache, CHECKPOINT)
        plan = self.plan(tmp_path, "owner/name")
        assert plan.pipeline.label.checkpoint == f"owner/name@{COMMIT}"
        (cache / "models--owner--name" / "refs" / "main").write_text("f" * 40)  # pushed meanwhile
        folder = checkpoints.checkpoint_folder(plan.pipeline)
        assert folder == cache / "models--owner--name" / "snapshots" / COMMIT
        checkpoints.check_digest("owner/name", folder, str(plan.parts["steps.1.checkpoint_digest"]))
        begin_run(plan, RunEntry.now())
        assert recorded_pipeline(str(tmp_path / "out")).label.checkpoint == f"owner/name@{COMMIT}"

    def test_the_fingerprint_is_that_of_the_same_files_in_a_folder(self, cache, tmp_path, monkeypatch):
        lay_out(cache, CHECKPOINT)
        of_folder = self.plan(tmp_path, str(CHECKPOINT)).fingerprint
        assert self.plan(tmp_path, "owner/name@v1.0").fingerprint == of_folder
        elsewhere = tmp_path / "elsewhere"
        lay_out(elsewhere, CHECKPOINT, name="other/name", commit="e" * 40)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(elsewhere))
        assert self.plan(tmp_path, "other/name").fingerprint == of_folder

    def test_an_id_that_is_not_there_is_refused_before_any_work(self, cache, tmp_path):
        with pytest.raises(CheckpointError, match=r"'owner/none': no such folder, and the Hugging Face hub does not"):
            self.plan(tmp_path, "owner/none")
        assert not (tmp_path / "out").exists()

    def test_a_folder_goes_before_an_id_of_its_name(self, cache, tmp_path):
        (tmp_path / "owner").mkdir()
        (tmp_path / "owner" / "name").symlink_to(CHECKPOINT)
        assert self.plan(tmp_path, "owner/name").pipeline.label.checkpoint == str(tmp_path / "owner" / "name")
