"""The verb that evaluates a checkpoint."""

import dataclasses
from typing import Annotated

import typer

from raysp.cli.console import print_json, say, showing
from raysp.cli.evaluations import print_evaluation
from raysp.cli.options import Address, AsJson, By, Debug, Limits, Normalise, Over, Settings, parse_limits
from raysp.cli.progress import Shown
from raysp.cli.signals import resume_hint


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
    relabel: Annotated[bool, typer.Option("--relabel", help="Replace other labels in OUT, if it has any.")] = False,
    settings: Settings = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
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
    if not as_json:
        say(f"looking at {shards[0]}{f' and {len(shards) - 1} more' if len(shards) > 1 else ''} ...")
    with resume_hint(as_json, is_kept=sink is not None and rows is None) as check, Shown(as_json, check) as shown:
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
            relabel=relabel,
            settings=settings or (),
            address=address,
            on_plan=shown.plan,
            on_progress=shown.progress,
            progress=False,
        )
    with showing(result.exit_code):
        if as_json:
            print_json({**dataclasses.asdict(result), "exit_code": result.exit_code})
        else:
            print_evaluation(result, by or ())
