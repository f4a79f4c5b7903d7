"""Rows, labels and JSON as they are printed: whatever the width, and whatever an output may give."""

import json
import re

import pyarrow as pa
import pytest
from rich.cells import cell_len

import raysp
from tests import kit
from tests.commands import write_recipe
from tests.corpora import digits_table, labelled, write_shard

SPANS = [
    ({"word": "7", "start": None, "end": None, "score": None}, "7 -"),
    ({"word": None, "start": 0.5, "end": None}, "- 0.50-?"),
    ({"label": "a", "start": None, "end": 1.0}, "a ?-1.00"),
    ({"word": "b", "start": 0.5, "end": 1.25, "score": 1.0}, "b 0.50-1.25"),
]
"""Spans, and how they are shown."""
ADDING = """
import math
import raysp
SPANS = {spans!r}
NUMBERS = range(len(SPANS))

def values(rows):
    spans = {{f"s{{n}}": [[SPANS[n]]] * rows.num_rows for n in NUMBERS}}
    return {{**spans, "numbers": [[math.inf, math.nan, None, 1.5]] * rows.num_rows, "nothing": [None] * rows.num_rows}}

def kind(span):
    fields = (f"{{name}}: {{'string' if name in ('word', 'label') else 'double'}}" for name in span)
    return f"list<struct<{{', '.join(fields)}}>>"

KINDS = {{**{{f"s{{n}}": kind(SPANS[n]) for n in NUMBERS}}, "numbers": "list<double>", "nothing": "list<string>"}}
pipeline = raysp.Pipeline(
    raysp.Shards({source!r}),
    steps=[
        raysp.Decode(),
        raysp.Map("recipe_for_the_cli:values", adds=KINDS, reads=["id"]),
        raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()]),
    ],
    sink=raysp.Parquet({sink!r}, keep=["string", "list"]),
)
"""
TEXTS = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"a"], pa.binary()).buffers())
"""Texts of which the first is not UTF-8."""


@pytest.mark.slow
def test_spans_without_times_numbers_that_are_not_finite_and_invalid_texts_are_shown_and_are_json(tmp_path):
    table = digits_table(2).append_column("string", TEXTS)
    table = table.append_column("list", pa.ListArray.from_arrays([0, 1, 2], TEXTS))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    line = ["run", write_recipe(tmp_path, ADDING, spans=[span for span, _ in SPANS]), "--rows", 2]
    ran = kit.run(line, COLUMNS="400")
    assert (ran.code, "cannot be shown" in ran.err) == (0, False), ran.err
    names, first, _ = (
        [cell.strip() for cell in re.split("[┃│]", row)] for row in re.findall(r"^[┃│].*$", ran.out, re.M)
    )
    shown = dict(zip(names, first, strict=True))
    assert [shown[f"s{number}"] for number in range(len(SPANS))] == [text for _, text in SPANS]
    assert "caf\ufffd" in shown["string"]
    ran = kit.run([*line, "--json"])
    found = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["table"][0]
    values = {name: found[name] for name in ("numbers", "nothing", "string", "list", "s0")}
    assert values == {
        "numbers": [None, None, None, 1.5],
        "nothing": None,
        "string": "caf\ufffd",
        "list": ["caf\ufffd"],
        "s0": [SPANS[0][0]],
    }


@pytest.mark.slow
def test_on_a_narrow_terminal_lines_fit_commands_have_one_and_rows_too_wide_a_line_for_each_field(tmp_path):
    corpus = kit.corpus(tmp_path / "in", rows=3, faults=["not_audio"])
    file = corpus.file(tmp_path / "label.py", tmp_path / "out", outputs=[raysp.Transcript(words=True)])
    texts = " ".join(f"word{number} same" for number in range(60)), " ".join(["same"] * 60)
    ids = ["a-very-long-id-of-a-recording" * number for number in (1, 2)]
    for side, name in enumerate("AB"):
        labelled(tmp_path / "diff", {"id": ids, "pred_text": [texts[side]] * 2}, name=name)
    setting = f"sink.url={tmp_path}/{'folder/' * 20}out"
    lines = [["run", str(file), "--set", setting], ["run", str(file), "--rows", "2"]]
    lines.append(["diff", f"{tmp_path}/diff/A", f"{tmp_path}/diff/B", "--column", "pred_text"])
    drawn = [kit.run(line, COLUMNS="60", FORCE_COLOR="1", TERM="xterm").out for line in lines]
    ran, tried, compared = (re.sub(r"\x1b\[[\d;]*m", "", one) for one in drawn)

    [retry] = [line for line in ran.splitlines() if line.startswith("once fixed")]
    assert retry == f"once fixed   raysp retry {file} --set {setting}"
    commands = ("once fixed", "report", "next", "labels", "First labels", "  ")
    assert max(cell_len(line) for line in ran.splitlines() if not line.startswith(commands)) <= 60
    assert ran.count("\n│") == 3

    first, second, *fields = tried.splitlines()
    assert (first, second) == ("The first 2 rows (nothing was kept)", "row 0")
    assert {line.split()[0] for line in fields} >= {"id", "seconds", "pred_text", "pred_score"}

    worst = compared.partition("Worst rows, as [-A-]{+B+}\n")[2].splitlines()
    assert 2 <= len(worst) <= 2 * (2 + 1)
    assert max(map(cell_len, worst)) <= 60
    assert "60/120" in worst[0]
