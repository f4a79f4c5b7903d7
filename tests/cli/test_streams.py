"""Output that cannot be written, and labels without times: what is shown never decides the exit code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kit
from tests.commands import write_recipe
from tests.corpora import write_shard
from tests.soaked import soaked

COMMAND = f"{sys.executable} -m raysp"


SPANS = [
    ({"word": "7", "start": None, "end": None, "score": None}, "7 -"),
    ({"word": None, "start": 0.5, "end": None}, "- 0.50-?"),
    ({"label": "a", "start": None, "end": 1.0}, "a ?-1.00"),
    ({"start": None, "end": None, "score": None}, "-"),
    ({"word": "b", "start": 0.5, "end": 1.25, "score": 1.0}, "b 0.50-1.25"),
]
ADDING = """
import raysp
SPANS = {spans!r}
NUMBERS = range(len(SPANS))

def spans(rows):
    one = {{f"s{{n}}": [[SPANS[n]]] * rows.num_rows for n in NUMBERS}}
    return {{**one, **{{f"c{{n}}": [[[SPANS[n]], [SPANS[n]]]] * rows.num_rows for n in NUMBERS}}}}

def kind(span):
    fields = (f"{{name}}: {{'string' if name in ('word', 'label') else 'double'}}" for name in span)
    return f"list<struct<{{', '.join(fields)}}>>"

kinds = {{f"s{{n}}": kind(SPANS[n]) for n in NUMBERS}}
kinds |= {{f"c{{n}}": f"list<{{kind(SPANS[n])}}>" for n in NUMBERS}}
pipeline = raysp.Pipeline(
    raysp.Shards({source!r}),
    steps=[
        raysp.Decode(),
        raysp.Map("recipe_for_the_cli:spans", adds=kinds, reads=["id"]),
        raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()]),
    ],
    sink=raysp.Parquet({sink!r}),
)
"""


def test_a_span_without_times_is_shown(tmp_path: Path):
    write_shard(tmp_path / "in" / "a.parquet", 1)
    recipe = write_recipe(tmp_path, ADDING, spans=[span for span, _ in SPANS])
    ran = kit.run(["run", recipe, "--rows", 1], COLUMNS="300")
    assert ran.code == 0, ran.err
    names, values = (
        [cell.strip() for cell in re.split("[┃│]", line)] for line in re.findall(r"^[┃│].*$", ran.out, re.M)
    )
    found = dict(zip(names, values, strict=True))
    for number, (_, shown) in enumerate(SPANS):
        assert (found[f"s{number}"], found[f"c{number}"]) == (shown, f"{shown}; {shown}")


@pytest.mark.drivers
@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        (">&- 2>&- <&-", 0),
        ("--json >/dev/full", 1),
        *soaked([(">/dev/full", 0), ("2>&-", 0), ("2>/dev/full", 0)]),  # the gate has `models >/dev/full`
    ],
)
def test_a_run_labels_its_rows_whatever_its_streams_are(tmp_path: Path, redirection: str, code: int):
    (tmp_path / "in").mkdir()
    write_shard(tmp_path / "in" / "a.parquet", 2)
    recipe = write_recipe(tmp_path)
    ran = subprocess.run(f"{COMMAND} run {recipe} {redirection}", shell=True, check=False, capture_output=True)
    assert ran.returncode == code
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == ["a.parquet"]
    assert b"Exception" not in ran.stderr


@pytest.mark.drivers
@pytest.mark.parametrize(
    ("redirection", "code"),
    [("models --json >&-", 1), ("models >/dev/full", 0), *soaked([("models >&-", 0)])],  # a run closes all streams
)
def test_json_that_cannot_be_written_is_an_error(redirection: str, code: int):
    ran = subprocess.run(f"{COMMAND} {redirection}", shell=True, check=False, capture_output=True, text=True)
    assert ran.returncode == code
    assert ("stdout: the JSON object" in ran.stderr) == bool(code)
