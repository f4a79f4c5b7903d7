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
    ran = raysp_command("status", write_recipe(tmp_path), "--storage-option", "secret=hunter2")
    assert (ran.code, "--storage-option secret: applies to a folder of label shards" in ran.err) == (2, True)
    assert "hunter2" not in ran.err


@pytest.mark.slow
def test_sinks_and_checkpoints_in_a_bucket_are_reached_by_options(raysp_command, tmp_path, s3):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    place = f"s3://{s3.bucket()}"
    s3.upload(CHECKPOINT, place.removeprefix("s3://"), "model/")
    for name in ("first", "second"):
        sink = raysp.Parquet(f"{place}/{name}", storage_options=s3.options)
        raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", sink), engine="here", progress=False)
    options = [f"key={s3.key}", "secret=env:RAYSP_TEST_SECRET", f"endpoint_url={s3.endpoint}"]
    given = ["--json", *(word for one in options for word in ("--storage-option", one))]
    for command in (
        ("inspect", f"{place}/model"),
        ("status", f"{place}/first"),
        ("gc", f"{place}/first"),
        ("report", f"{place}/first"),
        ("export", f"{place}/first", f"{place}/texts", "--to", "jsonl"),
        ("merge", f"{place}/first", f"{place}/second", "--by", "pred_score", "--to", f"{place}/merged"),
        ("verify", f"{place}/merged"),
    ):
        ran = raysp_command(*command, *given)
        assert ran.code == 0, ran.err
    ran = raysp_command("retry", f"{place}/first", *given[1:], "--trust")
    assert next_of(ran.out) == ["status", f"{place}/first", *given[1:]]
    recipe = write_recipe(
        tmp_path,
        RECIPE.replace("{sink!r}", "{sink!r}, storage_options={options}"),
        sink=f"{place}/first",
        options=repr(s3.options).replace("Env(", "raysp.Env("),
    )
    assert json.loads(raysp_command("status", recipe, "--json").out)["shards_committed"] == 1
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
