"""The log of a run, read as a log collector reads it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import raysp
from tests import kit


def events(sink: Path) -> list[dict]:
    files = sorted((sink / ".raysp" / "log").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def names(sink: Path) -> list[str]:
    return [one["kind"] for one in events(sink)]


@pytest.mark.slow
def test_a_run_leaves_its_events_where_status_finds_them(tmp_path):
    pipeline = kit.corpus(tmp_path / "in", 3, faults={3: "not_audio"}, shards=2).pipeline(sink := tmp_path / "out")
    result = raysp.run(pipeline, engine="here", progress=False)
    found = {one["kind"]: one for one in events(sink)}
    assert names(sink)[:2] == ["planned", "started"]
    assert sorted(names(sink)[2:-1]) == ["piece", "piece", "row_blamed", "shard", "shard"]
    assert names(sink)[-1] == "finished"
    assert len({one["run"] for one in events(sink) if "run" in one}) == 1
    assert [one["time"] for one in events(sink)] == sorted(one["time"] for one in events(sink))
    assert (found["planned"]["rows"], found["planned"]["pieces"], found["planned"]["shards_committed"]) == (4, 2, 0)
    assert found["started"]["versions"]["raysp"] == raysp.__version__
    assert found["started"]["settings"]["device"] == "cpu"
    assert found["started"]["resources"]["cpus"] >= 1
    blamed = found["row_blamed"]
    assert (blamed["shard"], blamed["row"], blamed["error_type"]) == ("part-1.parquet", 1, "unsupported_format")
    finished = found["finished"]
    assert (finished["rows"], finished["errors"]) == (result.rows, result.errors)
    assert finished["audio_seconds"] == pytest.approx(result.audio_seconds, abs=1e-3)
    assert finished["shards_committed"] == 2

    place = Path(raysp.status(str(sink)).event_log)
    assert sorted(place.parent.glob(place.name)) == sorted((sink / ".raysp" / "log").iterdir())
    raysp.run(pipeline, engine="here", progress=False)
    assert names(sink)[-3:] == ["planned", "started", "finished"]
    again = Path(raysp.status(str(sink)).event_log)
    assert len(list(again.parent.glob(again.name))) == 1
    assert raysp.gc(str(sink)).orphans == ()
    assert raysp.verify(str(sink), trust=True).differences == ()
    assert len({one["run"] for one in events(sink) if "run" in one}) == 2


FAILING = """
import sys
import raysp

def fail(progress):
    raise raysp.RunError(f"denied for {sys.argv[2]}, another-secret, {'y' * 100_000}")

raysp.run(pipeline, engine="here", on_progress=fail, progress=False)
"""


@pytest.mark.slow
def test_no_secret_is_in_the_log(tmp_path):
    secret = "q/7+'\"\\ü" + "x" * 20
    quoted = json.dumps(secret)[1:-1]
    options = {"storage_options": {"secret": raysp.Env("CORPUS_SECRET")}}
    file = kit.corpus(tmp_path / "in", 1).file(tmp_path / "label.py", tmp_path / "out", source=options)
    file.write_text(file.read_text() + FAILING)
    command = [sys.executable, str(file), f"--odd={secret}", secret, secret.upper()]
    secrets = {"CORPUS_SECRET": secret, "SOME_TOKEN": "another-secret"}
    ran = subprocess.run(command, env={**os.environ, **secrets}, capture_output=True, text=True, check=False)
    assert "denied for" in ran.stderr
    found = events(tmp_path / "out")
    text = "".join(str(value) for one in found for value in one.values())
    assert not [one for one in (secret, quoted, "another-secret", "x" * 20) if one in text]
    assert found[1]["command"].count("***") == 2
    assert found[-1]["reason"].startswith("denied for ***, ***, yyy")
    assert len(found[-1]["reason"]) == 1_000


def test_the_document_for_operators_has_every_event():
    document = (Path(__file__).parents[4] / "docs/reference/columns.md").read_text()
    table = document.split("| kind | fields |")[1].split("\n\n")[0]
    listed = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    package = Path(raysp.__file__).parent
    files = [*(package / "labelling" / "engine").glob("*.py"), package / "sink" / "run_log.py"]
    written = {name for file in files for name in re.findall(r"(?:event|_line)\(\s*\"(\w+)\"", file.read_text())}
    assert listed == written | {"piece", "shard", "failure", "failed"}
