"""Printed form of a run: its plan, its summary, and rows of labels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from raysp.cli.arguments import command_line
from raysp.cli.console import (
    FEW_LINES,
    err,
    out,
    print_command,
    print_each,
    print_fact,
    print_folded,
    print_some,
    say,
)
from raysp.labelling.engine.display import Display
from raysp.words import count, printable

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.labelling.engine.run_result import RunResult
    from raysp.specs.pipeline import Pipeline
    from raysp.work import PlanPart

FIRST_ROWS = 5
EXAMPLE_CHARACTERS = 200
LEAST_WIDTH = 6
"""Least width of a truncated column; if there is less room, the first row is printed one field per line."""
FIELD_CHARACTERS = 400
"""Longest value on a separate line."""
MOST_CHARACTERS = 120
SHOWN_NUMBERS = 3
LEAST = 5e-4
"""Smaller numbers, such as scores of certain texts, would be 0 with three decimals."""


def first_of(urls: Sequence[str]) -> str:
    """Return the first url of a source and the number of further urls."""
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"


def show_indexed(display: Display, done: int, num_shards: int) -> None:
    """Show the number of indexed shards; called before each further shard, and at the end."""
    show_done(display, f"indexed {done:,} of {count(num_shards, 'shard')}")


def show_exported(display: Display, done: int, num_shards: int) -> None:
    """Show the number of exported label shards; called after each."""
    show_done(display, f"{done:,} of {count(num_shards, 'label shard')}")


def show_done(display: Display, line: str) -> None:
    """Show how much of some work is done, from now on."""
    display.show(lambda: line)
    display.start()


def print_part(part: "PlanPart") -> None:
    """Print a part of a plan, with its sentences on stderr."""
    print_each(part.facts)
    print_failures(part.failures)
    for message in part.messages:
        say(message)


def print_failures(failures: Mapping[str, str]) -> None:
    """Print uncommitted shards, each with its reason."""
    lines = [f"raysp: not committed: {name}: {reason}" for name, reason in failures.items()]
    print_some(err, lines, "shard", FEW_LINES)


def print_result(pipeline: "Pipeline", result: "RunResult", target: str, settings: list[str] | None) -> None:
    """Print some rows of a run, its summary, and the commands to go on with.

    Args:
        pipeline: the pipeline with its settings.
        result: result of the run.
        target: file of the pipeline, as given.
        settings: changes, as `PATH=VALUE`.
    """
    # A folder does not say its storage options.
    sink = (target, settings) if pipeline.sink.storage_options else (pipeline.sink.url, None)
    print_labels(pipeline, result, command_line("retry", target, settings))
    if result.shards_committed:
        print_command("report", command_line("report", *sink))
    print_command("next", command_line("status", *sink))
    print_nothing_labelled(result)


def print_labels(pipeline: "Pipeline", result: "RunResult", retry: str, *, has_file: bool = True) -> None:
    """Print some rows of a run and its summary.

    Args:
        pipeline: the pipeline with its settings.
        result: result of the run.
        retry: command that labels error rows again.
        has_file: whether a file defines the pipeline, so that the command takes settings.
    """
    from raysp.labelling.finished.first_rows import first_rows

    print_failures(result.shards_failed)
    if result.first_shards:
        table = first_rows(result.sink, FIRST_ROWS, pipeline.sink.storage_options, names=result.first_shards)
        print_rows(table, f"First labels in {result.sink}")
    elif result.shards_committed > result.shards_before:
        left_out = ", and the label shards hold no others (rows='ok')" if pipeline.sink.rows == "ok" else ""
        print_fact("rows", f"no row of this run is ok{left_out}")
    print_fact("labels", f"{result.sink}: {result.committed}")
    print_named(result.facts, "this run", "model")
    print_unlabelled(result)
    if result.errors:
        if has_file and "path_not_allowed" in result.errors and pipeline.source.audio_root is None:
            print_command("", f"to read them by path: {retry} --set source.audio_root=DIR")
        elif not result.nothing_labelled:
            print_command("once fixed", retry)
    elif result.nothing_labelled and not result.rows:
        print_command("once fixed", retry)
    print_named(result.facts, "source", "word errors")
    if result.shards_failed:
        print_fact("again", "the same command retries the failed shards")


def print_try_out(result: "RunResult", table: "pa.Table", next_command: str) -> None:
    """Print the rows of a try-out, and the command that labels all rows."""
    title = f"The first {count(table.num_rows, 'row')} (nothing was kept)"
    is_table = table.num_rows > 0 and print_rows(table, title, is_whole=True)
    print_failures(result.shards_failed)
    if not result.nothing_labelled:
        print_unlabelled(result, with_examples=is_table)
    print_named(result.facts, "source")
    if result.nothing_labelled:
        print_nothing_labelled(result)
    elif table.num_rows:
        print_command("next", next_command)


def print_unlabelled(result: "RunResult", *, with_examples: bool = True) -> None:
    """Print the numbers of skipped rows and of error rows, with some examples of the latter."""
    print_named(result.facts, "skipped rows", "kept", "error rows")
    if with_examples:
        print_examples(result)


def print_nothing_labelled(result: "RunResult") -> None:
    """If no row was labelled, print the reason and a remedy."""
    if result.nothing_labelled:
        say(result.nothing_labelled)


def print_examples(result: "RunResult") -> None:
    """Print example errors, each truncated to `EXAMPLE_CHARACTERS`."""
    for example in result.error_examples:
        shown = example if len(example) <= EXAMPLE_CHARACTERS else f"{example[: EXAMPLE_CHARACTERS - 1]}…"
        print_fact("", shown)


def print_named(facts: Mapping[str, str], *names: str) -> None:
    """Print the named facts that a result has."""
    print_each((name, facts[name]) for name in names if facts.get(name))


def print_rows(table: "pa.Table", title: str, *, is_whole: bool = False) -> bool:
    """Print rows as a table, without the columns of errors if no row has one, and without their messages.

    Args:
        table: rows of label shards.
        title: line printed above them.
        is_whole: if the table is too wide, print one field per line instead of truncating values.

    Returns:
        Whether the rows were printed as a table.
    """
    rows = [{name: printable(cell(value)) for name, value in row.items()} for row in table.to_pylist()]
    names = [name for name in table.column_names if name not in ("row", "error_message")]
    if all(row["error_type"] == "-" for row in rows):
        names = [name for name in names if name not in ("status", "error_type")]
    out.print(printable(title), style="bold", markup=False)
    widths = {name: max([cell_len(printable(name)), *(cell_len(row[name]) for row in rows)]) for name in names}
    least = {name: min(width, max(LEAST_WIDTH, _distinct(name, names))) for name, width in widths.items()}
    is_crowded = _width(least) > out.width
    if is_crowded or (is_whole and _width(widths) > out.width):
        _print_fields(table if is_whole else table.slice(0, 1), [*names, "error_message"])
        return False
    while _width(widths) > out.width:
        widths[max((name for name in names if widths[name] > least[name]), key=widths.__getitem__)] -= 1
    drawn = Table()
    for name in names:
        drawn.add_column(_line(printable(name)), width=widths[name])
    for row in rows:
        drawn.add_row(*(_line(row[name]) for name in names))
    out.print(drawn, soft_wrap=False)
    return True


def _line(text: str) -> Text:
    """Return a cell that is truncated, not wrapped."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _distinct(name: str, names: Sequence[str]) -> int:
    """Return the width at which the truncated name of a column is not the name of another one."""
    starts = (name[:size] for size in range(1, len(name)))
    start = next((start for start in starts if sum(other.startswith(start) for other in names) == 1), name)
    return cell_len(printable(start)) + 1  # the ellipsis


