"""`--storage-option` in every verb that takes a sink, and next commands that work as they are printed."""

import json
import re
import shlex
from pathlib import Path

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
    assert "=hunter2" not in ran.err


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


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    return tmp_path


def test_next_commands_are_quoted_and_work_as_they_are_printed(raysp_command, folder, monkeypatch):
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    write_shard(folder / "in" / "a.parquet", 1)
    run = ["run", str(write_recipe(folder, sink="my labels"))]
    setting = ["--set", "sink.url=it's here"]
    ran = raysp_command(*run)
    assert "raysp status 'my labels'\n" in ran.out
    assert raysp_command(*next_of(ran.out)).code == 0
    ran = raysp_command(*run, *setting, "--rows", 1)
    assert next_of(ran.out) == [*run, *setting]
    assert raysp_command(*next_of(ran.out)).code == 0
    write_shard(folder / "in" / "a.parquet", 2)
    ran = raysp_command(*run, *setting)
    assert (ran.code, "content changed" in ran.err) == (2, True)
    [printed] = re.findall("`raysp (retry .*)`", ran.err)
    assert shlex.split(printed) == ["retry", *run[1:], *setting, "--shard", "a.parquet"]
    ran = raysp_command(*shlex.split(printed))
    assert "2 labelled again" in ran.out
    assert next_of(ran.out) == ["status", *run[1:], *setting]
    assert raysp_command(*next_of(ran.out)).code == 0


@pytest.mark.parametrize("root", [None, "clips"])
def test_a_printed_retry_works_as_it_is_printed(folder, root):
    audio = pa.array([{"bytes": wav(8000), "path": None}, {"bytes": None, "path": "b.wav"}], AUDIO)
    write_shard(folder / "in" / "a.parquet", table=pa.table({"id": ["a", "b"], "audio": audio}))
    settings = ["--set", "sink.url=it's here", *(["--set", f"source.audio_root={root}"] if root else [])]
    ran = kit.run(["run", write_recipe(folder), *settings])
    (folder / "clips" / "b.wav").write_bytes(wav(8000))
    printed = next_of(ran.out, "once fixed" if root else " *to read them by path:")
    again = kit.run([word.replace("=DIR", "=clips") for word in printed])
    assert "1 labelled again, 0 failed again" in again.out, again.err
    assert kit.run(next_of(ran.out, "report")).code == 0
