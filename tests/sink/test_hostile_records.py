"""Records of a sink that no run writes, with right digests: each is named in a line, and none is believed."""

import json
import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.sink.foreign_sinks import edit_shards, rewrite

GIB = 1 << 30
VERBS = cycle(
    ["status OUT", "verify OUT --trust", "report OUT", "gc OUT", "retry OUT --trust", "run LABEL", "plan LABEL"]
)
"""Each record is read by the next ones."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[Path, kit.Corpus]:
    """A sink of which one of two shards is staged, and its corpus."""
    folder = tmp_path_factory.mktemp("stopped")
    corpus = kit.corpus(folder / "in", rows=5, faults=["not_audio"], shards=2)
    kit.interrupted(corpus.pipeline(folder / "out"))
    return folder / "out", corpus


@pytest.fixture
def sink(stopped, tmp_path) -> Path:
    """A copy of the sink, with the file of its pipeline beside it."""
    out, corpus = stopped
    corpus.file(tmp_path / "label.py", tmp_path / "out")
    return Path(shutil.copytree(out, tmp_path / "out"))


def check_named(sink: Path, file: str, message: str = "", verbs: int = 2) -> None:
    """Check that verbs end with a short line that names a file."""
    for _ in range(verbs):
        line = next(VERBS).replace("OUT", str(sink)).replace("LABEL", str(sink.parent / "label.py"))
        ran = kit.run(line, RAYSP_BEAT_SECONDS="0.01")
        assert ran.code, (line, ran)
        assert file in ran.err, (line, ran)
        assert message in ran.err, (line, ran)
        assert "bug in raysp" not in ran.err, (line, ran)
        assert len(ran.err) < 2000, line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../a.parquet"}, "'..' cannot be part of a path"),
        ({"url": None}, "a value is missing"),
        ({"pieces": [{"first": 2, "end": 3}, {"first": 0, "end": 2}]}, "do not cover its 3 rows"),
        ({"num_rows": 2**60, "pieces": [{"first": 0, "end": 2**60}]}, "1152921504606846976 rows"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"input_id": "../../x"}, "has the input id '../../x', expected a hash"),
    ],
)
def test_a_plan(sink, values, message):
    edit_shards(sink, lambda shard: shard.update(values))
    check_named(sink, "00000.arrow", message)


def test_a_plan_with_a_type_whose_code_ray_would_run(sink):
    field = pa.field("name", pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    rewrite(sink / ".raysp/plan/00000.arrow", lambda _: pa.table({"name": [b"x"]}, schema=pa.schema([field])))
    check_named(sink, "00000.arrow", "extension type of Ray")


def labelled_over(sink: Path, change: Callable[[pa.Table], pa.Table]) -> kit.Ran:
    """Run the pipeline over staged rows that were changed."""
    [staged] = (path for path in (sink / ".raysp" / "stage").rglob("*") if path.is_file())
    rewrite(staged, change)
    return kit.run(["run", sink.parent / "label.py"])


@pytest.mark.parametrize("places", [[1, 2], [0, 0, 2]], ids=["fewer rows", "a row twice"])
def test_other_staged_rows_are_labelled_again(sink, places):
    ran = labelled_over(sink, lambda rows: rows.take(places))
    assert (ran.code, kit.run(["run", sink.parent / "label.py"]).code) in ((0, 0), (3, 0)), ran
    assert [(row["row"], row["status"] == "error") for row in kit.rows(sink)] == [
        *((0, False), (1, False), (2, True)),
        *((0, False), (1, False), (2, False)),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop_columns(["seconds"]), "column 'seconds' is missing, expected double"),
        (lambda rows: rows.set_column(2, "status", pa.array(["fine"] * 3)), "found the status 'fine', expected ok"),
    ],
)
def test_staged_values_that_no_run_writes_are_not_committed_and_labelled_again(sink, change, message):
    ran = labelled_over(sink, change)
    assert (ran.code, message in ran.err, "bug in raysp" in ran.err) == (3, True, False), ran
    assert [*kit.label_shards(sink)] == ["part-1.parquet"]
    assert kit.run(["run", sink.parent / "label.py"]).code == 0
    assert {row["status"] for row in kit.rows(sink)} == {"ok", "error"}


def change_of(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        *places, last = path.split(".")
        for place in places:
            record = record[int(place)] if place.isdigit() else record[place]
        record[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 99, "schema version 99, this version of raysp reads 1; upgrade raysp"),
        ("fingerprint", 3, "fingerprint: found 3, expected a valid string"),
        ("runs.0.run_id", None, "runs: 0: run_id: found None, expected a valid string"),
        ("settings", 10**400, "settings: found an integer of 1,329 bits"),
        ("root", float("nan"), "root: found nan"),
    ],
)
def test_values_of_the_record_of_runs(sink, path, value, message):
    file = sink / ".raysp" / "run.json"
    record = json.loads(file.read_text())
    change_of(path, value)(record)
    file.write_text(json.dumps(record))
    check_named(sink, "run.json", message)


@pytest.mark.parametrize("file", ["run.json", "absent.json", "forgotten.json", "recipe.json"])
def test_what_is_no_record(sink, file):
    place = sink / ".raysp" / file
    if file == "recipe.json":  # of a training
        shutil.rmtree(sink)
        place.parent.mkdir(parents=True)
    for data in (b"[" * 100_000, b'{"' + b"x" * 1_000_000 + b'": 1}', b"{", b"[]", b'"text"', b"7" * 10_000, b"\xff"):
        place.write_bytes(data)
        with pytest.raises(raysp.RayspError, match=file) as error:
            raysp.status(str(sink))
        assert len(str(error.value)) < 600
    with place.open("wb") as made:
        made.truncate(GIB + 1)  # a file with a hole takes no space
    with pytest.raises(raysp.RayspError, match=r"has 1,073,741,825 bytes; expected at most 1,073,741,824 in a file"):
        raysp.status(str(sink))
