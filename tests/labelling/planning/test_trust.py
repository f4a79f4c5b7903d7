"""A sink is data: nothing that its record names is used on its word; and what happens where the guards are off."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import raysp
from raysp import PlanError, SpecError, TrustError, verify
from raysp.labelling.planning.trust import read_recorded
from raysp.work import SinkRequest
from tests import kit
from tests.corpora import a_pipeline, write_shard
from tests.sink.foreign_sinks import MODULE, SECRET, VARIABLE, edit_record, listening, make_hostile

OF_SINKS = [
    "status {sink}",
    "status {sink} --watch",
    "gc {sink}",
    "verify {sink}",
    "report {sink} --out {folder}/page.html",
    "forget {sink} a0",
    "export {sink} {folder}/lines --to jsonl",
    "diff {sink} {other} --html {folder}/page.html",
    "merge {sink} {other} --by pred_score --to {folder}/merged",
]
"""Commands that read sinks alone."""
OF_SOURCES = [
    "retry {sink}",
    "retry {sink} --shard a.parquet",
    "verify {sink} --sample 1",
    "export {sink} {folder}/rows --to dataset",
    "export {sink} --to srt --beside",
]
"""Commands that need the source of a sink."""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """A corpus of two rows, its labels, and the recipe that made them."""
    folder = tmp_path_factory.mktemp("labelled")
    write_shard(folder / "in" / "a.parquet", 2)
    raysp.run(a_pipeline(f"{folder}/in/*.parquet", folder / "out"), engine="here", progress=False)
    return folder


@pytest.fixture
def own(labelled, tmp_path, monkeypatch) -> Path:
    """A sink that this user made, and its recipe beside it."""
    sink = Path(shutil.copytree(labelled / "out", tmp_path / "out"))
    kit.pipeline_file(tmp_path / "recipe_of_a_sink.py", a_pipeline(f"{labelled}/in/*.parquet", sink))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return sink


@pytest.fixture
def server():
    with listening() as found:
        yield found


@pytest.fixture
def foreign(own, server, monkeypatch) -> Path:
    """A sink made by someone else, opened by a user whose working directory is its folder."""
    make_hostile(own, server)
    monkeypatch.setenv(VARIABLE, SECRET)
    monkeypatch.syspath_prepend(own)
    return own


def command(*arguments: object) -> tuple[int, str, str]:
    ran = kit.run(arguments)
    return ran.code, ran.out, ran.err


def nothing_happened(sink: Path, server) -> bool:
    return server.heard == [] and not (sink / "imported").exists() and MODULE not in sys.modules


class TestAForeignSink:
    @pytest.mark.slow
    @pytest.mark.parametrize("line", [*OF_SINKS, *OF_SOURCES])
    def test_no_verb_sends_or_imports_anything(self, foreign, server, labelled, tmp_path, line):
        edit_record(foreign, lambda p: p["steps"].insert(1, {"type": "Keep", "where": {"type": f"{MODULE}:Evil"}}))
        ran = kit.run(line.format(sink=foreign, other=labelled / "out", folder=tmp_path))
        assert nothing_happened(foreign, server), (server.heard, ran)
        assert (ran.code, "or --trust" in ran.err) == ((2, True) if line in OF_SOURCES else (0, "verify" in line)), ran
        assert SECRET not in ran.out + ran.err

    @pytest.mark.slow
    def test_values_that_would_have_been_used_are_listed(self, foreign, server):
        code, _, err = command("retry", foreign)
        names = [
            f"source.url='{server.url}/a.parquet'",
            f"source.storage_options.headers.X-Token=Env('{VARIABLE}')",
            f"steps.1.where='{MODULE}:wanted'",
            f"steps.2.function='{MODULE}:wanted'",
            f"steps.3.checkpoint='{server.url}/model'",
            f"steps.3.outputs.0.type='{MODULE}:Evil'",
            f"sink.storage_options.headers.X-Token=Env('{VARIABLE}')",
            f"sink.storage_options.endpoint_url='{server.url}'",
        ]
        with pytest.raises(TrustError) as caught:
            raysp.retry(str(foreign))
        assert caught.value.unused == tuple(names)
        assert (code, err) == (2, f"raysp: {caught.value}\n")
        assert str(caught.value) == (
            f"{foreign}: its record names {'; '.join(names)}. A sink is untrusted data: none of this is used unless "
            "you give the pipeline file instead of the sink, or --trust (in Python: pipeline=, trust=True)"
        )

    @pytest.mark.slow
    def test_verify_checks_the_sink_alone_and_reports_what_it_did_not_check(self, foreign):
        code, out, err = command("verify", foreign)
        assert (code, "2" in out) == (0, True)
        assert f"raysp: {foreign}: only the sink was checked, not its source: its record names source.url='" in err
        assert verify(str(foreign)).rows == 2
        assert json.loads(command("verify", foreign, "--json")[1])["unused"][0].startswith("source.url=")
        (foreign / "a.parquet").unlink()
        assert command("verify", foreign)[0] == 1

    @pytest.mark.slow
    def test_with_the_pipeline_file_it_is_compared_with_the_users_own_source(self, own, server, monkeypatch):
        recipe = own.parent / "recipe_of_a_sink.py"
        make_hostile(own, server)
        monkeypatch.syspath_prepend(own)
        code, _, err = command("verify", recipe)
        assert (code, nothing_happened(own, server)) == (0, True)
        assert f"names a shard at '{server.url}/a.parquet'" in err  # the plan is the stranger's
        assert command("verify", recipe, "--sample", "1")[0] == 2
        code, _, err = command("retry", recipe)
        assert (code, nothing_happened(own, server)) == (2, True)
        assert f"names a shard at '{server.url}/a.parquet'" in err
        assert command("status", recipe)[0] == command("gc", recipe)[0] == command("plan", recipe)[0] == 0
        assert command("report", recipe)[0] == command("forget", recipe, "a0")[0] == command("run", recipe)[0] == 0
        assert command("export", recipe, own.parent / "rows", "--to", "dataset")[0] == 2
        assert command("plan", recipe, "--set", f"sink.url={own.parent}/new", "--like", own)[0] == 0
        assert nothing_happened(own, server)

    @pytest.mark.slow
    def test_with_trust_all_of_it_is_used(self, foreign, server):
        command("verify", foreign, "--trust")
        assert server.secrets
        assert (foreign / "imported").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda p: p["source"].update(url=["/a/*.parquet", "s3://b/*.parquet"]), "source.url.1='s3://b/*.parquet'"),
        (lambda p: p["source"].update(audio_root="/etc"), "source.audio_root='/etc'"),
        (lambda p: p["sink"].update(storage_options={"profile": "x"}), "sink.storage_options.profile='x'"),
        (lambda p: p.update(type="evil:Pipeline"), "type='evil:Pipeline'"),
        (lambda p: p["steps"][1].update(lm="http://a/lm.arpa"), "steps.1.lm='http://a/lm.arpa'"),
        (
            lambda p: p.update(name={"type": "mapping", "items": {"a": {"type": "evil:N"}}}),
            "name.items.a.type='evil:N'",
        ),
    ],
)
def test_all_references_out_of_a_sink_are_named(own, change, part):
    edit_record(own, change)
    assert part in verify(str(own)).unused


def test_a_record_of_any_shape_is_refused_and_never_a_crash(own):
    for pipeline in (None, [], "x", {"type": "Shards", "url": "x"}, {"type": 3}):
        record = json.loads((own / ".raysp" / "run.json").read_text())
        (own / ".raysp" / "run.json").write_text(json.dumps({**record, "pipeline": pipeline}))
        raysp.status(str(own))
        assert verify(str(own)).unused
        with pytest.raises((PlanError, SpecError)):
            raysp.retry(str(own), trust=True, engine="here", progress=False)


@pytest.mark.parametrize("urls", [["sub", "a.parquet"], ["**/*.parquet"], ["sub/../"]])
def test_the_urls_of_a_pipeline_hold_the_shards_that_it_planned(tmp_path, monkeypatch, urls):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "sub/b"):
        write_shard(tmp_path / "in" / f"{name}.parquet", 1)
    pipeline = a_pipeline(raysp.Shards([f"in/{url}" for url in urls]), tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    verified = verify(str(tmp_path / "out"), pipeline=pipeline, sample=2)
    assert (verified.sampled_equal, verified.unused) == (2, ())


@pytest.mark.parametrize(
    ("url", "is_outside"),
    [
        ("/corpus/in/a.parquet", False),
        ("/corpus/in/deep/a.parquet", False),
        ("/corpus/in", False),
        ("/corpus/other/a.parquet", True),
        ("/corpus/in/../../etc/a.parquet", True),
        ("/corpus/inside/a.parquet", True),
        ("http://host/a.parquet", True),
        ("s3://bucket/in/a.parquet", False),
        ("s3://bucket/in/../a.parquet", True),
        ("s3://bucket.evil/in/a.parquet", True),
        ("/one/file.parquet", False),
        ("/one/other.parquet", True),
    ],
)
def test_planned_shards_are_in_the_source(own, url, is_outside):
    source = raysp.Shards(["/corpus/in", "s3://bucket/in/*.parquet", "/one/file.parquet"])
    recorded = read_recorded(SinkRequest(str(own), pipeline=a_pipeline(source)))
    [shard] = recorded.sink.shards()
    assert (recorded.outside([replace(shard, url=url)]) == (url,)) == is_outside
