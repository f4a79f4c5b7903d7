"""The entry point, which runs a verb and converts every error to one line and an exit code."""

import contextlib
import contextvars
import functools
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer
from typer import Option
from typer.core import TyperGroup

from raysp import tracebacks
from raysp.cli.arguments import FAILED, INTERRUPTED, REFUSED, AsJson, Debug, Options
from raysp.cli.console import (
    DEBUG,
    IN_YOUR_CODE,
    JSON,
    MAYBE_A_BUG,
    WORDS,
    Streams,
    results_alone,
    say,
)
from raysp.errors import RayspError, RunError, SpecError

GROUPS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "Label a corpus": (
        "raysp label talks --model facebook/wav2vec2-base-960h --to srt",
        {"label": "folder", "plan": "label", "run": "label", "retry": "label", "status": "sink", "report": "sink"},
    ),
    "Use and check labels": (
        "raysp export labels subtitles --to srt",
        {
            "export": "sink",
            "evaluate": "evaluation",
            "diff": "evaluation",
            "merge": "evaluation",
            "verify": "sink",
            "gc": "sink",
            "forget": "sink",
        },
    ),
    "Train a model": ("raysp finetune recipe.py", {"finetune": "training"}),
    "Work on a Ray cluster": (
        "raysp submit label.py --address http://HEAD:8265",
        {"submit": "job", "jobs": "job", "stop": "job"},
    ),
    "Look at a checkpoint or this machine": (
        "raysp inspect CHECKPOINT",
        {"inspect": "checkpoint", "convert": "checkpoint", "models": "checkpoint", "doctor": "checkpoint"},
    ),
}
"""Groups of the help text: an example, and the verbs, each with its module, `<name>_verbs`, imported when needed."""
VERBS = {verb: module for _, verbs in GROUPS.values() for verb, module in verbs.items()}


class Grouped(TyperGroup):
    """The command line, whose help shows the verbs in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - click's, or a copy in typer
        """Write the groups of verbs, each with its example."""
        width = max(map(len, self.commands))
        for title, (example, verbs) in GROUPS.items():
            with formatter.section(f"{title}, as in `{example}`"):
                shown = [(verb, self.commands[verb]) for verb in verbs if verb in self.commands]
                formatter.write_dl(
                    [(verb.ljust(width), command.get_short_help_str(formatter.width)) for verb, command in shown]
                )


def _print_version(value: bool) -> None:
    if value:
        from raysp import __version__

        print(f"raysp {__version__}")
        raise typer.Exit


def _command(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb with the options that all verbs have, and the fields of `Options` in place of these."""
    groups: dict[str, type[Options]] = {}
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(verb).parameters.items():
        if isinstance(kind := parameter.annotation, type) and issubclass(kind, Options):
            groups[name] = kind
            parameters |= inspect.signature(kind).parameters
        else:
            parameters[name] = parameter
    parameters |= inspect.signature(_of_all_verbs).parameters

    @functools.wraps(verb)
    def command(*, as_json: bool, debug: bool, **options: object) -> None:
        for name, kind in groups.items():
            options[name] = kind(**{field: options.pop(field) for field in inspect.signature(kind).parameters})
        JSON.set(as_json)
        verb(**options)

    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters.values()]
    cast("Any", command).__signature__ = inspect.Signature(keywords)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    return command


def _of_all_verbs(as_json: AsJson = False, debug: Debug = False) -> None:
    """Declare the options that all verbs have."""


def application(verbs: Iterable[str] = VERBS) -> typer.Typer:
    """Return the command line with some of its verbs, whose modules are imported."""
    app = typer.Typer(
        cls=Grouped,
        help="Label very large speech corpora offline on Ray.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_raysp)
    for name in verbs:
        verb = getattr(import_module(f".{VERBS[name]}_verbs", __package__), name)
        # The mark keeps the line breaks of examples.
        shown = re.sub(r"^Examples?:$", "\b\n\\g<0>", inspect.getdoc(verb) or "", flags=re.MULTILINE)
        app.command(help=shown)(_command(verb))
    return app


def _raysp(
    version: Annotated[
        bool, Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Debug = False,
) -> None:
    """Label very large speech corpora offline on Ray."""


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line. Errors are printed as one line on stderr, with a traceback only under `--debug`.

    Output that cannot be written changes no exit code, but for JSON: it is the result that a program waits for.
    """
    contextvars.copy_context().run(_main, list(sys.argv[1:] if arguments is None else arguments))


def _main(words: list[str]) -> NoReturn:
    """Run the command of these words, with settings in the current context."""
    streams = Streams()
    # Waiting threads of a model in this process, as of a try-out, sleep instead of spinning, as in workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Ray prints on stdout that workers were lost, which the run reports itself. Ray reads the setting at its import.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    DEBUG.set("--debug" in words or os.environ.get("RAYSP_DEBUG") == "1")
    WORDS.set(tuple(words))
    is_json = "--json" in words and "--help" not in words
    try:
        _check_working_directory()
        with _tracebacks_shown(), results_alone(on_stdout=is_json):
            code = _run_app(words)
    except RayspError as error:
        _fail(str(error), FAILED if isinstance(error, RunError) else REFUSED, error)
    except KeyboardInterrupt:
        _fail("stopped", INTERRUPTED)
    except Exception as error:
        advice = IN_YOUR_CODE if tracebacks.is_of_users_code(error) else MAYBE_A_BUG
        _fail(f"{tracebacks.described(error)} ({advice})", FAILED, error)
    if code == 0 and "--json" in words and (reason := streams.failure()):
        _fail(f"stdout: the JSON object of --json cannot be written ({reason}); the work itself is done", FAILED)
    raise SystemExit(code)


class _OnStderr(logging.Handler):
    """Handler that prints on the current stderr, which a live line redirects."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        print(record.getMessage(), file=sys.stderr)


@contextlib.contextmanager
def _tracebacks_shown() -> Iterator[None]:
    """Print the tracebacks of errors that end in error rows or failed shards, under `--debug`."""
    if not DEBUG.get():
        yield
        return
    logger, handler = tracebacks.logger, _OnStderr()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise SpecError(
            f"the working directory is gone or cannot be read ({error.strerror}); change to a folder that is there, "
            "with cd, and run the command again"
        ) from None


def _run_app(arguments: list[str]) -> int:
    verb = next((argument for argument in arguments if argument != "--debug"), "")
    app = application([verb] if verb in VERBS else VERBS)
    command = cast("Callable[..., object]", typer.main.get_command(app))
    try:
        code = command(arguments or ["--help"], prog_name="raysp", standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # A usage error; its class (click's, or a copy in typer) depends on the release of typer.
        if (words := getattr(error, "format_message", None)) is None:
            raise
        message = str(words())
        of_verb = f"{verb} " if verb in VERBS else ""
        raise SpecError(f"{message}{'' if message.endswith(('.', '?')) else '.'} Try `raysp {of_verb}--help`") from None
    return REFUSED if not arguments else code if isinstance(code, int) else 0


def _fail(message: str, code: int, error: Exception | None = None) -> NoReturn:
    """Exit with a message on one line, or under `--debug` with the traceback of an error."""
    if error is not None and DEBUG.get():
        with contextlib.suppress(OSError, ValueError):  # stderr is full or closed
            traceback.print_exception(error)
    else:
        say(" ".join(message.split()))
    raise SystemExit(code)
