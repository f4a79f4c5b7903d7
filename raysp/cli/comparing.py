"""The verb that compares two labellings."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysp.cli.comparisons import print_diff
from raysp.cli.console import print_fact, print_json, say
from raysp.cli.options import (
    AsJson,
    By,
    Debug,
    Limits,
    Normalise,
    Over,
    StorageOptions,
    Trust,
    Worst,
    named_sink,
    parse_limits,
)

if TYPE_CHECKING:
    from raysp.specs.pipeline import Parquet


def diff(
    a: Annotated[str, typer.Argument(metavar="OUT_A", help="A folder that a run wrote, or its pipeline file.")],
    b: Annotated[str, typer.Argument(metavar="OUT_B", help="Another one, with labels of the same shards.")],
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare this output column. Default: all that both have.")
    ] = None,
    by: By = None,
    over: Over = None,
    normalise: Normalise = "letters",
    fail_above: Annotated[
        Limits, typer.Option(metavar="METRIC=SHARE", help="Exit with 1 above, such as wer_change=0. Repeatable.")
    ] = None,
    fail_below: Annotated[
        Limits, typer.Option(metavar="METRIC=SHARE", help="Exit with 1 below, such as agreement=0.9.")
    ] = None,
    worst: Worst = 10,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the comparison as one HTML file.")
    ] = None,
    storage_options: StorageOptions = None,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare two labellings of the same shards. Starts no Ray.

    Rows that are ok in both are compared. If the label shards hold reference texts,
    their error rates in both are compared too.

    Examples:
      raysp diff labels relabelled --by speaker_id --html diff.html
      raysp diff labels relabelled --column pred_text --fail-above wer_change=0
    """
    import raysp

    above, below = parse_limits("--fail-above", fail_above), parse_limits("--fail-below", fail_below)
    first, second = (_sink(one, storage_options) for one in (a, b))
    if not as_json:
        say(f"reading {a} and {b} ...")
    found = raysp.diff(
        first,
        second,
        column=column,
        by=by or (),
        over=over,
        normalise=normalise,
        fail_above=above,
        fail_below=below,
        worst=worst,
        trust=trust,
    )
    place = found.write_html(html) if html else None
    if as_json:
        print_json({**dataclasses.asdict(found), "exit_code": found.exit_code})
    else:
        print_diff(found, by or ())
        if place:
            print_fact("page", place)
    raise typer.Exit(found.exit_code)


def _sink(target: str, storage_options: list[str] | None) -> "Parquet":
    """Return the sink of a folder or of a pipeline file."""
    from raysp.specs.pipeline import Parquet

    url, pipeline, options = named_sink(target, None, storage_options)
    return pipeline.sink if pipeline else Parquet(url, storage_options=options or {})
