"""The verbs that evaluate a checkpoint, and that compare and merge labellings: evaluate, diff, merge."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysp.cli.arguments import (
    Address,
    By,
    Engine,
    Limits,
    NamedSink,
    Normalise,
    Over,
    Settings,
    StorageOptions,
    Trust,
    named_sink,
    parse_limits,
    parse_storage_options,
)
from raysp.cli.console import FEW_LINES, PLACEHOLDERS, announce, err, is_json, print_fact, print_some, show
from raysp.cli.printed_scores import print_diff, print_evaluation
from raysp.cli.stop_signals import resume_hint
from raysp.errors import SpecError
from raysp.labelling.engine.display import Display
from raysp.words import count

if TYPE_CHECKING:
    from raysp.specs.pipeline import Parquet


def evaluate(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A model folder, its url, or a hub id.")],
    shards: Annotated[list[str], typer.Argument(metavar="SHARDS...", help="Files, folders, globs or urls.")],
    text: Annotated[str | None, typer.Option(metavar="COLUMN", help="Reference texts: WER and CER.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Right classes: accuracy, F1, EER.")] = None,
    speaker: Annotated[str | None, typer.Option(metavar="COLUMN", help="Speakers: EER of pairs of rows.")] = None,
    by: By = None,
    over: Over = None,
    normalise: Normalise = None,
    fail_above: Annotated[
        Limits, typer.Option(metavar="METRIC=SHARE", help="Exit with 1 above, such as wer=0.2. Repeatable.")
    ] = None,
    fail_below: Annotated[
        Limits, typer.Option(metavar="METRIC=SHARE", help="Exit with 1 below, such as accuracy=0.9.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, metavar="N", help="Evaluate only the first N rows.")] = None,
    worst: Annotated[int | None, typer.Option(min=0, metavar="N", help="Number of worst rows to show (10).")] = None,
    sink: Annotated[str | None, typer.Option(metavar="OUT", help="Keep the labels there; not those of --rows.")] = None,
    settings: Settings = None,
    engine: Engine = "auto",
    address: Address = None,
) -> None:
    """Measure the error rates of a checkpoint on shards.

    Labels the shards and compares the labels with a column of reference texts, of
    classes or of speakers.

    Examples:
      raysp evaluate models/ctc 'dev/*.parquet' --text sentence --by speaker_id
      raysp evaluate models/xvector dev --speaker name --fail-above eer=0.05
    """
    import raysp

    above, below = parse_limits("--fail-above", fail_above), parse_limits("--fail-below", fail_below)
    announce(f"looking at {shards[0]}{f' and {len(shards) - 1} more' if len(shards) > 1 else ''} ...")
    with (
        resume_hint(is_json(), is_kept=sink is not None and rows is None) as check,
        Display(err, is_quiet=is_json(), check=check) as display,
    ):
        result = raysp.evaluate(
            checkpoint,
            shards[0] if len(shards) == 1 else shards,
            text=text,
            label=label,
            speaker=speaker,
            by=by or (),
            over=over,
            normalise=normalise,
            fail_above=above,
            fail_below=below,
            rows=rows,
            worst=worst,
            sink=sink,
            settings=settings or (),
            engine=engine,
            address=address,
            on_plan=display.plan,
            on_progress=display.progress,
            progress=False,
        )
    show(result, lambda: print_evaluation(result, by or ()), result.exit_code, exit_code=result.exit_code)


def diff(
    a: Annotated[str, typer.Argument(metavar="OUT_A", help="A folder that a run wrote, or its pipeline file.")],
    b: Annotated[str, typer.Argument(metavar="OUT_B", help="Another one, with labels of the same shards.")],
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare this output column. Default: all that both have.")
    ] = None,
    by: By = None,
    over: Over = None,
    normalise: Normalise = None,
    fail_above: Annotated[
        Limits, typer.Option(metavar="METRIC=SHARE", help="Exit with 1 above, such as wer_change=0. Repeatable.")
    ] = None,
    fail_below: Annotated[
        Limits, typer.Option(metavar="METRIC=SHARE", help="Exit with 1 below, such as agreement=0.9.")
    ] = None,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Number of worst rows to show.")] = 10,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the comparison as one HTML file.")
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

    above, below = parse_limits("--fail-above", fail_above), parse_limits("--fail-below", fail_below)
    first, second = _named([a, b], storage_options)
    announce(f"reading {a} and {b} ...")
    found = raysp.diff(
        _labels(first),
        _labels(second),
        column=column,
        by=by or (),
        over=over,
        normalise=normalise,
        fail_above=above,
        fail_below=below,
        worst=worst,
        trust=trust,
    )
    place = None
    if html:
        place = found.write_html(html, first.storage_options, pipeline=first.pipeline, trust=trust)

    def printed() -> None:
        print_diff(found, by or ())
        if place:
            print_fact("page", place)

    show(found, printed, found.exit_code, exit_code=found.exit_code)


def _named(targets: list[str], storage_options: list[str] | None) -> list[NamedSink]:
    """Return the sinks of folders or of pipeline files. The options are those of all that are in object storage."""
    from raysp.specs.work_files import is_pipeline_file
    from raysp.storage.store import scheme_of

    parse_storage_options(storage_options, targets)
    sinks = [named_sink(one, None, storage_options if scheme_of(one) else None) for one in targets]
    PLACEHOLDERS.set({})  # a message may be about any of them
    for target, sink in zip(targets, sinks, strict=True):
        if sink.pipeline is None and is_pipeline_file(target):
            raise SpecError(f"{target}: a recipe, whose sink holds no labels; expected a pipeline file or a folder")
    return sinks


def _labels(sink: NamedSink) -> "Parquet":
    from raysp.specs.pipeline import Parquet

    return sink.pipeline.sink if sink.pipeline else Parquet(sink.url, storage_options=sink.storage_options or {})


def merge(
    sinks: Annotated[list[str], typer.Argument(metavar="OUT...", help="Folders that runs wrote, of the same shards.")],
    to: Annotated[str, typer.Option("--to", metavar="OUT", help="Folder of the merged labels.")],
    by: Annotated[
        str, typer.Option("--by", metavar="COLUMN", help="Column of numbers, such as pred_score; the highest wins.")
    ],
    storage_options: StorageOptions = None,
    trust: Trust = False,
) -> None:
    """Merge labellings: each row has the label of the highest score. Starts no Ray.

    Rows that are ok take precedence. The column labelling has the origin of each row.
    The same command again goes on, and replaces what changed since. Exits with 3 if shards are not merged.

    Example:
      raysp merge labels relabelled --by pred_score --to merged
    """
    import raysp

    announce(f"reading {' and '.join(sinks)} ...")
    *of, merged = map(_labels, _named([*sinks, to], storage_options))
    found = raysp.merge(*of, to=merged, by=by, trust=trust)

    def printed() -> None:
        for url, rows in found.chosen.items() if found.rows else ():
            print_fact("rows", f"{rows:,} of {found.rows:,} from {url}")
        print_fact("merged", f"{count(found.shards, 'shard')} in {found.sink}, {found.shards_before:,} of them earlier")
        lines = [f"raysp: not merged: {name}: {why}" for name, why in found.not_merged.items()]
        print_some(err, lines, "shard", FEW_LINES)

    show(found, printed, found.exit_code)
