"""The command line: one function a verb. The only place that prints."""

import dataclasses
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from raysp.errors import CheckpointError, RayspError, RunError, SpecError
from raysp.ops.precision import AGREED_RATE, Batching

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.engine.progress import Progress
    from raysp.engine.running import RunResult
    from raysp.models.checking import CheckpointSummary
    from raysp.pipeline import Pipeline
    from raysp.planning import Plan

REFUSED, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
SAMPLE_ROWS = 5
PLAIN_LINE_SECONDS = 10.0
NAMES_SHOWN = 40

app = typer.Typer(
    help="Label very large speech corpora offline on Ray. Errors are one line; --debug adds the traceback.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

PipelineFile = Annotated[str, typer.Argument(metavar="PIPELINE", help="file.py, or file.py:NAME")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value: --set sink.url=out --set steps.1.pool.actors=2"),
]
Sink = Annotated[
    str, typer.Argument(metavar="OUT", help="The folder with the label shards, or the pipeline file that made them.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Use the urls, options, variables and modules that the sink's record names.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to use; none: RAY_ADDRESS, else a local Ray.")]


@app.command()
def plan(pipeline: PipelineFile, settings: Settings = None, as_json: AsJson = False) -> None:
    """Say what a run would do. Starts no Ray and writes nothing.

    Example: raysp plan pipelines/label_digits.py --set sink.url=out
    """
    loaded = _load(pipeline, settings)
    if not as_json:
        err.print(f"raysp: looking at {_urls(loaded)} ...")
    import raysp

    found = raysp.plan(loaded)
    if as_json:
        _print_json(_plan_json(found))
    else:
        _print_plan(found)


@app.command()
def run(
    pipeline: PipelineFile,
    settings: Settings = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Try out the first rows into a temporary sink and print them.")
    ] = None,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Redo and replace labels of another pipeline or of changed input.")
    ] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Label a corpus. Run the same command again to go on where it stopped.

    Examples:
      raysp run pipelines/label_digits.py --rows 10
      raysp run pipelines/label_digits.py --set sink.url=out --set steps.1.pool.actors=2
    """
    loaded = _load(pipeline, settings)
    if not as_json:
        err.print(f"raysp: looking at {_urls(loaded)} ...")
    if rows is not None:
        _try_out(loaded, rows, address, as_json)
        return
    from raysp.engine.running import run as run_pipeline

    with _told_how_to_go_on(as_json) as check, _Shown(as_json, check) as shown:
        result = run_pipeline(loaded, relabel=relabel, address=address, on_plan=shown.plan, on_progress=shown.progress)
    if as_json:
        _print_json(dataclasses.asdict(result))
    else:
        _print_result(loaded, result, _next_command(loaded, pipeline, settings))
    raise typer.Exit(result.exit_code)


def _try_out(pipeline: "Pipeline", num_rows: int, address: str | None, as_json: bool) -> None:
    from raysp.engine.running import try_out

    result, table = try_out(pipeline, num_rows, address=address)
    if as_json:
        _print_json({**dataclasses.asdict(result), "table": table.to_pylist()})
    else:
        _print_rows(table, f"The first {table.num_rows} rows (nothing was kept)")
        _print_failures(result.shards_failed)
        _print_passed_over(result)
    raise typer.Exit(result.exit_code)


@app.command()
def retry(
    sink: Sink, settings: Settings = None, trust: Trust = False, address: Address = None, as_json: AsJson = False
) -> None:
    """Label the error rows of a sink once more. The other rows stay as they are.

    Examples:
      raysp retry out
      raysp retry pipelines/label_digits.py --set sink.url=out
    """
    url, pipeline = _sink(sink, settings)
    from raysp.engine.running import retry as retry_rows

    with _told_how_to_go_on(as_json) as check, _Shown(as_json, check) as shown:
        result = retry_rows(
            url, pipeline=pipeline, trust=trust, address=address, on_plan=shown.retry, on_progress=shown.progress
        )
    if as_json:
        _print_json(dataclasses.asdict(result))
    else:
        _print_failures(result.shards_failed)
        errors = sum(result.errors.values())
        out.print(
            f"{result.rows:,} error rows done again: {errors:,} are still error rows; "
            f"{result.shards_committed:,} of {result.shards:,} label shards replaced"
        )
        for example in result.error_examples:
            out.print(f"             {escape(example)}")
    raise typer.Exit(result.exit_code)


@app.command()
def verify(
    sink: Sink,
    sample: Annotated[int, typer.Option(min=0, help="Label so many rows again, each alone, and compare.")] = 0,
    settings: Settings = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Check every label shard against the plan, the source and itself. Starts no Ray; 1 when a difference is found.

    Examples:
      raysp verify out --sample 20
      raysp verify pipelines/label_digits.py --set sink.url=out
    """
    url, pipeline = _sink(sink, settings)
    import raysp
    from raysp.sink.trust import explain

    if not as_json:
        err.print(f"raysp: reading {escape(url)} ...")
    found = raysp.verify(url, sample=sample, pipeline=pipeline, trust=trust)
    if as_json:
        _print_json({**dataclasses.asdict(found), "exit_code": found.exit_code})
    else:
        for difference in found.differences:
            err.print(f"raysp: {escape(difference)}")
        if found.unused:
            err.print(
                f"raysp: {escape(url)}: only the sink was checked, not its source: {escape(explain(found.unused))}"
            )
        facts = dataclasses.asdict(found)
        del facts["differences"], facts["sink"], facts["unused"]
        if found.sampled:
            facts["sampled_equal"] = f"{found.sampled_equal} ({found.sampled_equal / found.sampled:.1%})"
        _print_facts(found.sink, {**facts, "differences": len(found.differences)})
    raise typer.Exit(found.exit_code)


