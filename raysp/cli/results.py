"""The summary of a run: some of its rows, what was committed, what failed, what to do next."""

from typing import TYPE_CHECKING

from raysp.cli.console import err, escape, out
from raysp.cli.options import command_line
from raysp.cli.plans import SAMPLE_ROWS, print_failures
from raysp.cli.rows import print_rows
from raysp.words import count, duration

if TYPE_CHECKING:
    from raysp.engine.running import RunResult
    from raysp.sink.word_errors import WordErrors
    from raysp.specs.pipeline import Pipeline

EXAMPLE_CHARACTERS = 200


def next_command(pipeline: "Pipeline", target: str, settings: list[str] | None) -> str:
    """Return the command that shows the progress: with the pipeline file where a sink cannot be reached without."""
    if not pipeline.sink.storage_options:
        return command_line("status", pipeline.sink.url, None)
    return command_line("status", target, settings)


def print_result(pipeline: "Pipeline", result: "RunResult", next_command: str) -> None:
    """Print some rows of a run and its summary."""
    from raysp.reading.samples import first_rows

    print_failures(result.shards_failed)
    if not result.rows and result.shards_before == result.shards:
        out.print(f"Nothing to do: {result.shards:,} of {count(result.shards, 'shard')} committed already.")
    if result.shards_committed:
        table = first_rows(result.sink, SAMPLE_ROWS, pipeline.sink.storage_options)
        if table.num_rows:
            print_rows(table, f"The first of the labels in {result.sink}")
        else:
            left_out = " (rows that are not ok are left out: rows='ok')" if pipeline.sink.rows == "ok" else ""
            out.print(f"The label shards in {escape(result.sink)} hold no row{left_out}.")
    done = f"{result.shards_committed:,} of {count(result.shards, 'shard')} committed"
    before = f", {result.shards_before:,} of them before this run" if result.shards_before else ""
    out.print(f"{'labels':12} {escape(result.sink)}: {done}{before}")
    if result.rows:
        out.print(
            f"{'this run':12} {count(result.rows, 'row')}, {duration(result.audio_seconds)} of audio in "
            f"{result.wall_seconds:.1f} s: RTFx {result.rtfx:,.1f}, start of Ray and model included"
        )
    if result.padding_efficiency is not None:
        out.print(
            f"{'model':12} padding efficiency {result.padding_efficiency:.1%}, "
            f"waited for input {result.wait_share or 0:.1%} of its time"
        )
    if result.skipped:
        out.print(f"{'skipped rows':12} " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(result.skipped.items())))
    if result.errors:
        out.print(f"{'error rows':12} " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(result.errors.items())))
        print_examples(result)
        if "path_not_allowed" in result.errors and pipeline.source.audio_root is None:
            out.print(f"{'':12} to read them by path: raysp retry {escape(result.sink)} --set source.audio_root=DIR")
    print_passed_over(result)
    if result.word_errors is not None:
        out.print(f"{'word errors':12} {word_errors(result.word_errors)}")
    again = "; run the same command again to try the rest" if result.shards_failed else ""
    out.print(f"{'next':12} {escape(next_command)}{again}")
    print_nothing_labelled(result)


def print_nothing_labelled(result: "RunResult") -> None:
    """Print why no row was labelled, and what to do, where that is so."""
    if result.nothing_labelled:
        err.print(f"raysp: {escape(result.nothing_labelled)}")


def print_examples(result: "RunResult") -> None:
    """Print some errors, each shortened."""
    for example in result.error_examples:
        shown = example if len(example) <= EXAMPLE_CHARACTERS else f"{example[: EXAMPLE_CHARACTERS - 1]}…"
        out.print(f"{'':12} {escape(shown)}")


def print_passed_over(result: "RunResult") -> None:
    """Print how many files of a source's folders are no recordings."""
    from raysp.planning.listing import count_files

    if result.passed_over:
        out.print(f"{'source':12} {escape(count_files(result.passed_over, ' passed over'))}")


def word_errors(errors: "WordErrors") -> str:
    """Return the word error rate and what it is of."""
    unlabelled = f"; {count(errors.unlabelled, 'row')} with a reference not labelled" if errors.unlabelled else ""
    return (
        f"{errors.rate:.2%} of {count(errors.words, 'reference word')} in {count(errors.rows, 'labelled row')} "
        f"(letter case and punctuation aside){unlabelled}"
    )
