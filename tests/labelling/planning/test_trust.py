"""A sink is data: nothing that its record names is used on its word; and what happens where the guards are off."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import raysp
from raysp import PlanError, SpecError, TrustError, verify
from tests import kit
from tests.corpora import a_pipeline, write_shard
from tests.sink.foreign_sinks import MODULE, SECRET, VARIABLE, edit_record, listening, make_hostile, with_shards_at

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
def own(labelled, tmp_path) -> Path:
    """A sink that this user made, and its recipe beside it."""
    sink = Path(shutil.copytree(labelled / "out", tmp_path / "out"))
    kit.pipeline_file(tmp_path / "recipe_of_a_sink.py", a_pipeline(f"{labelled}/in/*.parquet", sink))
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
    def test_no_verb_sends_or_imports_anything(self, foreign, server, labelled, tmp_path):
        edit_record(foreign, lambda p: p["steps"].insert(1, {"type": "Keep", "where": {"type": f"{MODULE}:Evil"}}))
        for line in [*OF_SINKS, *OF_SOURCES]:
            ran = kit.run(line.format(sink=foreign, other=labelled / "out", folder=tmp_path))
            assert nothing_happened(foreign, server), (line, server.heard, ran)
            assert (ran.code, "or --trust" in ran.err) == (
                (2, True) if line in OF_SOURCES else (0, "verify" in line)
            ), ran
            assert SECRET not in ran.out + ran.err
        code, out, err = command("verify", foreign)
        assert (code, "2" in out) == (0, True)
        assert f"raysp: {foreign}: only the sink was checked, not its source: its record names source.url='" in err
        found = json.loads(command("verify", foreign, "--json")[1])
        assert (found["rows"], found["unused"][0].partition("=")[0]) == (2, "source.url")
        (foreign / "a.parquet").unlink()
        assert command("verify", foreign)[0] == 1


def test_values_that_would_have_been_used_are_listed_and_with_trust_all_are(foreign, server):
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
    command("verify", foreign, "--trust")
    assert server.secrets
    assert (foreign / "imported").exists()


@pytest.mark.slow
def test_with_the_pipeline_file_a_foreign_sink_is_compared_with_the_users_own_source(own, server, monkeypatch):
    recipe = own.parent / "recipe_of_a_sink.py"
    make_hostile(own, server)
    monkeypatch.syspath_prepend(own)
    for verb in ("verify", "retry"):
        code, _, err = command(verb, recipe)
        assert (code, nothing_happened(own, server)) == (0 if verb == "verify" else 2, True)
        assert f"names a shard at '{server.url}/a.parquet'" in err  # the plan is the stranger's
    assert command("verify", recipe, "--sample", "1")[0] == 2
    assert command("status", recipe)[0] == command("gc", recipe)[0] == command("plan", recipe)[0] == 0
    assert command("report", recipe)[0] == command("forget", recipe, "a0")[0] == command("run", recipe)[0] == 0
    assert command("export", recipe, own.parent / "rows", "--to", "dataset")[0] == 2
    assert command("plan", recipe, "--set", f"sink.url={own.parent}/new", "--like", own)[0] == 0
    assert nothing_happened(own, server)


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


@pytest.mark.parametrize(
    ("place", "is_outside"),
    [
        ("in", False),
        ("in/deep", False),
        ("one", False),
        ("other", True),
        ("inside", True),
        ("in/../other", True),
        ("in/deep/..", True),
    ],
)
def test_the_urls_of_a_pipeline_hold_the_shards_of_a_plan_that_may_be_read(own, labelled, place, is_outside):
    source = raysp.Shards([f"{labelled}/in", f"{labelled}/one/*.parquet"])
    with_shards_at(own, f"{labelled}/{place}")
    unused = verify(str(own), pipeline=a_pipeline(source, own)).unused
    assert unused == ((f"a shard at '{labelled}/{place}/a.parquet'",) if is_outside else ())