@app.command()
def gc(
    sink: Sink,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    settings: Settings = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Remove what killed runs left in a sink. Never while a living run is at work there.

    Example: raysp gc out --dry-run
    """
    url, pipeline = _sink(sink, settings)
    import raysp

    found = raysp.gc(url, dry_run=dry_run, pipeline=pipeline, trust=trust)
    if as_json:
        _print_json(dataclasses.asdict(found))
        return
    for orphan in found.orphans:
        out.print(f"{escape(orphan.path)}  {orphan.num_bytes:,} bytes: {escape(orphan.reason)}")
    done = "removed" if found.removed else "to remove"
    out.print(f"{len(found.orphans):,} files, {found.num_bytes:,} bytes {done}")


@app.command()
def status(sink: Sink, settings: Settings = None, trust: Trust = False, as_json: AsJson = False) -> None:
    """Show the progress of a sink. Starts no Ray."""
    url, pipeline = _sink(sink, settings)
    import raysp

    found = raysp.status(url, pipeline=pipeline, trust=trust)
    fields = dataclasses.asdict(found)
    if as_json:
        _print_json(fields)
        return
    _print_facts(f"{found.sink}", _flat(fields))


@app.command()
def inspect(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A model folder, its url, or a hub id.")],
    as_json: AsJson = False,
) -> None:
    """Check a checkpoint and tell what it can give. Loads no weights."""
    from raysp.models.checking import check_checkpoint
    from raysp.planning import locate

    summary = check_checkpoint(locate(checkpoint))
    if as_json:
        _print_json(dataclasses.asdict(summary))
        return
    _print_facts(checkpoint, _facts_of_checkpoint(summary))


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the architectures that checkpoints may have, and what each can be asked for."""
    from raysp.models.registry import DECODERS, MODULES, architectures_of, possible_outputs

    found = {
        model_type: {name: possible_outputs(cls) for name, cls in sorted(architectures_of(model_type).items())}
        for model_type in sorted(MODULES)
    }
    if as_json:
        _print_json({"models": found, "decoders": sorted(DECODERS)})
        return
    width = max(len(name) for architectures in found.values() for name in architectures)
    for model_type, architectures in found.items():
        out.print(f"[bold]{model_type}[/bold]")
        for name, outputs in architectures.items():
            out.print(f"  {name:{width}}  {', '.join(outputs)}")
    out.print(f"Text decoders of speech-encoder-decoder: {', '.join(sorted(DECODERS))}.")


def _facts_of_checkpoint(summary: "CheckpointSummary") -> dict[str, object]:
    rate, parameters = summary.sample_rate, summary.num_parameters
    activations = 4 * summary.activations_per_second / 1e6
    sizes = {
        "float32": (4 * parameters / 1e6, activations),
        "bfloat16, float16": (2 * parameters / 1e6, activations / 2),
    }
    memory = [f"{dtype}: {own:,.1f} MB, {more:,.1f} MB a second of audio" for dtype, (own, more) in sizes.items()]
    return {
        "architecture": f"{summary.architecture} ({summary.model_type})",
        "parameters": f"{parameters:,} in {summary.num_layers} layers, {summary.hidden_size:,} wide",
        "stored": f"{summary.weight_bytes / 1e6:,.1f} MB in {summary.dtype}",
        "memory": "; ".join(memory),
        "rate": f"{rate:,} samples a second, a frame every {1000 * summary.frame_seconds:g} ms, "
        f"at least {1000 * summary.min_samples / rate:g} ms",
        "outputs": summary.outputs,
        "embedding": f"{summary.output_size:,} wide",
        "xvector": summary.xvector_size and f"{summary.xvector_size:,} wide",
        "vocabulary": _vocabulary(summary),
        "classes": f"{len(summary.labels):,}: {_some_of(summary.labels, ', ')}" if summary.labels else None,
        "problem": summary.problem_type,
        "does not fit": _what_does_not_fit(summary),
    }


def _what_does_not_fit(summary: "CheckpointSummary") -> str | None:
    """Return why text cannot be asked for though there is a decoder for it."""
    from raysp.models.checking import check_generation

    try:
        if summary.writes_text:
            check_generation(summary.path, {})
    except CheckpointError as error:
        return str(error)
    return None


def _vocabulary(summary: "CheckpointSummary") -> str | None:
    """Return the number of tokens, and those themselves where they are letters."""
    from raysp.models.processors import Wav2Vec2CTCTokenizer, read_tokenizer

    if summary.vocab_size is None:
        return None
    tokenizer = read_tokenizer(summary.path)
    if not isinstance(tokenizer, Wav2Vec2CTCTokenizer):
        return f"{summary.vocab_size:,} tokens of a {tokenizer.tokenizer_class}"
    return f"{summary.vocab_size:,} tokens: {_some_of([token for _, token in sorted(tokenizer.decoder.items())], ' ')}"


def _some_of(names: Sequence[str], separator: str) -> str:
    rest = " ..." if len(names) > NAMES_SHOWN else ""
    return separator.join(names[:NAMES_SHOWN]) + rest


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine: versions, room, sound library, a local Ray that starts and stops."""
    from raysp.engine.doctor import examine

    findings = examine()
    if as_json:
        _print_json({"findings": [dataclasses.asdict(one) for one in findings]})
    else:
        for one in findings:
            mark = "[green]ok  [/green]" if one.ok else "[red]fail[/red]"
            out.print(f"{mark} {escape(one.what)}: {escape(one.found)}")
            if one.advice:
                out.print(f"     {escape(one.advice)}")
    raise typer.Exit(0 if all(one.ok for one in findings) else FAILED)


def _load(target: str, settings: list[str] | None) -> "Pipeline":
    from raysp.pipeline import load_pipeline, with_overrides

    return with_overrides(load_pipeline(target), settings or [])


def _sink(target: str, settings: list[str] | None) -> tuple[str, "Pipeline | None"]:
    """Return the url of a sink, and the pipeline that made it where its file is given."""
    from raysp.pipeline import is_pipeline_file

    if is_pipeline_file(target):
        pipeline = _load(target, settings)
        return pipeline.sink.url, pipeline
    if settings:
        raise SpecError(f"--set {settings[0]}: goes with a pipeline file, found the sink {target!r}")
    return target, None


def _urls(pipeline: "Pipeline") -> str:
    urls = pipeline.source.urls
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"


def _plan_json(found: "Plan") -> dict[str, object]:
    settings = dataclasses.asdict(found.settings)
    return {
        "fingerprint": found.fingerprint,
        "sink": found.pipeline.sink.url,
        "shards": len(found.corpus.shards),
        "shards_committed": len(found.done),
        "shards_unreadable": dict(found.corpus.unreadable),
        "shards_vanished": list(found.corpus.vanished),
        "files_passed_over": dict(found.corpus.passed_over),
        "rows": found.num_rows,
        "rows_todo": found.rows_todo,
        "pieces_todo": found.pieces_todo,
        "settings": settings,
        "actors": dataclasses.asdict(found.pool_size),
        "parts": dict(found.parts),
    }


def _print_plan(found: "Plan") -> None:
    settings, pool, size = found.settings, found.pipeline.label.pool, found.pool_size
    facts = {
        "source": f"{_urls(found.pipeline)}: {len(found.corpus.shards):,} shards, {found.num_rows:,} rows",
        "checkpoint": f"{found.pipeline.label.checkpoint}: {settings.checkpoint.architecture}, "
        f"{settings.checkpoint.num_parameters:,} parameters, {settings.checkpoint.sample_rate} Hz",
        "model": f"{size}, {pool.cpus} CPU(s) and {settings.gpus_per_actor:g} GPU(s) each, "
        f"{settings.dtype} on {settings.device}, {_batches(found)}",
        "sink": f"{found.pipeline.sink.url}: {len(found.done):,} of {len(found.corpus.shards):,} shards committed",
        "to do": f"{found.rows_todo:,} rows in {found.pieces_todo:,} pieces of {len(found.todo):,} shards",
        "fingerprint": found.fingerprint,
    }
    for name, fact in facts.items():
        out.print(f"{name:12} {escape(fact)}")
    _print_failures(found.corpus.unreadable)
    _print_vanished(found.corpus.vanished)
    _print_notes(found)
    _print_shortage(found)
    _print_batching(found)
    if not found.todo:
        out.print("All is done: a run would label nothing.")


def _batches(found: "Plan") -> str:
    settings = found.settings
    if settings.batching is Batching.ALONE:
        return "one window a pass"
    return f"{settings.batch_seconds:g} padded seconds a pass"


def _print_batching(found: "Plan") -> None:
    settings = found.settings
    if settings.fingerprint_seconds is not None:
        err.print(
            f"raysp: {settings.dtype} on {settings.device}: a label may depend on the rows that share its batch. "
            f"batch_seconds={settings.fingerprint_seconds:g} is part of the fingerprint, and verify --sample expects "
            f"{AGREED_RATE:.0%} of rows to be equal; dtype='float32' gives labels that depend on nothing else"
        )


def _print_pool_size(found: "Plan") -> None:
    if found.todo and found.pool_size.reason:
        err.print(f"raysp: {escape(str(found.pool_size))}")


def _print_shortage(found: "Plan") -> None:
    if found.shortage and found.todo:
        err.print(f"raysp: the pool asks for {escape(found.shortage)}: the run waits until they are up")


def _print_notes(found: "Plan") -> None:
    for note in found.notes:
        err.print(f"raysp: {escape(note)}")


def _print_vanished(names: tuple[str, ...]) -> None:
    for name in names[:SAMPLE_ROWS]:
        err.print(f"raysp: {escape(name)}: its shard is no longer in the source; the labels are kept")


def _print_failures(failures: Mapping[str, str]) -> None:
    for name, reason in list(failures.items())[:20]:
        err.print(f"raysp: not committed: {escape(name)}: {escape(reason)}")
    if len(failures) > 20:
        err.print(f"raysp: and {len(failures) - 20} more shards")


class _Shown:
    """Shows a run while it goes on: one live line on a terminal, else a plain line now and then."""

    def __init__(self, quiet: bool, check: Callable[[], None]) -> None:
        self.quiet = quiet
        self.check = check
        self.status = err.status("starting Ray ...") if err.is_terminal and not quiet else None
        self.last_line = time.monotonic()

    def __enter__(self) -> "_Shown":
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()

    def plan(self, found: "Plan") -> None:
        if self.quiet:
            return
        err.print(
            f"raysp: {found.rows_todo:,} of {found.num_rows:,} rows to do; "
            f"{len(found.done):,} of {len(found.corpus.shards):,} shards are committed already"
        )
        _print_vanished(found.corpus.vanished)
        _print_notes(found)
        _print_pool_size(found)
        _print_shortage(found)
        if self.status and found.todo:
            self.status.start()

    def retry(self, found: "Plan") -> None:
        """Say which rows are done again."""
        if not self.quiet:
            err.print(f"raysp: {found.rows_todo:,} error rows to do again in {len(found.todo):,} label shards")
            _print_pool_size(found)
            _print_shortage(found)
            if self.status and found.todo:
                self.status.start()

    def progress(self, progress: "Progress") -> None:
        self.check()
        if self.quiet:
            return
        if self.status:
            self.status.update(escape(progress_line(progress)))
        elif time.monotonic() - self.last_line >= PLAIN_LINE_SECONDS:
            self.last_line = time.monotonic()
            err.print(f"raysp: {escape(progress_line(progress))}")


def progress_line(progress: "Progress") -> str:
    """Put a run's figures into one line."""
    share = f"{progress.rows / progress.rows_total:.0%}" if progress.rows_total else "100%"
    parts = [
        f"{progress.rows:,}/{progress.rows_total:,} rows ({share})",
        f"{progress.audio_seconds / 3600:.2f} h audio",
        f"RTFx {progress.rtfx:,.0f}",
        f"shards {progress.shards_committed:,}/{progress.shards_total:,}",
    ]
    if progress.eta_seconds is not None:
        parts.append(f"ETA {_duration(progress.eta_seconds)}")
    if progress.padding_efficiency is not None:
        parts.append(f"padding efficiency {progress.padding_efficiency:.0%}")
    if progress.wait_share is not None:
        parts.append(f"model waited {progress.wait_share:.0%}")
    parts.append(f"{progress.num_errors:,} errors")
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _next_command(pipeline: "Pipeline", target: str, settings: list[str] | None) -> str:
    """Return the command that shows the progress: with the pipeline file where a sink cannot be reached without."""
    if not pipeline.sink.storage_options:
        return shlex.join(["raysp", "status", pipeline.sink.url])
    return shlex.join(["raysp", "status", target, *(word for one in settings or () for word in ("--set", one))])


def _print_result(pipeline: "Pipeline", result: "RunResult", next_command: str) -> None:
    from raysp.reading.samples import first_rows

    _print_failures(result.shards_failed)
    if not result.rows and result.shards_before == result.shards:
        out.print(f"All {result.shards:,} shards were committed already: nothing was labelled again.")
    if result.shards_committed:
        table = first_rows(result.sink, SAMPLE_ROWS, pipeline.sink.storage_options)
        if table.num_rows:
            _print_rows(table, f"The first of the labels in {result.sink}")
        else:
            left_out = " (rows that are not ok are left out: rows='ok')" if pipeline.sink.rows == "ok" else ""
            out.print(f"The label shards in {escape(result.sink)} hold no row{left_out}.")
    done = f"{result.shards_committed:,} of {result.shards:,} shards committed"
    before = f", {result.shards_before:,} of them before this run" if result.shards_before else ""
    out.print(f"{'labels':12} {escape(result.sink)}: {done}{before}")
    if result.rows:
        out.print(
            f"{'this run':12} {result.rows:,} rows, {_duration(result.audio_seconds)} of audio in "
            f"{result.wall_seconds:.1f} s: RTFx {result.rtfx:,.1f}, start of Ray and model included"
        )
    if result.padding_efficiency is not None:
        out.print(
            f"{'model':12} padding efficiency {result.padding_efficiency:.1%}, "
            f"waited for input {result.wait_share or 0:.1%} of its time"
        )
    if result.errors:
        out.print(f"{'error rows':12} " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(result.errors.items())))
        for example in result.error_examples:
            out.print(f"             {escape(example)}")
    _print_passed_over(result)
    _print_word_errors(pipeline, result)
    again = "; run the same command again to try the rest" if result.exit_code else ""
    out.print(f"{'next':12} {escape(next_command)}{again}")


