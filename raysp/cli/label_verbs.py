"""The verbs that label: plan, run, retry."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

from typer import Option

from raysp.cli.arguments import (
    EngineOptions,
    FirstRows,
    PipelineFile,
    PlannedFile,
    Settings,
    SinkOptions,
    command_line,
    load,
    on_cluster,
)
from raysp.cli.console import (
    announce,
    err,
    is_json,
    print_command,
    print_fact,
    printing,
    show,
)
from raysp.cli.printed_runs import (
    first_of,
    print_examples,
    print_failures,
    print_nothing_labelled,
    print_part,
    print_result,
    print_try_out,
    show_indexed,
)
from raysp.cli.stop_signals import shown_on, stoppable_display
from raysp.cluster.addresses import check_submitted_version
from raysp.errors import SpecError, refuse_unused
from raysp.labelling.engine.display import Display
from raysp.words import count

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.labelling.engine.run_result import RunResult
    from raysp.specs.pipeline import Pipeline

SAMPLE_ROWS = 256


def plan(
    file: PlannedFile,
    settings: Settings = None,
    sample: Annotated[
        int | None, Option(min=0, metavar="N", help=f"Rows to read ({SAMPLE_ROWS}); 0: no estimates.")
    ] = None,
    rtfx: Annotated[
        float | None, Option(metavar="N", help="Seconds of audio per second of one actor, or of one worker.")
    ] = None,
    like: Annotated[
        str | None, Option(metavar="OUT", help="Take the speed of the runs over this sink, of the same checkpoint.")
    ] = None,
    calibrate: Annotated[
        bool, Option("--calibrate", help="Measure speed and memory on some rows or micro-batches; keep nothing.")
    ] = False,
    price: Annotated[
        float | None, Option(metavar="PER_HOUR", help="Price of an hour of a GPU, or else of a CPU.")
    ] = None,
) -> None:
    """Show what a run or a training would do. Starts no Ray and writes nothing.

    Exits with 3 if no shard can be read.

    Hours, time and cost of a run are estimated from a sample of rows; balance of workers, size of commits, memory, time
    and cost of a training from its index.

    Examples:
      raysp plan pipelines/label_digits.py --set sink.url=out
      raysp plan pipelines/label_digits.py --calibrate --price 0.05
      raysp plan pipelines/finetune_ctc.py --calibrate
    """
    from raysp.work import EstimateOptions, kind_of_work, load_work

    loaded = load(file, settings, load_work)
    if loaded.labelled_by is None and sample is not None:
        raise SpecError(
            f"--sample: the rows of a training are indexed, not sampled, found the {loaded.NOUN} {file}; leave it out"
        )
    options = EstimateOptions(sample, rtfx=rtfx, like=like, calibrate=calibrate, price=price)
    if sample == 0:
        refuse_unused(options.speed_options, "--sample 0 makes no estimate; leave out one of them")
    announce(f"looking at {first_of(loaded.source.urls)} ...")
    fields: dict[str, object] = {}
    code = 0
    with Display(err, is_quiet=is_json()) as display:
        for part in kind_of_work(loaded).plan_parts(loaded, options, partial(show_indexed, display)):
            display.stop()
            fields |= part.json
            code = max(code, part.exit_code)
            if not is_json():
                with printing():
                    print_part(part)
    show(fields, lambda: None, code)


def run(pipeline: PipelineFile, settings: Settings = None, rows: FirstRows = None, *, on: EngineOptions) -> None:
    """Label a corpus. The same command again continues where it stopped.

    Examples:
      raysp run pipelines/label_digits.py --rows 10
      raysp run pipelines/label_digits.py --set sink.url=out
      raysp run pipelines/label_digits.py --set sink.url=out --engine here
    """
    from raysp.specs.work_files import load_pipeline

    check_submitted_version()
    loaded = on_cluster(load(pipeline, settings, load_pipeline), on.engine, on.address)
    announce(f"looking at {first_of(loaded.source.urls)} ...")
    result = run_on_display(loaded, rows, on)
    if rows is not None:
        show_try_out(result, command_line("run", pipeline, settings))
    show(result.json, lambda: print_result(loaded, result, pipeline, settings), result.exit_code)


def run_on_display(pipeline: "Pipeline", rows: int | None, on: EngineOptions) -> "RunResult":
    """Run a pipeline, or label its first rows, with a display that Ctrl-C and SIGTERM stop."""
    with stoppable_display(is_kept=rows is None) as display:
        from raysp.labelling.engine.running import run as run_pipeline

        shown = shown_on(display)
        if rows is not None:
            shown = {"on_progress": lambda _: display.check(), "progress": False}
        return run_pipeline(pipeline, rows=rows, **on.named, **shown)


def show_try_out(result: "RunResult", next_command: str) -> NoReturn:
    """Show the first rows of a corpus with their labels, and exit with the code of the run."""
    from raysp.labelling.finished.first_rows import readable

    table = cast("pa.Table", result.table)
    show(
        lambda: {**result.json, "table": readable(table).to_pylist()},
        lambda: print_try_out(result, readable(table), next_command),
        result.exit_code,
    )


def retry(
    sink: SinkOptions,
    shards: Annotated[
        list[str] | None,
        Option("--shard", metavar="NAME", help="Label this shard again whole, as it is now. Repeatable."),
    ] = None,
    *,
    on: EngineOptions,
) -> None:
    """Label the error rows of a sink again, or whole shards. The other rows stay as they are.

    Needs the pipeline file, or --trust. In the file, --set can change source.audio_root, storage
    options, the pool and max_error_rate. NAME may be a pattern such as '2026/*.parquet'.

    Examples:
      raysp retry pipelines/label_digits.py --set sink.url=out
      raysp retry label.py --shard digits-1.parquet
      raysp retry label.py --set source.audio_root=/data/clips
      raysp retry out --trust
    """
    from raysp.labelling.engine.running import retry as retry_rows

    url, access = sink.url, sink.access
    with stoppable_display() as display:
        result = retry_rows(url, shards=shards or (), **access, **on.named, **shown_on(display))

    def printed() -> None:
        print_failures(result.shards_failed)
        errors, failed = sum(result.errors.values()), "failed" if shards else "failed again"
        replaced, unchanged = result.shards_committed - result.shards_unchanged, result.shards_unchanged
        print_fact(
            "rows" if shards else "error rows",
            f"{result.rows:,} labelled again, {errors:,} {failed}; "
            f"{replaced:,} of {count(result.shards, 'label shard')} replaced"
            + (f", {unchanged:,} left as before: no row changed" if unchanged else ""),
        )
        print_examples(result)
        print_command("next", command_line("status", sink.sink, sink.settings, sink.storage_options))
        print_nothing_labelled(result)

    show(result.json, printed, result.exit_code)
