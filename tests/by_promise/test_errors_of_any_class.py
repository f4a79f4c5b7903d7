"""Errors of a user's code of any class, also of raysp and no `Exception`: rows fail alone, with the line."""

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import CHECKPOINT, digits_table

ROWS = digits_table(3)
RULES = """
import pyarrow as pa
import pyarrow.parquet as pq

import raysp
from raysp.errors import ShardError, StoreError
from raysp.ops.late_steps import CARRIED
from raysp.ops.step_ops import ColumnOp, RowOp
from raysp.specs import spec
from raysp.specs.steps import Step


REFUSED = pq.read_table("in/a.parquet")["id"].to_pylist()[1]


def check(rows):
    if REFUSED in rows["id"].to_pylist():
        raise {error}("of the user")


def level(rows):
    check(rows)
    return {{"level": [1] * rows.num_rows}}


def wanted(rows):
    check(rows)
    return [True] * rows.num_rows


class Own(Step):
    @property
    def reads(self):
        return ("id",)


@spec
class Refusing(Own):
    name: str = "refusing"

    def op(self, functions):
        return RefusingOp()


class RefusingOp(RowOp):
    def __call__(self, rows):
        check(rows)
        return [None] * rows.num_rows


@spec
class Timed(Own):
    name: str = "timed"

    @property
    def reads_seconds(self):
        return True

    def op(self, functions):
        return TimedOp()


class TimedOp(RowOp):
    def __call__(self, rows):
        return [None] * rows.num_rows

    def judge(self, seconds):
        if seconds > 0.33:
            raise {error}("of the user")


@spec
class Level(Own):
    columns: tuple = ("level",)

    def schema(self):
        return pa.schema([("level", pa.int64())])

    def op(self, functions):
        return LevelOp()


class LevelOp(ColumnOp):
    name, reads, schema = "Level", ("id",), pa.schema([("level", pa.int64())])

    def __call__(self, rows):
        return level(rows)


class ShoutedOp:
    layers = ()
    schema = pa.schema([("shouted", pa.string())])

    def __init__(self, staged):
        self.staged = pa.schema([(name, pa.string()) for name in staged])

    def select(self, forward):
        return {{}}

    def columns(self, arrays, rows):
        if not self.staged:
            raise {error}("of the user")
        return [["a"] * len(rows.parts)] * 2

    def empty(self):
        return (None,)

    def join(self, windows):
        check({{"id": windows.column(CARRIED + "id")}})
        return ("a",)


@spec
class Shouted(raysp.Embedding):
    name: str = "shouted"
    staged: tuple = ()

    @property
    def reads(self):
        return ("id",)

    def op(self, checkpoint, loaded=None):
        return ShoutedOp(self.staged)

    def schema(self, checkpoint):
        return ShoutedOp.schema
"""
OUTPUTS = {
    "an output": ((), {}),
    "an output of several windows": (("part",), {"window_seconds": 0.3, "overlap_seconds": 0.1}),
    "an output of speech": (("part",), {"windows": "speech"}),
}
PLACES = (
    *("Map", "Keep", "Keep behind Label", "a filter", "a filter by seconds", "a step with columns"),
    *OUTPUTS,
)
ERRORS_OF_RAYSP = ("Map", "a filter", "an output of several windows")
"""Places that are tried with an error of raysp too, which would fail a shard if raysp raised it."""


def steps(place: str) -> list[object]:
    """Return steps of which the one at this place fails for the second row; the output for all rows."""
    import rules

    keep = raysp.Keep(where="rules:wanted")
    before = {
        "Map": raysp.Map(rules.level, adds={"level": "int64"}, reads=["id"]),
        "Keep": keep,
        "a filter": rules.Refusing(),
        "a filter by seconds": rules.Timed(),
        "a step with columns": rules.Level(),
    }
    output, fields = OUTPUTS.get(place, (None, {}))
    outputs = [raysp.Transcript(), *([] if output is None else [rules.Shouted(staged=output)])]
    behind = [keep] if place == "Keep behind Label" else []
    first = [before[place]] if place in before else []
    return [raysp.Decode(), *first, raysp.Label(str(CHECKPOINT), outputs=outputs, **fields), *behind]


@pytest.fixture
def raising(tmp_path, monkeypatch):
    """A function that returns a pipeline whose step at a place raises an error."""
    (tmp_path / "in").mkdir()
    pq.write_table(ROWS, tmp_path / "in" / "a.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def pipeline(error: str, place: str) -> raysp.Pipeline:
        (tmp_path / "rules.py").write_text(RULES.format(error=error))
        return raysp.Pipeline(
            raysp.Shards("in/*.parquet"), steps=steps(place), sink=raysp.Parquet("out"), max_error_rate=1.0
        )

    return pipeline


@pytest.mark.parametrize(
    ("error", "place"),
    [*(("SystemExit", place) for place in PLACES), *(("ShardError", place) for place in ERRORS_OF_RAYSP)],
)
def test_it_fails_the_row_for_which_it_is_raised(raising, error, place):
    pipeline = raising(error, place)
    result = raysp.run(pipeline, engine="here", progress=False)
    assert not result.shards_failed
    rows = pq.read_table("out/a.parquet").to_pylist()
    failed = [0, 1, 2] if place == "an output" else [1]
    assert [number for number, row in enumerate(rows) if row["error_type"] == "step_failed"] == failed
    lines = [line for line, code in enumerate(RULES.splitlines(), 1) if "raise {error}" in code]
    reasons = [f"rules.py:{line}: {error}: of the user" for line in lines]
    assert all(any(reason in rows[number]["error_message"] for reason in reasons) for number in failed)
    assert [row["status"] for row in rows].count("ok") == 3 - len(failed)
    if error == "ShardError" or place == "Keep behind Label":
        with raysp.Labeller(pipeline.steps) as labeller:
            labelled = labeller(ROWS).to_pylist()
        assert [row["error_message"] for row in labelled] == [row["error_message"] for row in rows]


@pytest.mark.parametrize("place", ["Map", "Keep behind Label", "an output of several windows"])
def test_an_interrupt_stays_one(raising, place):
    with pytest.raises(KeyboardInterrupt):
        raysp.run(raising("KeyboardInterrupt", place), engine="here", progress=False)
