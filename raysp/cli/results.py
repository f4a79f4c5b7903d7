"""The summary of a run: some of its rows, committed shards, failures, next commands."""

from typing import TYPE_CHECKING, NamedTuple

from raysp.cli.console import print_command, print_fact, say
from raysp.cli.options import command_line
from raysp.cli.plans import SAMPLE_ROWS, print_failures
from raysp.cli.rows import print_rows
from raysp.words import count, duration

if TYPE_CHECKING:
    from raysp.labelling.engine.running import RunResult
    from raysp.specs.pipeline import Pipeline

EXAMPLE_CHARACTERS = 200


class Commands(NamedTuple):
    """Commands for the sink of a run, with the pipeline file if the sink has storage options."""

    status: str
    retry: str
    report: str


def next_commands(pipeline: "Pipeline", target: str, settings: list[str] | None) -> Commands:
    """Return the commands to suggest after a run."""
    if not pipeline.sink.storage_options:
        target, settings = pipeline.sink.url, None
    return Commands(*(command_line(verb, target, settings) for verb in Commands._fields))


def print_result(pipeline: "Pipeline", result: "RunResult", commands: Commands, shards: str | None = None) -> None:
    """Print some rows of a run, and its summary. `shards` names the share that it labelled, as given."""
    from raysp.labelling.finished.first_rows import first_rows

    print_failures(result.shards_failed)
    if result.shards_committed > result.shards_before or result.rows:
        table = first_rows(result.sink, SAMPLE_ROWS, pipeline.sink.storage_options)
        if table.num_rows:
            print_rows(table, f"First labels in {result.sink}")
        else:
            left_out = " (rows that are not ok are left out: rows='ok')" if pipeline.sink.rows == "ok" else ""
            print_fact("rows", f"the label shards in {result.sink} hold no rows{left_out}")
    share = f", share {shards}" if shards else ""
    print_fact("labels", f"{result.sink}{share}: {_committed(result)}")
    if result.rows:
        print_fact(
            "this run",
            f"{count(result.rows, 'row')}, {duration(result.audio_seconds)} of audio in "
            f"{result.wall_seconds:.1f} s: RTFx {result.rtfx:,.1f}, start included",
        )
    if result.padding_efficiency is not None:
        print_fact(
            "model",
            f"padding efficiency {result.padding_efficiency:.1%}, "
            f"waited for input {result.wait_share or 0:.1%} of its time",
        )
    print_unlabelled(result)
    if result.errors:
        if "path_not_allowed" in result.errors and pipeline.source.audio_root is None:
            command = command_line("retry", result.sink, ["source.audio_root=DIR"])
            print_command("", f"to read them by path: {command}")
        elif not result.nothing_labelled:
            print_command("once fixed", commands.retry)
    elif result.nothing_labelled and not result.rows:
        print_command("once fixed", commands.retry)
    print_passed_over(result)
    if result.word_errors is not None:
        print_fact("word errors", result.word_errors.sentence)
    if result.shards_failed:
        print_fact("again", "the same command retries the failed shards")
    if result.shards_committed:
        print_command("report", commands.report)
    print_command("next", commands.status)
    print_nothing_labelled(result)


def print_unlabelled(result: "RunResult", *, with_examples: bool = True) -> None:
    """Print the numbers of skipped rows and of error rows, with some examples of the latter."""
    for name, kinds in (("skipped rows", result.skipped), ("error rows", result.errors)):
        if kinds:
            print_fact(name, ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items())))
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


def print_passed_over(result: "RunResult") -> None:
    """Print the number of files of the source that are neither shards nor recordings."""
    from raysp.labelling.planning.listing import count_files

    if result.passed_over:
        print_fact("source", count_files(result.passed_over, " passed over"))


def _committed(result: "RunResult") -> str:
    """Return how many shards are committed, and how many of them before this run."""
    if not result.rows and result.shards_before == result.shards:
        return f"nothing to do, {result.shards:,} of {count(result.shards, 'shard')} committed already"
    before = f", {result.shards_before:,} of them before this run" if result.shards_before else ""
    return f"{result.shards_committed:,} of {count(result.shards, 'shard')} committed{before}"