def _print_passed_over(result: "RunResult") -> None:
    from raysp.planning.listing import count_files

    if result.passed_over:
        out.print(f"{'source':12} {escape(count_files(result.passed_over, ' passed over'))}")


def _print_word_errors(pipeline: "Pipeline", result: "RunResult") -> None:
    """Print the word error rate of the whole sink, which its receipts have."""
    from raysp.reading.status import status
    from raysp.sink.source_columns import text_columns

    if text_columns(pipeline) is None or not result.shards_committed:
        return
    errors = status(result.sink, pipeline=pipeline).word_errors
    if errors is None:
        return
    unlabelled = f"; {errors.unlabelled:,} rows with a reference are not labelled" if errors.unlabelled else ""
    out.print(
        f"{'word errors':12} {errors.rate:.2%} of {errors.words:,} reference words in {errors.rows:,} labelled "
        f"rows (letter case and punctuation aside){unlabelled}"
    )


def _print_rows(table: "pa.Table", title: str) -> None:
    from raysp.reading.cells import cell

    shown = [name for name in table.column_names if name not in ("row", "error_message")]
    if all(value is None for value in table.column("error_type").to_pylist()):
        shown = [name for name in shown if name not in ("status", "error_type")]
    drawn = Table(title=escape(title), title_justify="left")
    for name in shown:
        drawn.add_column(escape(name), overflow="fold")
    for row in table.select(shown).to_pylist():
        drawn.add_row(*(escape(cell(row[name])) for name in shown))
    out.print(drawn, soft_wrap=False)


