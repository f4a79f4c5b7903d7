"""The verbs for an existing sink: verify, gc, forget, status, report, export. They start no local Ray."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.live import Live
from rich.text import Text
from typer import Argument, Option

from raysp.cli.arguments import By, Normalise, SinkOptions, parse_storage_options
from raysp.cli.console import (
    announce,
    err,
    fact_lines,
    flat,
    is_json,
    out,
    print_each,
    print_fact,
    print_facts,
    print_folded,
    print_some,
    printing,
    say,
    show,
)
from raysp.cli.printed_runs import show_exported
from raysp.errors import refuse_unused
from raysp.labelling.engine.display import Display
from raysp.words import count, printable

if TYPE_CHECKING:
    from raysp.labelling.reports.suggested_bounds import Bounds
    from raysp.verbs.verify.verifying import Verification
    from raysp.verbs.watching import Watch
    from raysp.work import Progress

LOST = (
    "the run has not written a heartbeat for a minute: it is lost, or cannot reach its sink; run again to continue it"
)
MOST_BOUNDS = 40
"""Suggested bounds that are printed."""


def verify(
    sink: SinkOptions,
    sample: Annotated[int, Option(min=0, metavar="N", help="Label N rows again, each alone, and compare.")] = 0,
) -> None:
    """Check every label shard against plan, source and itself.

    Starts no Ray. Exits with 1 if a difference is found. The source is compared if the
    pipeline file is given, or --trust.

    Examples:
      raysp verify label.py --sample 20
      raysp verify pipelines/label_digits.py --set sink.url=out
      raysp verify out --trust
    """
    import raysp
    from raysp.labelling.planning.trust import explain

    announce(f"reading {sink.url} ...")
    result = raysp.verify(sink.url, sample=sample, **sink.access)

    def printed() -> None:
        print_some(err, [f"raysp: {difference}" for difference in result.differences], "difference")
        if result.unused:
            say(f"{sink.url}: only the sink was checked, not its source: {explain(result.unused)}")
        print_facts(result.sink, _facts_of_verification(result, sample))

    show(result, printed, result.exit_code, exit_code=result.exit_code)


def _facts_of_verification(result: "Verification", sample: int) -> dict[str, object]:
    """Return the facts of a verification by name; `sample` is the number of rows to label again."""
    facts: dict[str, object] = {"checked": f"{count(result.rows, 'row')} in {count(result.shards, 'shard')}"}
    if result.sampled:
        share = f"{result.sampled_equal:,} equal ({result.sampled_equal / result.sampled:.1%})"
        facts["sample"] = f"{count(result.sampled, 'row')} labelled again, each alone: {share}"
    elif sample:
        facts["sample"] = "none labelled again, since no row is ok"
    if result.duplicate_ids:
        facts["shared ids"] = f"{count(result.duplicate_ids, 'row')} with the id of an earlier row"
    if result.orphans:
        facts["left over"] = f"{count(len(result.orphans), 'file')} left by killed runs; raysp gc removes them"
    return {**facts, "not there": result.sources_missing, "differences": len(result.differences) or "none"}


def gc(
    sink: SinkOptions,
    dry_run: Annotated[bool, Option("--dry-run", help="Only list what would be removed.")] = False,
) -> None:
    """Remove files that killed runs or trainings left in a sink. Refused while one is active there.

    Example:
      raysp gc out --dry-run
    """
    import raysp

    result = raysp.gc(sink.url, dry_run=dry_run, **sink.access)

    def printed() -> None:
        lines = [f"{orphan.path}  {count(orphan.num_bytes, 'byte')}: {orphan.reason}" for orphan in result.orphans]
        print_some(out, lines, "file")
        done = "removed" if result.removed else "to remove"
        print_fact(done, f"{count(len(result.orphans), 'file')}, {count(result.num_bytes, 'byte')}")

    show(result, printed)


def forget(
    sink: SinkOptions,
    ids: Annotated[list[str], Argument(metavar="ID...", help="Ids of withdrawn recordings.")],
) -> None:
    """Remove the labels of withdrawn recordings. Their rows stay: skipped, withdrawn.

    No later run or retry of the sink labels them.

    Example:
      raysp forget out speaker7_0012 speaker7_0013
    """
    import raysp

    result = raysp.forget(sink.url, ids, **sink.access)
    show(result, lambda: print_facts(result.sink, result.facts))


def status(
    sink: SinkOptions,
    verbose: Annotated[
        bool, Option("--verbose", "-v", help="Also print fingerprint, versions, last command; in --json always.")
    ] = False,
    watch: Annotated[bool, Option("--watch", help="Repeat every 5 seconds until the run ends.")] = False,
) -> None:
    """Show the progress of a sink, or of a training. Starts no Ray.

    Examples:
      raysp status s3://bucket/out --watch
      raysp status out
      raysp status pipelines/label_digits.py --set sink.url=out
      raysp status pipelines/finetune_ctc.py
    """
    import raysp
    from raysp.verbs.watching import Watch
    from raysp.work import SinkRequest

    if watch:
        progress = _watch(Watch.open(SinkRequest(sink.url, **sink.access)))
    else:
        progress = raysp.status(sink.url, **sink.access)

    def printed() -> None:
        if not watch:
            print_facts(progress.sink, progress.facts)
        if verbose:
            print_facts("Details", flat(progress.json))

    show(progress.json, printed)


def _watch(states: "Watch") -> "Progress":
    """Show the states of a sink until its runs have ended, and return the last one."""
    if is_json():
        *_, last = states
    elif out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            for last in states:
                with printing():
                    title, *lines = fact_lines(last.sink, last.facts)
                    live.update(Text("\n").join([Text(title, style="bold"), *map(Text, lines)]), refresh=True)
    else:
        before = ""
        for last in states:
            with printing():
                if (line := last.line) != before:
                    print_folded(out, f"{time.strftime('%H:%M:%S')} {line}", 2)
                before = line
        with printing():
            print_facts(last.sink, last.facts)
    if states.is_lost:
        say(LOST)
    return last


def report(
    sink: SinkOptions,
    file: Annotated[
        Path | None, Option("--out", metavar="FILE.html", help="Local file. Default: .raysp/report.html in the sink.")
    ] = None,
    by: By = None,
    normalise: Normalise = None,
    columns: Annotated[
        str | None,
        Option("--suggest", metavar="COLUMNS", help="Print bounds for Keep instead: signal.noise,pred_score."),
    ] = None,
    quantiles: Annotated[
        list[float] | None,
        Option("--quantile", metavar="SHARE", help="Of --suggest: rows left out. Repeatable. (.01 .05 .1 .25)"),
    ] = None,
    group: Annotated[str | None, Option(metavar="COLUMN", help="Of --suggest: bounds for each of its values.")] = None,
) -> None:
    """Write the report of a sink, or of a training, as one HTML file. Prints its path.

    For labels: speed, durations, errors with remedies, scores, word error rates with
    intervals and the worst rows. For a training: curves and evaluations.

    Examples:
      raysp report out --out report.html --by speaker_id
      raysp report pipelines/label_digits.py --set sink.url=out
      raysp report pipelines/finetune_ctc.py
      raysp report out --suggest signal.snr,pred_score --group language
    """
    import raysp

    if columns is None:
        refuse_unused({"--quantile": quantiles, "--group": group}, "they are of --suggest; name its columns")
    else:
        refuse_unused({"--out": file, "--by": by, "--normalise": normalise}, "--suggest writes no page; leave it out")
    announce(f"reading {sink.url} ...")
    if columns is not None:
        suggestion = raysp.suggest(sink.url, columns.split(","), quantiles=quantiles, group=group, **sink.access)
        rows = [{**asdict(bounds), "keep": bounds.keep} for bounds in suggestion.bounds]
        show({"sink": suggestion.sink, "bounds": rows}, lambda: _print_bounds(suggestion.bounds))
    place = raysp.report(sink.url, file, by=by, normalise=normalise, **sink.access)
    show({"report": place}, lambda: out.print(printable(place), markup=False))


def _print_bounds(all_bounds: "Sequence[Bounds]") -> None:
    """Print bounds with the rows and hours that they keep, and the steps of a pipeline."""
    from raysp.cli.evaluation_verbs import cell_text, print_table
    from raysp.pages.page_tables import Table

    has_groups = any(bounds.group is not None for bounds in all_bounds)
    rows = []
    for bounds in all_bounds:
        conditions = [f"{compare} {value:g}" for name, compare, value in bounds.where if name == bounds.column]
        kept = (
            f"{bounds.rows:,} of {bounds.of_rows:,}",
            f"{bounds.seconds / 3600:,.2f} of {bounds.of_seconds / 3600:,.2f}",
        )
        of_group = (cell_text(bounds.group),) if has_groups else ()
        rows.append((bounds.column, *of_group, f"{bounds.quantile:g}", " and ".join(conditions) or "-", *kept))
    names = ("column", *(("group",) if has_groups else ()), "leaves out", "keeps", "rows", "hours")
    print_table(Table("", names, rows, len(rows), "bound"), MOST_BOUNDS)
    print_some(out, [*dict.fromkeys(bounds.keep for bounds in all_bounds if bounds.keep)], "step", MOST_BOUNDS)


def export(
    sink: SinkOptions,
    to: Annotated[
        str,
        Option(
            "--to",
            metavar="FORMAT",
            help="srt vtt ctm textgrid rttm jsonl csv nemo dataset clips utterances labelstudio, or module:Class.",
        ),
    ],
    dest: Annotated[str | None, Argument(metavar="DEST", help="A new folder, or one of an earlier export.")] = None,
    beside: Annotated[bool, Option("--beside", help="srt vtt: beside the recordings, not in DEST.")] = False,
    restart: Annotated[bool, Option("--restart", help="Remove another export, if DEST has one.")] = False,
    dest_options: Annotated[list[str] | None, Option("--dest-option", metavar="KEY=VALUE", help="For DEST.")] = None,
    processes: Annotated[int, Option(min=1, metavar="N", help="Processes of this machine.")] = 1,
    address: Annotated[str | None, Option(metavar="ADDRESS", help="Ray cluster whose tasks write the files.")] = None,
) -> None:
    """Write labels for other tools. Exits with 3 if some are missing.

    Options of the format are set by their names, as in --set to.max_chars=32; docs/outputs.md lists the formats.

    Examples:
      raysp export out srt --to srt --set to.max_chars=32
      raysp export label.py clips --to clips --set to.min_score=0.9 --processes 8
      raysp export label.py utterances --to utterances --set to.by=sentences
    """
    import raysp
    from raysp.specs.work_files import with_overrides
    from raysp.verbs.export.formats import format_of

    reached_by = parse_storage_options(dest_options, [dest] if dest else None, "--dest-option")
    of_format = [setting for setting in sink.settings or () if setting.startswith("to.")]
    sink = replace(sink, settings=[setting for setting in sink.settings or () if setting not in of_format])
    announce(f"reading {sink.url} ...")  # a pipeline file, which this reads, makes the modules next to it importable
    form = with_overrides({"to": format_of(to)}, of_format)["to"]
    with Display(err, is_quiet=is_json()) as display:
        result = raysp.export(
            sink.url,
            form,
            dest,
            beside=beside,
            dest_options=reached_by,
            restart=restart,
            processes=processes,
            address=address,
            on_shard=partial(show_exported, display),
            **sink.access,
        )

    def printed() -> None:
        if result.unfinished:
            say(
                f"{result.sink}: {count(len(result.unfinished), 'shard')} not finished, which the export lacks; finish "
                "the run, and run this command again"
            )
        print_each(result.facts.items())
        if result.nothing_exported:
            say(result.nothing_exported)

    show(result, printed, result.exit_code, exit_code=result.exit_code)
