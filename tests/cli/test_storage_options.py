"""`--storage-option` in every verb that takes a sink, and next commands that work as they are printed."""

import json
import re
import shlex

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import raysp
from tests import kit
from tests.commands import RECIPE, write_recipe
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, wav, write_shard

VERBS = ["status", "verify", "gc", "retry", "diff"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_takes_a_sink_lists_it(raysp_command, verb):
    assert "--storage-option KEY=VALUE" in raysp_command(verb, "--help").out


def test_values_are_text_except_for_true_false_and_variables():
    seen: list[dict[str, object]] = []

    class Memory(MemoryFileSystem):
        cachable = False

        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments)
            seen.append(options)

    given = ["key=0123", "secret=env:THE_SECRET", "anon=false", "client_kwargs.region_name=eu-1", "path=a=b", "x=null"]
    fsspec.register_implementation("memory", Memory, clobber=True)
    try:
        options = [word for one in given for word in ("--storage-option", one)]
        ran = kit.run(["status", "memory://nothing", *options], THE_SECRET="hunter2")
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
    assert "not a sink of raysp" in ran.err
    expected = {"key": "0123", "secret": "hunter2", "anon": False, "client_kwargs": {"region_name": "eu-1"}}
    assert {**expected, "path": "a=b", "x": None}.items() <= seen[0].items()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("secret=hunter2", "holds a literal secret; give it as --storage-option secret=env:NAME"),
        ("client_kwargs.aws_secret_access_key=hunter2", "=env:NAME"),
        ("hunter2", "expected KEY=VALUE or KEY=env:NAME"),
        ("secret=env:no name", "is not the name of an environment variable"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused(raysp_command, tmp_path, option, message):
    ran = raysp_command("status", tmp_path, "--storage-option", option)
    assert ran.code == 2
    assert message in ran.err


def test_beside_a_pipeline_file_it_is_refused_without_its_value(raysp_command, tmp_path):
    ran = raysp_command("status", write_recipe(tmp_path), "--storage-option", "secret=hunter2")
    assert ran.code == 2
    assert "--storage-option secret: applies to a folder of label shards" in ran.err
    assert "hunter2" not in ran.err


def test_a_sink_in_a_bucket_is_reached_by_options_and_by_its_pipeline_file(raysp_command, tmp_path, s3):
    url = f"s3://{s3.bucket()}/labels of a user"
    write_shard(tmp_path / "in" / "a.parquet", 2)
    source = f"{tmp_path}/in/*.parquet"
    raysp.run(a_pipeline(source, raysp.Parquet(url, storage_options=s3.options)), engine="here", progress=False)
    options = [f"key={s3.key}", "secret=env:RAYSP_TEST_SECRET", f"endpoint_url={s3.endpoint}"]
    for verb, exit_code in (("status", 0), ("verify", 0), ("gc", 0)):
        given = [word for one in options for word in ("--storage-option", one)]
        ran = raysp_command(verb, url, *given, "--json")
        assert ran.code == exit_code, ran.err
        assert json.loads(ran.out)["sink"] == url
    recipe = write_recipe(
        tmp_path,
        RECIPE.replace("{sink!r}", "{sink!r}, storage_options={options}"),
        sink=url,
        options=repr(s3.options).replace("Env(", "raysp.Env("),
    )
    assert json.loads(raysp_command("status", recipe, "--json").out)["shards_committed"] == 1


@pytest.mark.slow
def test_sinks_in_a_bucket_are_reported_exported_and_merged_by_options(raysp_command, tmp_path, s3):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    place = f"s3://{s3.bucket()}"
    for name in ("first", "second"):
        sink = raysp.Parquet(f"{place}/{name}", storage_options=s3.options)
        raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", sink), engine="here", progress=False)
    options = [f"key={s3.key}", "secret=env:RAYSP_TEST_SECRET", f"endpoint_url={s3.endpoint}"]
    given = ["--json", *(word for one in options for word in ("--storage-option", one))]
    for command in (
        ("report", f"{place}/first"),
        ("export", f"{place}/first", f"{place}/texts", "--to", "jsonl"),
        ("merge", f"{place}/first", f"{place}/second", "--by", "pred_score", "--to", f"{place}/merged"),
        ("verify", f"{place}/merged"),
    ):
        ran = raysp_command(*command, *given)
        assert ran.code == 0, ran.err
    s3.download(place.removeprefix("s3://"), tmp_path / "copy")
    assert "</html>" in (tmp_path / "copy/first/.raysp/report.html").read_text()
    assert [file.name for file in (tmp_path / "copy/merged").rglob("*.parquet")] == ["a.parquet"]
    assert [*(tmp_path / "copy/texts").rglob("*.jsonl")]


def next_of(out: str, name: str = "next") -> list[str]:
    [line] = re.findall(rf"^{name} +raysp (.*)$", out, re.MULTILINE)
    return shlex.split(line)


def test_a_next_command_is_quoted_and_works_as_it_is_printed(raysp_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shard(tmp_path / "in" / "a.parquet", 1)
    recipe = write_recipe(tmp_path, sink="my labels")
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    ran = raysp_command("run", recipe)
    assert "raysp status 'my labels'\n" in ran.out
    assert raysp_command(*next_of(ran.out)).code == 0
    ran = raysp_command("run", recipe, "--set", "sink.url=it's here", "--rows", 1)
    assert next_of(ran.out) == ["run", str(recipe), "--set", "sink.url=it's here"]
    assert raysp_command(*next_of(ran.out)).code == 0
    ran = raysp_command("retry", recipe, "--set", "sink.url=it's here")
    assert next_of(ran.out) == ["status", str(recipe), "--set", "sink.url=it's here"]
    assert raysp_command(*next_of(ran.out)).code == 0


@pytest.mark.parametrize("root", [None, "clips"])
def test_a_printed_retry_works_as_it_is_printed(raysp_command, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    (tmp_path / "clips").mkdir()
    audio = pa.array([{"bytes": wav(8000), "path": None}, {"bytes": None, "path": "b.wav"}], AUDIO)
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": ["a", "b"], "audio": audio}))
    settings = ["--set", "sink.url=it's here", *(["--set", f"source.audio_root={root}"] if root else [])]
    ran = raysp_command("run", write_recipe(tmp_path), *settings)
    (tmp_path / "clips" / "b.wav").write_bytes(wav(8000))
    printed = next_of(ran.out, "once fixed" if root else " *to read them by path:")
    again = raysp_command(*[word.replace("=DIR", "=clips") for word in printed])
    assert "1 labelled again, 0 failed again" in again.out, again.err
    assert raysp_command(*next_of(ran.out, "report")).code == 0


def test_a_retry_that_a_message_names_works_as_it_is_printed(raysp_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    write_shard(tmp_path / "in" / "a.parquet", 1)
    run = ["run", write_recipe(tmp_path), "--set", "sink.url=it's here"]
    assert raysp_command(*run).code == 0
    write_shard(tmp_path / "in" / "a.parquet", 2)
    ran = raysp_command(*run)
    assert (ran.code, "content changed" in ran.err) == (2, True)
    [printed] = re.findall("`raysp (retry .*)`", ran.err)
    assert shlex.split(printed) == ["retry", *map(str, run[1:]), "--shard", "a.parquet"]
    assert "2 labelled again" in raysp_command(*shlex.split(printed)).out
    assert raysp_command(*run).code == 0


@pytest.mark.slow
def test_a_next_command_has_the_options_of_the_sink(raysp_command, tmp_path, s3, monkeypatch):
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    url = f"s3://{s3.bucket()}/labels"
    write_shard(tmp_path / "in" / "a.parquet", 1)
    sink = raysp.Parquet(url, storage_options=s3.options)
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", sink), engine="here", progress=False)
    options = [f"key={s3.key}", "secret=env:RAYSP_TEST_SECRET", f"endpoint_url={s3.endpoint}"]
    given = [word for one in options for word in ("--storage-option", one)]
    ran = raysp_command("retry", url, *given, "--trust")
    assert next_of(ran.out) == ["status", url, *given]
    assert raysp_command(*next_of(ran.out)).code == 0


def test_a_checkpoint_in_a_bucket_is_inspected_with_options(raysp_command, s3):
    bucket = s3.bucket()
    s3.upload(CHECKPOINT, bucket, "models/digits/")
    url = f"s3://{bucket}/models/digits"
    options = (f"key={s3.key}", "secret=env:RAYSP_TEST_SECRET", f"endpoint_url={s3.endpoint}")
    ran = raysp_command("inspect", url, "--json", *(word for one in options for word in ("--storage-option", one)))
    assert (ran.code, json.loads(ran.out)["architecture"]) == (0, "UniSpeechForCTC")


def test_a_checkpoint_on_a_disk_takes_none(raysp_command):
    ran = raysp_command("inspect", CHECKPOINT, "--storage-option", "anon=true")
    assert (ran.code, "--storage-option anon: applies to a url such as s3://bucket/folder" in ran.err) == (2, True)
