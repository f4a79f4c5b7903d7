"""Rows of labels as they are printed: a line each that fits the terminal, or a field a line."""

import pyarrow as pa
import pytest
from rich.cells import cell_len
from rich.console import Console

from raysp.cli.console import out
from raysp.cli.printed_runs import print_rows

WORDS = pa.list_(pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())]))
TEXT = "the quick brown fox jumps over the lazy dog and so on until the line is much longer than any terminal is wide"


@pytest.fixture(params=[60, 140])
def width(request, monkeypatch) -> int:
    monkeypatch.setattr(out, "_width", request.param)
    return request.param


def labels(num_rows: int = 5, *, kept: int = 0, text: str = TEXT) -> pa.Table:
    columns = {
        "id": pa.array([f"clip_{row}" for row in range(num_rows)]),
        **{f"kept_{number}": pa.array(["some words"] * num_rows) for number in range(kept)},
        "row": pa.array(range(num_rows), pa.int64()),
        "seconds": pa.array([1.23456] * num_rows),
        "status": ["ok"] * num_rows,
        "error_type": pa.nulls(num_rows, pa.string()),
        "error_message": pa.nulls(num_rows, pa.string()),
        "pred_text": [text] * num_rows,
        "pred_score": pa.array([-0.0123456] * num_rows, pa.float32()),
        "pred_words": pa.array([[{"word": "the", "start": 0.1, "end": 0.25}] * 40] * num_rows, WORDS),
        "embedding": pa.array([[0.123456] * 256] * num_rows, pa.list_(pa.float32())),
    }
    return pa.table(columns)


def printed(capsys, table: pa.Table, **options: object) -> list[str]:
    capsys.readouterr()
    print_rows(table, "Some rows", **options)
    return capsys.readouterr().out.splitlines()


def test_each_row_has_one_line_that_fits(capsys, width):
    lines = printed(capsys, labels())
    assert max(map(cell_len, lines)) <= width
    rows = [line for line in lines if "clip_" in line]
    assert len(rows) == 5
    assert all("the qu" in row and "…" in row and "1.235" in row and "-0.012" in row for row in rows)
    assert len(lines) <= 5 + 6


def test_truncated_headers_of_columns_differ(capsys, width):
    columns = ["aligned_score", "aligned_skipped", "aligned_words", "aligned_text"]
    table = labels().select(["id", "row", "status", "error_type", "error_message", "pred_text"])
    for name in columns:
        table = table.append_column(name, pa.array([TEXT] * 5))
    lines = printed(capsys, table)
    assert max(map(cell_len, lines)) <= max(width, 2 + len("aligned_skipped") + 2 + len(TEXT))
    if width == 60:
        assert f"  aligned_score    {TEXT}" in lines
        return
    headers = [header.strip() for header in lines[2].split("┃")[1:-1]]
    assert len({*headers}) == len(headers) == 6
    assert any(header.endswith("…") for header in headers) == (width == 80)


def test_the_first_row_is_printed_by_its_fields_if_the_columns_have_no_room(capsys, width):
    lines = printed(capsys, labels(kept=30))
    assert lines[:4] == ["Some rows", "row 0", "  id          clip_0", "  kept_0      some words"]
    assert f"  pred_text   {TEXT}" in lines
    assert len(lines) == 2 + 1 + 30 + 5


def test_a_table_that_fits_is_printed_unchanged(capsys, width):
    lines = printed(
        capsys, labels(text="ONE").select(["id", "row", "status", "error_type", "error_message", "pred_text"])
    )
    assert lines[2].split() == ["┃", "id", "┃", "pred_text", "┃"]
    assert lines[4].split() == ["│", "clip_0", "│", "ONE", "│"]


def test_a_wide_row_of_a_try_out_has_a_line_for_each_field(capsys, width):
    lines = printed(capsys, labels(2), is_whole=True)
    assert lines[:3] == ["Some rows", "row 0", "  id          clip_0"]
    assert f"  pred_text   {TEXT}" in lines
    assert len(lines) == 1 + 2 * 7
    assert not [line for line in lines if "error" in line]
    narrow = labels(2, text="ONE").drop_columns(["pred_words", "embedding"])
    assert "┃" in printed(capsys, narrow, is_whole=True)[2]


def test_an_error_of_a_try_out_is_reported_with_its_message(capsys, width):
    table = labels(1)
    table = table.set_column(5, "error_message", pa.array(["x" * 200]))
    table = table.set_column(4, "error_type", pa.array(["corrupt_audio"])).set_column(3, "status", pa.array(["error"]))
    lines = printed(capsys, table, is_whole=True)
    assert f"  error_message  {'x' * 200}" in lines
    assert "  error_type     corrupt_audio" in lines


def test_long_fields_are_folded_between_words_on_a_terminal(monkeypatch, capsys):
    terminal = Console(soft_wrap=True, highlight=False, force_terminal=True, width=60, color_system=None)
    monkeypatch.setattr("raysp.cli.printed_runs.out", terminal)
    lines = printed(capsys, labels(1, text="one two three " * 10).drop_columns(["embedding"]), is_whole=True)
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()).count("one two three one two three") > 1