def escape(text: str) -> str:
    """Make what strangers wrote (names, ids, texts) harmless: it must neither steer the terminal nor be markup."""
    return escape_markup(printable(text))


def printable(text: str) -> str:
    """Replace what is no visible character."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _print_facts(title: str, facts: Mapping[str, object]) -> None:
    out.print(f"[bold]{escape(title)}[/bold]")
    facts = {name: value for name, value in facts.items() if value not in (None, (), [])}
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        shown = ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else value
        shown = f"{shown:,}" if isinstance(shown, int) and not isinstance(shown, bool) else shown
        out.print(f"  {escape(name):{width}}  {escape(str(shown))}")


def _flat(fields: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat


def _print_json(value: object) -> None:
    # In ASCII, so that no control character of a text reaches a terminal, and any locale can print it.
    print(json.dumps(value, default=str))


@contextmanager
def _told_how_to_go_on(quiet: bool) -> Iterator[Callable[[], None]]:
    """End a run in order at Ctrl-C or SIGTERM and say how to continue; a second one leaves at once.

    Yields a function to call now and then: what a handler raises can be swallowed by foreign code, and is raised again.
    """
    said = f"raysp: stopped; what was committed or staged stays. To go on: {shlex.join(['raysp', *sys.argv[1:]])}"
    asked: list[int] = []

    def stop_run(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) == 1:
            check()

    def check() -> None:
        if asked:
            raise KeyboardInterrupt if asked[0] == signal.SIGINT else _Terminated

    previous = {number: signal.signal(number, stop_run) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _leaving_at_the_second("" if quiet else f"{printable(said)}\n"):
            yield check
    except (KeyboardInterrupt, _Terminated) as stop:
        if not quiet:
            err.print(escape(said))
        raise typer.Exit(INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _leaving_at_the_second(said: str) -> Iterator[None]:
    """Leave at once, as by a kill, at a second Ctrl-C or SIGTERM, whatever is being put in order by then.

    A handler of Python's would wait until the main thread comes back from foreign code, such as a Ray that does not
    answer: so a thread listens to what the system's own handler writes into a pipe.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen() -> None:
        arrived = 0
        while number := os.read(reader, 1):
            arrived += number[0] in (signal.SIGINT, signal.SIGTERM)
            if arrived > 1:
                os.write(2, said.encode(errors="replace"))
                os._exit(INTERRUPTED if number[0] == signal.SIGINT else TERMINATED)
        os.close(reader)

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=listen, name="raysp-signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


class _Terminated(BaseException):
    """SIGTERM arrived."""


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line; every error is one line on stderr, a traceback only with `--debug`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("RAYSP_DEBUG") == "1"
    given = [one for one in given if one != "--debug"]
    try:
        code = _run_app(given)
    except RayspError as error:
        if debug:
            raise
        _fail(str(error), FAILED if isinstance(error, RunError) else REFUSED)
    except KeyboardInterrupt:
        _fail("stopped", INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error} (a bug of raysp? --debug shows where)", FAILED)
    raise SystemExit(code)


def _run_app(given: list[str]) -> int:
    command = cast("Callable[..., object]", typer.main.get_command(app))
    try:
        code = command(given or ["--help"], prog_name="raysp", standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # Wrong usage; whose class that is (click's, or a copy in typer) depends on the release of typer.
        if (words := getattr(error, "format_message", None)) is None:
            raise
        found = str(words())
        raise SpecError(f"{found}{'' if found.endswith(('.', '?')) else '.'} Try `raysp --help`") from None
    return REFUSED if not given else code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> NoReturn:
    one_line = printable(" ".join(message.split()))
    print(f"raysp: {one_line}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
