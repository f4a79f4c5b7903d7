"""Rows, labels and JSON as they are printed: whatever the width, and whatever an output may give."""

import io
import json
import math
import re

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import raysp
from raysp.cli.console import print_json
from raysp.cli.printed_runs import print_rows
from raysp.labelling.engine.display import Display
from raysp.labelling.engine.run_progress import Progress
from raysp.models import load_checkpoint
from raysp.sink.receipts import Counts
from raysp.words import folded
from tests import kit
from tests.commands import write_recipe
from tests.corpora import CHECKPOINT, digits_table, write_shard

OUTPUTS = [
    raysp.Transcript(words=True, chars=True, beams=4, nbest=2),
    raysp.Segments(),
    raysp.Signals(),
    raysp.Embedding(pooling="none", layer=(0, 1)),
]


def values_of(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Return values of an Arrow type; each of them, and each part of them, may be null."""
    if pa.types.is_struct(kind):
        values = st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    elif pa.types.is_fixed_size_list(kind):
        values = st.lists(values_of(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    elif pa.types.is_list(kind):
        values = st.lists(values_of(kind.value_type), max_size=3)
    elif pa.types.is_floating(kind):
        values = st.floats(width=16)
    elif pa.types.is_integer(kind):
        values = st.integers(-5, 5)
    else:
        assert pa.types.is_string(kind), kind
        values = st.text(max_size=4)
    return st.none() | values


@pytest.mark.lengthy
@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_labels_with_any_null_are_shown_and_are_json(output, capsys):
    # Values of a label come from models; no public name takes them to the printer.
    columns = output.schema(load_checkpoint(CHECKPOINT).summary)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.booleans())
    def shown(data: st.DataObject, is_whole: bool) -> None:
        labels = {field.name: pa.array([data.draw(values_of(field.type))], field.type) for field in columns}
        keys = {"id": ["a"], "row": [0], "status": ["ok"], "error_type": pa.nulls(1, pa.string())}
        table = pa.table({**keys, "error_message": pa.nulls(1, pa.string()), **labels})
        for one in (table, pa.concat_tables([table, table])):
            print_rows(one, "Rows", is_whole=is_whole)
        capsys.readouterr()
        print_json({"table": table.to_pylist()})
        json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    shown()


def test_numbers_that_are_not_finite_are_null_in_json(capsys):
    print_json({"rtfx": math.inf, "rows": [math.nan, (1.5, None)], "text": "\ud800"})
    assert json.loads(capsys.readouterr().out) == {"rtfx": None, "rows": [None, [1.5, None]], "text": "\ufffd"}


@pytest.mark.parametrize(("width", "parts"), [(200, 9), (80, 4), (24, 2)])
def test_the_live_line_never_wraps(width, parts):
    progress = Progress(rows_total=120_000, shards_total=400)
    samples = {"real_samples": 9, "padded_samples": 10, "busy_seconds": 1.0}
    progress.staged = Counts(rows=70_000, audio_seconds=8e5, errors={"no_audio": 1200}, **samples)
    progress._first = (progress.started - 100, 0, 0.0)
    display = Display(Console(file=io.StringIO(), force_terminal=True, width=width))
    with display:
        display.start()
        display.progress(progress)
        [line] = [text for text in display._live.renderable.text.plain.splitlines() if text]
    assert cell_len(line) + 2 <= width
    assert (line[:3], len(line.split(" · "))) == ("58%", parts)


def test_words_are_not_split_at_any_width():
    line = "name          one two  three four"
    for width in range(1, 40):
        lines = folded(line, width).splitlines()
        assert " ".join(part.strip() for part in lines) == line
        assert all(len(part) <= width or len(part.split()) == 1 or "  " in part.strip() for part in lines)
    assert folded(line, None) == line


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 140])
def test_a_run_on_a_terminal_has_lines_that_fit_and_commands_in_one(tmp_path, width):
    corpus = kit.corpus(tmp_path / "in", rows=3, faults=["not_audio"])
    file = corpus.file(tmp_path / "label.py", tmp_path / "out", outputs=[raysp.Transcript(words=True)])
    terminal = {"COLUMNS": str(width), "FORCE_COLOR": "1", "TERM": "xterm"}
    setting = f"sink.url={tmp_path}/{'folder/' * 20}out"
    ran = kit.run_apart(["run", file, "--set", setting], **terminal)
    assert ran.code == 0, ran.err
    lines = re.sub(r"\x1b\[[\d;]*m", "", ran.out).splitlines()
    [command] = [line for line in lines if line.startswith("once fixed")]
    assert command == f"once fixed   raysp retry {file} --set {setting}"
    commands = ("once fixed", "report", "next", "labels", "First labels", "  ")
    assert max(cell_len(line) for line in lines if not line.startswith(commands)) <= width
    assert len([line for line in lines if line.startswith("│")]) == 3


def test_a_wide_row_of_a_try_out_has_a_line_for_each_field(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(2))
    settings = ["--set", 'sink.keep=["text","speaker_id","sampling_rate"]']
    ran = kit.run_apart(["run", write_recipe(tmp_path), "--rows", 2, *settings], COLUMNS="40")
    assert ran.code == 0, ran.err
    first, second, *fields = ran.out.splitlines()
    assert (first, second) == ("The first 2 rows (nothing was kept)", "row 0")
    assert {line.split()[0] for line in fields} >= {"id", "text", "pred_text", "pred_score"}


TEXTS = pa.Array.from_buffers(pa.string(), 3, pa.array([b"caf\xe9", b"a", b"b"], pa.binary()).buffers())
ARRAYS = {
    "string": (TEXTS, ["caf\ufffd", "a", "b"]),
    "list": (pa.ListArray.from_arrays([0, 1, 2, 3], TEXTS), [["caf\ufffd"], ["a"], ["b"]]),
}
"""Columns with a text that is not UTF-8, and how they are shown."""


@pytest.mark.slow
def test_a_try_out_shows_rows_with_invalid_text(tmp_path):
    table = digits_table(3)
    for name, (array, _) in ARRAYS.items():
        table = table.append_column(name, array)
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    line = ["run", write_recipe(tmp_path), "--rows", 3, "--set", f"sink.keep={json.dumps([*ARRAYS])}"]
    ran = kit.run([*line, "--json"])
    assert (ran.code, "cannot be shown" in ran.err) == (0, False), ran.err
    shown = json.loads(ran.out)["table"]
    assert {name: [row[name] for row in shown] for name in ARRAYS} == {
        name: values for name, (_, values) in ARRAYS.items()
    }
    assert "caf\ufffd" in kit.run(line).out
