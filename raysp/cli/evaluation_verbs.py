"""The verbs that evaluate a checkpoint, and that compare and merge labellings: evaluate, diff, merge."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text
from typer import Argument, Option

from raysp.cli.arguments import (
    EngineOptions,
    MetricOptions,
    Normalise,
    Settings,
    SinkOptions,
    StorageOptions,
    Trust,
    parse_storage_options,
)
from raysp.cli.console import (
    FEW_LINES,
    PLACEHOLDERS,
    announce,
    err,
    out,
    print_each,
    print_fact,
    print_rest,
    print_some,
    say,
    show,
)
from raysp.cli.printed_runs import first_of, print_examples, print_failures, print_nothing_labelled
from raysp.cli.stop_signals import shown_on, stoppable_display
from raysp.errors import SpecError
from raysp.words import count, printable

if TYPE_CHECKING:
    from raysp.evaluation.diff.diff_result import ColumnDifference, LabelDiff
    from raysp.evaluation.evaluate.evaluation_result import EvaluationResult
    from raysp.evaluation.limits import Limit
    from raysp.evaluation.scores import WorstRow
    from raysp.pages.page_tables import Table
    from raysp.specs.pipeline import Parquet

MOST_GROUPS = 10
"""Rows of a table of groups."""
CONTEXT_WORDS = 3
"""Equal words shown before and after a difference."""
LINES_OF_A_ROW = 2
"""Lines of a worst row on a terminal."""


def evaluate(
    checkpoint: Annotated[str, Argument(metavar="CHECKPOINT", help="A model folder, its url, or a hub id.")],
    shards: Annotated[list[str], Argument(metavar="SHARDS...", help="Files, folders, globs or urls.")],
    text: Annotated[str | None, Option(metavar="COLUMN", help="Reference texts: WER and CER.")] = None,
    label: Annotated[str | None, Option(metavar="COLUMN", help="Right classes: accuracy, F1, EER.")] = None,
    speaker: Annotated[str | None, Option(metavar="COLUMN", help="Speakers: EER of pairs of rows.")] = None,
    *,
    metrics: MetricOptions,
    rows: Annotated[int | None, Option(min=1, metavar="N", help="Evaluate only the first N rows.")] = None,
    worst: Annotated[int | None, Option(min=0, metavar="N", help="Number of worst rows to show (10).")] = None,
    sink: Annotated[str | None, Option(metavar="OUT", help="Keep the labels there; not those of --rows.")] = None,
    settings: Settings = None,
    on: EngineOptions,
) -> None:
    """Measure the error rates of a checkpoint on shards.

    Labels the shards and compares the labels with a column of reference texts, of
    classes or of speakers.

    Examples:
      raysp evaluate models/ctc 'dev/*.parquet' --text sentence --by speaker_id
      raysp evaluate models/xvector dev --speaker name --fail-above eer=0.05
    """
    import raysp

    measured = metrics.named
    announce(f"looking at {first_of(shards)} ...")
    with stoppable_display(is_kept=sink is not None and rows is None) as display:
        result = raysp.evaluate(
            checkpoint,
            shards[0] if len(shards) == 1 else shards,
            text=text,
            label=label,
            speaker=speaker,
            rows=rows,
            worst=worst,
            sink=sink,
            settings=settings or (),
            **measured,
            **on.named,
            **shown_on(display),
        )
    show(result, lambda: print_evaluation(result, metrics.by or ()), result.exit_code, exit_code=result.exit_code)


def diff(
    a: Annotated[str, Argument(metavar="OUT_A", help="A folder that a run wrote, or its pipeline file.")],
    b: Annotated[str, Argument(metavar="OUT_B", help="Another one, with labels of the same shards.")],
    column: Annotated[
        str | None, Option(metavar="NAME", help="Compare this output column. Default: all that both have.")
    ] = None,
    *,
    metrics: MetricOptions,
    worst: Annotated[int, Option(min=0, metavar="N", help="Number of worst rows to show.")] = 10,
    html: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Also write the comparison as one HTML file.")
    ] = None,
    storage_options: StorageOptions = None,
    trust: Trust = False,
) -> None:
    """Compare two labellings of the same shards. Starts no Ray.

    Rows that are ok in both are compared. If the label shards hold reference texts,
    their error rates in both are compared too.

    Examples:
      raysp diff labels relabelled --by speaker_id --html diff.html
      raysp diff labels relabelled --column pred_text --fail-above wer_change=0
    """
    import raysp

    measured = metrics.named
    first, second = _named([a, b], storage_options, trust=trust)
    announce(f"reading {a} and {b} ...")
    result = raysp.diff(_labels(first), _labels(second), column=column, worst=worst, trust=trust, **measured)
    place = result.write_html(html, **first.access) if html else None

    def printed() -> None:
        print_diff(result, metrics.by or ())
        if place:
            print_fact("page", place)

    show(result, printed, result.exit_code, exit_code=result.exit_code)


def _named(targets: list[str], storage_options: list[str] | None, *, trust: bool) -> list[SinkOptions]:
    """Return the sinks of folders or pipeline files; the options apply to each one in object storage."""
    from raysp.specs.work_files import is_pipeline_file
    from raysp.storage.store import scheme_of

    parse_storage_options(storage_options, targets)
    sinks = [SinkOptions(target, None, storage_options if scheme_of(target) else None, trust) for target in targets]
    for sink in sinks:
        if is_pipeline_file(sink.sink) and "pipeline" not in sink.access:
            raise SpecError(f"{sink.sink}: a recipe, whose sink holds no labels; expected a pipeline file or a folder")
    PLACEHOLDERS.set({})  # a message may be about any of them
    return sinks


def _labels(sink: SinkOptions) -> "Parquet":
    from raysp.specs.pipeline import Parquet, Pipeline

    pipeline: Pipeline | None = sink.access.get("pipeline")
    return pipeline.sink if pipeline else Parquet(sink.url, storage_options=sink.access["storage_options"] or {})


def merge(
    sinks: Annotated[list[str], Argument(metavar="OUT...", help="Folders that runs wrote, of the same shards.")],
    to: Annotated[str, Option("--to", metavar="OUT", help="Folder of the merged labels.")],
    by: Annotated[
        str,
        Option(
            "--by",
            metavar="RULE",
            help="A column of numbers, such as pred_score (the highest wins); agreement: the text nearest to the other "
            "ones; vote: each word by majority.",
        ),
    ],
    text: Annotated[
        str | None, Option(metavar="COLUMN", help="Texts of agreement and vote. Default: pred_text.")
    ] = None,
    normalise: Normalise = None,
    storage_options: StorageOptions = None,
    trust: Trust = False,
) -> None:
    """Merge labellings: each row has the label of one of them. Starts no Ray.

    Rows that are ok take precedence. The column labelling has the origin of each row.
    The same command again goes on, and replaces what changed since. Exits with 3 if shards are not merged.

    Examples:
      raysp merge labels relabelled --by pred_score --to merged
      raysp merge parakeet whisper canary --by vote --to merged
    """
    import raysp

    announce(f"reading {' and '.join(sinks)} ...")
    *of, merged = map(_labels, _named([*sinks, to], storage_options, trust=trust))
    result = raysp.merge(*of, to=merged, by=by, text=text, normalise=normalise, trust=trust)

    def printed() -> None:
        if result.rows:
            print_each(("rows", f"{rows:,} of {result.rows:,} from {url}") for url, rows in result.chosen.items())
        if result.elected:
            print_fact("elected", f"{count(result.elected, 'text')} that no labelling has")
        shards = count(result.shards, "shard")
        before = f", {result.shards_before:,} of them earlier" if result.shards_before else ""
        print_fact("merged", f"{shards} in {result.sink}{before}")
        lines = [f"raysp: not merged: {name}: {why}" for name, why in result.not_merged.items()]
        print_some(err, lines, "shard", FEW_LINES)

    show(result, printed, result.exit_code)


def print_evaluation(result: "EvaluationResult", columns: Sequence[str]) -> None:
    """Print an evaluation, with a table for each of some columns."""
    from raysp.evaluation.evaluate.evaluation_result import LIMITS
    from raysp.pages.page_tables import classes_table, groups_table

    print_failures(result.run.shards_failed)
    print_each((name, fact) for name, fact in result.facts.items() if name != LIMITS)
    print_examples(result.run)
    if result.classes:
        print_table(classes_table(result.classes))
    for column in dict.fromkeys(columns):
        if groups := result.by[column]:
            print_table(groups_table(column, groups))
    if result.worst:
        print_worst(result.worst)
    print_nothing_labelled(result.run)
    if result.nothing_compared and not result.run.nothing_labelled:
        say(result.nothing_compared)
    print_limits(result.limits)
    print_each((name, f"`{command}`") for name, command in result.next_commands.items())


def print_limits(limits: "Sequence[Limit]") -> None:
    """Print limits that are met; report missed limits on stderr."""
    for limit in limits:
        if limit.is_met:
            print_fact("limit", limit.words)
        else:
            say(limit.words)


def print_table(table: "Table", most: int = MOST_GROUPS) -> None:
    """Print the first rows of a table, and the number of further rows."""
    drawn = RichTable()
    first, *others = (Text(printable(name)) for name in table.names)
    drawn.add_column(first, no_wrap=True)
    for name in others:
        drawn.add_column(name, justify="right", overflow="fold")
    for row in table.rows[:most]:
        drawn.add_row(*map(Text, row))
    out.print(drawn, soft_wrap=False)
    print_rest(out, table.total - most, table.noun)


def cell_text(value: object) -> str:
    """Return a value of a group or an id as text for a terminal."""
    return "-" if value is None else printable(str(value))


def print_worst(rows: "Sequence[WorstRow]", reference: str = "reference", label: str = "label") -> None:
    """Print each row with its errors and differences: on a terminal in colours and few lines, else on one line."""
    out.print(f"Worst rows, as [-{reference}-]{{+{label}+}}", style="bold", markup=False)
    if not out.is_terminal:
        for row in rows:
            out.print(f"{cell_text(row.id)}  {_errors(row)}  {differences(row).plain}", markup=False)
        return
    id_width = min(out.width // 3, max(cell_len(cell_text(row.id)) for row in rows))
    most = LINES_OF_A_ROW * (out.width - id_width - max(len(_errors(row)) for row in rows) - 4)
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=id_width)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(overflow="fold")
    for row in rows:
        shown = differences(row)
        shown.truncate(most, overflow="ellipsis")
        grid.add_row(Text(cell_text(row.id)), _errors(row), shown)
    out.print(grid, soft_wrap=False)


def _errors(row: "WorstRow") -> str:
    """Return the errors of a row and the words of its reference; of a wrong class, its probability."""
    return f"{row.errors}/{len(row.reference.split())}" if row.score is None else f"{row.score:.3f}"


def differences(row: "WorstRow") -> Text:
    """Return a reference in which differing words are marked, without equal words far from a difference.

    Removed and added words are marked as by `git diff --word-diff`.
    """
    from raysp.pages.page_tables import parts_of

    parts, shown = parts_of(row), Text()
    for place, part in enumerate(parts):
        if part.kind == "same":
            shown.append(_context(part.text.split(), before=place == 0, after=place == len(parts) - 1))
            continue
        is_removed, follower = part.kind == "removed", parts[place + 1].kind if place + 1 < len(parts) else ""
        shown.append(f"[-{part.text}-]" if is_removed else f"{{+{part.text}+}}", style="red" if is_removed else "green")
        shown.append("" if is_removed and follower == "added" else " ")
    shown.rstrip()
    return shown


def _context(words: Sequence[str], *, before: bool = False, after: bool = False) -> str:
    """Return equal words; of many, only those next to a difference."""
    first, last = (0 if before else CONTEXT_WORDS), (0 if after else CONTEXT_WORDS)
    if len(words) > first + last:
        words = [*words[:first], "…", *words[len(words) - last :]]
    return "".join(f"{printable(word)} " for word in words)


def print_diff(result: "LabelDiff", columns: Sequence[str]) -> None:
    """Print a comparison, with a table for each of some columns."""
    print_each(result.facts.items())
    for difference in result.columns if result.rows.compared else ():
        _print_column(difference, tuple(dict.fromkeys(columns)))
    if not result.rows.compared:
        say("no row was compared: none is ok in both")
    print_limits(result.limits)


def _print_column(difference: "ColumnDifference", columns: Sequence[str]) -> None:
    """Print the error rates of both labellings against references, if any, then their differences."""
    from raysp.evaluation.diff.diff_result import CHANGES
    from raysp.pages.page_tables import groups_table

    if difference.against:
        title = f"{cell_text(difference.column)}, A and B against {cell_text(difference.against.column)}"
        out.print(title, style="bold", markup=False)
        print_table(difference.against.table)
        print_fact("WER change", difference.against.verdict)
        for column in columns:
            print_table(groups_table(column, difference.against.by[column], CHANGES))
    out.print(f"{cell_text(difference.column)}, B against A", style="bold", markup=False)
    print_each(difference.facts.items())
    for column in columns:
        if groups := difference.by[column]:
            print_table(groups_table(column, groups))
    if difference.changes:
        print_table(difference.changes_table)
    if difference.worst:
        print_worst(difference.worst, "A", "B")
