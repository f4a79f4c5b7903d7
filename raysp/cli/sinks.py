"""The verbs for an existing sink: verify, gc, status. They do not start Ray."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from raysp.cli.console import err, flat, out, print_fact, print_facts, print_json, print_some, say, showing
from raysp.cli.options import AsJson, Debug, Settings, Sink, StorageOptions, Trust, named_sink
from raysp.cli.watching import watch
from raysp.words import count

if TYPE_CHECKING:
    from raysp.verbs.gc import Cleaning
    from raysp.verbs.verify.verifying import Verification


def verify(
    sink: Sink,
    sample: Annotated[int, typer.Option(min=0, metavar="N", help="Label N rows again, each alone, and compare.")] = 0,
    settings: Settings = None,
    storage_options: StorageOptions = None,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check every label shard against plan, source and itself.

    Starts no Ray. Exits with 1 if a difference is found.

    Examples:
      raysp verify out --sample 20
      raysp verify pipelines/label_digits.py --set sink.url=out
    """
    url, pipeline, options = named_sink(sink, settings, storage_options)
    import raysp
    from raysp.labelling.planning.trust import explain

    if not as_json:
        say(f"reading {url} ...")
    found = raysp.verify(url, options, sample=sample, pipeline=pipeline, trust=trust)
    with showing(found.exit_code):
        if as_json:
            print_json({**dataclasses.asdict(found), "exit_code": found.exit_code})
        else:
            print_some(err, [f"raysp: {difference}" for difference in found.differences], "difference")
            if found.unused:
                say(f"{url}: only the sink was checked, not its source: {explain(found.unused)}")
            print_facts(found.sink, _facts_of_verification(found, sample))


def _facts_of_verification(found: "Verification", sample: int) -> dict[str, object]:
    """Return the facts of a verification, by name, in which so many rows were to be labelled again."""
    facts: dict[str, object] = {"checked": f"{count(found.rows, 'row')} in {count(found.shards, 'shard')}"}
    if found.sampled:
        share = f"{found.sampled_equal:,} equal ({found.sampled_equal / found.sampled:.1%})"
        facts["sample"] = f"{count(found.sampled, 'row')} labelled again, each alone: {share}"
    elif sample:
        facts["sample"] = "none labelled again, since no row is ok"
    if found.duplicate_ids:
        facts["shared ids"] = f"{count(found.duplicate_ids, 'row')} with the id of an earlier row"
    if found.orphans:
        facts["left over"] = f"{count(len(found.orphans), 'file')} left by killed runs; raysp gc removes them"
    return {**facts, "not there": found.sources_missing, "differences": len(found.differences) or "none"}


def gc(
    sink: Sink,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    settings: Settings = None,
    storage_options: StorageOptions = None,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove files that killed runs or trainings left in a sink. Refused while one is active there.

    Example:
      raysp gc out --dry-run
    """
    url, pipeline, options = named_sink(sink, settings, storage_options)
    import raysp

    found = raysp.gc(url, options, dry_run=dry_run, pipeline=pipeline, trust=trust)
    with showing(0):
        if as_json:
            print_json(dataclasses.asdict(found))
        else:
            _print_removed(found)


def _print_removed(found: "Cleaning") -> None:
    lines = [f"{orphan.path}  {count(orphan.num_bytes, 'byte')}: {orphan.reason}" for orphan in found.orphans]
    print_some(out, lines, "file")
    done = "removed" if found.removed else "to remove"
    print_fact(done, f"{count(len(found.orphans), 'file')}, {count(found.num_bytes, 'byte')}")


def status(
    sink: Sink,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Also print fingerprint, versions, last command; in --json always."),
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--watch", min=0.1, metavar="[SECONDS]", help="Repeat it until the run ends, by default every 5 seconds."
        ),
    ] = None,
    settings: Settings = None,
    storage_options: StorageOptions = None,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the progress of a sink, or of a training. Starts no Ray.

    Examples:
      raysp status s3://bucket/out --watch
      raysp status out
      raysp status pipelines/label_digits.py --set sink.url=out
      raysp status pipelines/finetune_ctc.py
    """
    url, pipeline, options = named_sink(sink, settings, storage_options)
    if seconds is None:
        import raysp

        found = raysp.status(url, options, pipeline=pipeline, trust=trust)
    else:
        from raysp.verbs.watching import Watch

        states = Watch.open(url, options, pipeline=pipeline, trust=trust, seconds=seconds)
        found = watch(states, is_quiet=as_json)
    with showing(0):
        fields = dataclasses.asdict(found)
        if as_json:
            print_json({**fields, **found.derived})
            return
        if seconds is None:
            print_facts(found.sink, found.facts)
        if verbose:
            print_facts("Details", flat(fields))
