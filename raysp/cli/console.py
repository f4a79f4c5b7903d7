"""Printing: standard streams that may fail, two consoles, escaped untrusted text, facts and JSON."""

import contextlib
import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

import typer
from rich.console import Console
from rich.markup import escape as escape_markup

from raysp.errors import RayspError
from raysp.words import count, folded, printable

if TYPE_CHECKING:
    from typing_extensions import Buffer

MOST_LINES = 20
"""Lines of a list that is the main output of a command, such as differences."""

FEW_LINES = 5
"""Lines of a secondary list, such as failed shards: together with the summary they fit on a screen."""

NAME_WIDTH = 12
"""Width in characters of the names of facts in a summary."""

DEBUG: ContextVar[bool] = ContextVar("debug", default=False)
"""Whether errors are shown with their tracebacks."""

WORDS: ContextVar[tuple[str, ...]] = ContextVar("words", default=())
"""Arguments of this command."""

JSON: ContextVar[bool] = ContextVar("json", default=False)
"""Whether the result of a command is one JSON object on stdout, and messages about its progress are left out."""

PLACEHOLDERS: ContextVar[Mapping[str, str]] = ContextVar("placeholders", default=MappingProxyType({}))
"""Commands in messages such as `raysp retry PIPELINE`, each with the one to print: with the file of this command."""

MAYBE_A_BUG = "possibly a bug in raysp; rerun with --debug"
IN_YOUR_CODE = "raised by your code; --debug shows the traceback"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, soft_wrap=True, highlight=False, emoji=False)
    if console.width < 1:  # COLUMNS=0, as some terminals without a size have it: nothing would be printed
        console.width = DEFAULT_WIDTH
    return console


DEFAULT_WIDTH = 80
"""Width in characters of a terminal of unknown width."""
out = _console(stderr=False)
err = _console(stderr=True)


def escape(text: str) -> str:
    """Return untrusted text (names, ids, texts) without terminal control characters and with markup escaped."""
    return escape_markup(printable(text))


def say(message: str) -> None:
    """Print a message on stderr; on a terminal, lines break between words. An error of the display is ignored."""
    try:
        print_folded(err, f"raysp: {message}", 2)
    except Exception:
        if DEBUG.get():
            raise
        with contextlib.suppress(Exception):
            print(f"raysp: {message.encode('ascii', 'backslashreplace').decode()}", file=sys.stderr)


def is_json() -> bool:
    """Return whether the result of this command is JSON."""
    return JSON.get()


def announce(message: str) -> None:
    """Print on stderr that a command begins some work, unless its result is JSON."""
    if not is_json():
        say(message)


def print_fact(name: str, fact: str) -> None:
    """Print a name and a fact on one line; on a terminal, lines break between words and indent to the fact."""
    print_folded(out, f"{name:{NAME_WIDTH}} {fact}", NAME_WIDTH + 1)


