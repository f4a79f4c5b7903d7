"""The verb that writes label shards in other formats."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysp.cli.console import ProgressLines, print_fact, print_json, say, showing
from raysp.cli.options import AsJson, Debug, Settings, StorageOptions, Trust, named_sink, parse_storage_options
from raysp.words import count

if TYPE_CHECKING:
    from raysp.verbs.export.export_result import Export

EVERY_SECONDS = 10.0
"""Seconds between lines of progress."""


def export(
    sink: Annotated[str, typer.Argument(metavar="OUT", help="A folder that a run wrote, or its pipeline file.")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A new folder, or one of an earlier export.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="srt vtt ctm textgrid rttm jsonl nemo dataset clips")
    ],
    column: Annotated[str | None, typer.Option(metavar="NAME", help="Prefix of the columns. Default: pred.")] = None,
    max_chars: Annotated[int | None, typer.Option(metavar="N", help="srt, vtt: length of a line (42).")] = None,
    min_seconds: Annotated[float | None, typer.Option(metavar="S", help="clips: shortest (1).")] = None,
    max_seconds: Annotated[float | None, typer.Option(metavar="S", help="Longest cue (7) or clip (20).")] = None,
    min_score: Annotated[float | None, typer.Option(metavar="P", help="clips: least mean probability.")] = None,
    layout: Annotated[str | None, typer.Option("--as", metavar="KIND", help="clips: parquet or tar.")] = None,
    audio: Annotated[bool | None, typer.Option("--audio/--no-audio", help="dataset, nemo.", show_default=False)] = None,
    one_file: Annotated[bool | None, typer.Option("--one-file", help="ctm rttm jsonl nemo: for all shards.")] = None,
    licence: Annotated[str | None, typer.Option(metavar="NAME", help="dataset, clips: for the card.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Remove another export, if DEST has one.")] = False,
    settings: Settings = None,
    storage_options: StorageOptions = None,
    dest_options: Annotated[
        list[str] | None, typer.Option("--dest-option", metavar="KEY=VALUE", help="For DEST.")
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write label shards in a format that other tools read. Starts no Ray.

    Run again to go on. Exits with 3 if shards are unfinished or no row is exported.

    Examples:
      raysp export out --to srt subtitles
      raysp export out --to clips clips --min-score 0.9 --as tar
    """
    reached_by = parse_storage_options(dest_options, [dest], "--dest-option")
    url, pipeline, options = named_sink(sink, settings, storage_options)
    if not as_json:
        say(f"reading {url} ...")
    import raysp

    given: dict[str, Any] = {"to": to, "layout": layout}
    found = raysp.export(
        url,
        options,
        **given,
        dest=dest,
        dest_options=reached_by,
        column=column,
        max_chars=max_chars,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        min_score=min_score,
        audio=audio,
        one_file=one_file or None,
        licence=licence,
        pipeline=pipeline,
        trust=trust,
        restart=restart,
        on_shard=None if as_json else ProgressLines(EVERY_SECONDS, _words),
    )
    with showing(found.exit_code):
        if as_json:
            print_json({**dataclasses.asdict(found), "exit_code": found.exit_code})
        else:
            _print(found)


def _words(done: int, of: int) -> str:
    return f"{done:,} of {count(of, 'label shard')}"


def _print(found: "Export") -> None:
    if found.unfinished:
        say(
            f"{found.sink}: {count(len(found.unfinished), 'shard')} not finished, which the export lacks; finish the "
            "run, and run this command again"
        )
    for name, fact in found.facts.items():
        print_fact(name, fact)
    if found.nothing_exported:
        say(found.nothing_exported)