def _width(widths: Mapping[str, int]) -> int:
    """Return the width of a table: each column adds two spaces and a border."""
    return sum(width + 3 for width in widths.values()) + 1


def _print_fields(table: "pa.Table", names: Sequence[str]) -> None:
    """Print one field per line, without null fields."""
    names = [name for name in names if table.column(name).null_count < table.num_rows]
    width = max(cell_len(printable(name)) for name in names)
    for number, row in enumerate(table.to_pylist()):
        out.print(f"row {row.get('row', number)}", style="bold")
        for name in names:
            if row[name] is not None:
                value = printable(cell(row[name], FIELD_CHARACTERS))
                print_folded(out, f"  {printable(name):{width}}  {value}", width + 4)


def cell(value: object, most: int = MOST_CHARACTERS) -> str:
    """Return a value as text of at most `most` characters.

    Vectors show their first numbers and their count, spans their times, other structs their fields.
    """
    text = _text(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1g}" if 0 < abs(value) < LEAST else f"{value:.3f}"
    if isinstance(value, Mapping):
        return _span(value)
    if not isinstance(value, list):
        return str(value)
    return _listed(value)


def _listed(values: Sequence[object]) -> str:
    if any(isinstance(value, list) and value and isinstance(value[0], Mapping) for value in values):
        return "; ".join(map(_text, values))  # spans of each channel
    if values and all(isinstance(value, list) for value in values):
        return f"{len(values)} x {_numbers(values[0])}"  # type: ignore[arg-type]
    if len(values) > SHOWN_NUMBERS and all(isinstance(value, float) for value in values):
        return _numbers(values)
    return ", ".join(map(_text, values))


def _numbers(values: Sequence[object]) -> str:
    return f"{' '.join(map(_text, values[:SHOWN_NUMBERS]))} … ({len(values)} numbers)"


def _span(value: Mapping[str, object]) -> str:
    """Return a word, a character or a segment with its times: `ONE 0.12-0.48`."""
    if not {"start", "end"} <= value.keys():
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items() if part is not None)
    name = next((_text(value[key]) for key in ("word", "char", "label") if key in value), "")
    return f"{name} {_times(value['start'], value['end'])}".strip()


def _times(start: object, end: object) -> str:
    """Return the times of a span; `-` for a word without a token in the vocabulary."""
    if start is None and end is None:
        return _text(None)
    return "-".join("?" if seconds is None else f"{seconds:.2f}" for seconds in (start, end))
