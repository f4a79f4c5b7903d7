"""The verb that trains, and the printed form of its plan and result."""

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated

from typer import Option

from raysp.cli.arguments import AGAIN, Engine, RecipeFile, Settings, command_line, on_cluster
from raysp.cli.console import announce, err, is_json, print_command, print_each, print_fact, print_some, printing, show
from raysp.cli.printed_runs import first_of, print_failures, show_done, show_indexed
from raysp.cli.stop_signals import stopping_after_a_step
from raysp.cluster.addresses import check_submitted_version, is_submitted
from raysp.errors import SpecError, refuse_unused
from raysp.labelling.engine.display import Display

if TYPE_CHECKING:
    from raysp.training.finetune_result import FinetuneResult
    from raysp.training.preparing import Prepared
    from raysp.training.training_progress import TrainingProgress


def finetune(
    recipe: RecipeFile,
    settings: Settings = None,
    steps: Annotated[
        int | None, Option(min=1, metavar="N", help="Try out N steps, and print texts of a few rows; nothing is kept.")
    ] = None,
    restart: Annotated[
        bool, Option("--restart", help="Remove what earlier trainings left in the sink, if any, and start over.")
    ] = False,
    engine: Engine = "auto",
    address: Annotated[
        str | None, Option(metavar="ADDRESS", help="Ray cluster; local: this machine, on a Ray if workers are several.")
    ] = None,
) -> None:
    """Train a model by a recipe. The same command again continues from the last committed step.

    Examples:
      raysp finetune pipelines/finetune_ctc.py --steps 20
      raysp finetune pipelines/finetune_ctc.py --set sink.url=model
      raysp finetune pipelines/finetune_ctc.py --address ray-head:6379
    """
    from raysp.specs.work_files import with_overrides
    from raysp.training.finetuning import finetune as train
    from raysp.training.finetuning import try_out
    from raysp.training.specs.recipe import load_recipe
    from raysp.training.training_progress import evaluation_lines, training_line

    check_submitted_version()
    if steps is not None and address is not None:
        raise SpecError("--steps and --address: a try-out runs on this machine; leave --address out")
    if steps is not None and engine == "ray":
        raise SpecError("--steps and --engine ray: a try-out trains in this process; leave --engine out")
    if steps is not None:
        refuse_unused({"--restart": restart}, "a try-out of --steps removes nothing; leave out one of them")
    loaded = on_cluster(with_overrides(load_recipe(recipe), settings or []), engine, address)
    announce(f"looking at {first_of(loaded.source.urls)} ...")
    with stopping_after_a_step() as stop, Display(err, is_quiet=is_json()) as display:

        def planned(prepared: "Prepared") -> None:
            display.stop()
            if not is_json():
                with printing():
                    print_each(prepared.facts.items())
                    print_failures(prepared.unreadable)
            show_done(display, "loading the model ...")

        def went_on(progress: "TrainingProgress") -> None:
            for line in evaluation_lines(progress.last[-1]):
                display.say(line)
            display.show(lambda: training_line(progress))

        run = (
            partial(train, loaded, restart=restart, engine=engine, address=address)
            if steps is None
            else partial(try_out, loaded, steps)
        )
        indexed = partial(show_indexed, display)
        result = run(on_indexed=indexed, on_plan=planned, on_progress=went_on, should_stop=stop)
    again = command_line("finetune", recipe, settings, address=address)

    def printed() -> None:
        after = again if steps is not None else shlex.join(["raysp", "inspect", result.sink])
        _print_result(result, again, after, is_try_out=steps is not None)

    show(result, printed, stop.exit_code if stop() and not result.is_done else result.exit_code)


def _print_result(result: "FinetuneResult", again: str, after: str, *, is_try_out: bool) -> None:
    from raysp.sink.layout import REPORT
    from raysp.storage.store import join_url

    print_failures(result.shards_failed)
    if result.errors:
        print_fact("error rows", result.error_kinds + ("" if is_try_out else f", listed in {result.error_lists}"))
        print_some(err, [f"raysp: {example}" for example in result.error_examples], "error")
    print_each(result.facts)
    if is_try_out:
        print_command("next", after)
    elif result.is_done:
        print_fact("checkpoint", result.sink)
        print_fact("report", join_url(result.sink, REPORT))
        print_command("next", after)
    elif is_submitted():
        print_fact("to continue", AGAIN)
    else:
        print_command("to continue", again)