def print_each(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and facts, as `print_fact`."""
    for name, fact in facts:
        print_fact(name, fact)


def print_command(name: str, command: str) -> None:
    """Print a name and a command on one unbroken line, so that it can be copied."""
    out.print(f"{name:{NAME_WIDTH}} {printable(command)}", markup=False)


def print_folded(console: Console, line: str, indent: int) -> None:
    """Print a line, with its `PLACEHOLDERS` filled in; on a terminal, lines break between words."""
    for words, command in PLACEHOLDERS.get().items():
        line = line.replace(words, command)
    width = console.width if console.is_terminal else None
    console.print(folded(printable(line), width, indent), markup=False)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print a title, and below it one line per name and value, without empty values."""
    first, *lines = fact_lines(title, facts)
    out.print(f"[bold]{escape(first)}[/bold]")
    for line in lines:
        out.print(line, markup=False)


def fact_lines(title: str, facts: Mapping[str, object]) -> list[str]:
    """Return the lines of `print_facts`, folded to the width of a terminal."""
    facts = {name: value for name, value in facts.items() if value not in (None, (), [])}
    width = max(len(name) for name in facts) + 3
    lines = [printable(title)]
    for name, value in facts.items():
        shown = ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else value
        shown = f"{shown:,}" if isinstance(shown, int) and not isinstance(shown, bool) else shown
        line = printable(f"{f'  {name}':{width}} {shown}")
        lines += folded(line, out.width if out.is_terminal else None, width + 1).split("\n")
    return lines


def print_some(console: Console, lines: Sequence[str], noun: str, most: int = MOST_LINES) -> None:
    """Print the first lines and the number of the rest."""
    for line in lines[:most]:
        print_folded(console, line, 2)
    print_rest(console, len(lines) - most, noun)


def print_rest(console: Console, number: int, noun: str) -> None:
    """Print the number of things that are not shown, if there are any."""
    if number > 0:
        print_folded(console, f"... and {count(number, f'more {noun}')}; --json lists all", 2)


def flat(fields: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested fields by their dotted names, without values of None."""
    flattened: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flattened |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            flattened[f"{prefix}{name}"] = value
    return flattened


_results: ContextVar[TextIO | None] = ContextVar("results", default=None)
"""Stream of results of programs; None: stdout."""


@contextlib.contextmanager
def results_alone(*, on_stdout: bool) -> Iterator[None]:
    """Print JSON alone on stdout within the `with` block: output of a user's code and its libraries goes to stderr.

    Args:
        on_stdout: whether the results are JSON.
    """
    if not on_stdout:
        yield
        return
    stdout = sys.stdout
    # The stream that `Streams` made writes to a duplicate, so that descriptor 1 is free for the output of others.
    is_own = isinstance(getattr(getattr(stdout, "buffer", None), "raw", None), _Tolerant)
    _results.set(stdout)
    try:
        if is_own:
            os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if is_own:
            os.dup2(stdout.fileno(), 1)


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    from raysp.text.formats.safe_values import plain

    # In ASCII: no control character reaches the terminal, and any locale can print it.
    print(json.dumps(plain(value), allow_nan=False), file=_results.get() or sys.stdout)


@contextlib.contextmanager
def printing(prefix: str = "this cannot be shown, and the work goes on") -> Iterator[None]:
    """Print something during or after work: an error of printing is reported on stderr, and does not end the work.

    Args:
        prefix: the words before the error.

    Raises:
        Exception: under `--debug`, the error of printing.
    """
    try:
        yield
    except Exception as error:
        if DEBUG.get():
            raise
        reason = str(error) if isinstance(error, RayspError) else f"{type(error).__name__}: {error} ({MAYBE_A_BUG})"
        say(" ".join(f"{prefix}: {reason}".split()))


def finish(printed: Callable[[], object], code: int) -> NoReturn:
    """Print the result of finished work, and exit with its code: no failure of printing changes it.

    Raises:
        typer.Exit: always, with the code; under `--debug` the error of printing.
    """
    with printing("the work is done, but its result cannot be shown"):
        printed()
    raise typer.Exit(code)


def show(result: object, printed: Callable[[], object], code: int = 0, **more: object) -> NoReturn:
    """Show the result of finished work as JSON or in words, and exit with its code, as `finish`.

    Args:
        result: a dataclass or a mapping, which is the JSON object, or a function that returns the mapping.
        printed: prints the result in words.
        code: exit code.
        more: further fields of the JSON object.
    """

    def shown() -> None:
        if is_json():
            value = result() if callable(result) else result
            print_json({**(value if isinstance(value, Mapping) else dataclasses.asdict(cast("Any", value))), **more})
        else:
            printed()

    finish(shown, code)


class _Tolerant(io.FileIO):
    """A stream that drops output that cannot be written, and keeps the first error."""

    failure: str | None = None

    def write(self, data: "Buffer") -> int:
        """Write bytes. Returns the number of given bytes if they cannot be written, as on a full disk."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error.strerror or type(error).__name__
            return memoryview(data).nbytes


class Streams:
    """The standard streams of a command.

    Streams that a program has replaced, as tests and notebooks do, are left alone.
    """

    def __init__(self) -> None:
        closed = []
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:  # the next file that is opened would take its number, and its output
                closed.append(number)
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        self._out = _replaced("stdout", 1)
        _replaced("stderr", 2)
        if self._out and 1 in closed:
            self._out.failure = "it is closed"

    def failure(self) -> str | None:
        """Reason why some of stdout could not be written; None if all of it was."""
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        return self._out.failure if self._out else None


def _replaced(name: str, number: int) -> _Tolerant | None:
    """Replace a stream of the interpreter by a tolerant one; None if a program has replaced it before."""
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__"):
        return None
    if stream is not None:
        stream.flush()
    raw = _Tolerant(os.dup(1) if number == 1 else number, "w", closefd=False)
    # Characters that the encoding of a locale lacks are escaped, where Python would raise an error.
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
    )
    setattr(sys, name, text)
    return raw
