"""Text for messages: recurring advice, numbers with nouns, sizes, durations, printable text, short representations."""

import dataclasses
import difflib
import functools
import html
import re
import reprlib
import shlex
import signal
import textwrap
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LINE_CHARACTERS = 118
"""Maximum characters of a field in a short representation."""
URL_PASSWORD = re.compile(r"(//[^/@:]*):(?!\d*/)[^@\s]*@")
"""Name and password in a url, up to its host. The first group ends before the password."""


def run_again(reason: str) -> str:
    """Return the reason why a run stopped with the advice to run again, unless it has that."""
    return reason if "run again" in reason else f"{reason}. Run again: committed labels are kept"


def suggestion(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return " (did you mean ...?)" if a known name is similar to an unknown one, else ""."""
    return _suggestion(name, tuple(names), cutoff)


@functools.lru_cache(maxsize=1024)  # of fields of a checkpoint, which is read several times
def _suggestion(name: str, names: tuple[str, ...], cutoff: float) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""


def label_again(shard: str) -> str:
    """Return the command that labels a whole shard again; the command line fills in its pipeline."""
    return shlex.join(["raysp", "retry", "PIPELINE", "--shard", shard])


def restore(shard: str = "NAME") -> str:
    """Return the advice where input changed after it was planned."""
    return f"Restore the original file, or label the shard again with `{label_again(shard)}`"


RESTORE = restore()


def count(number: float, noun: str) -> str:
    """Return a number with its noun, plural unless the number is 1: "1 shard", "2,000 shards"."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a regular noun. For several words, the last one is changed."""
    if noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch"):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"


def megabytes(num_bytes: float) -> str:
    """Return a number of bytes as text: "1.2 MB" (10^6 bytes), and below that "120.4 kB" (10^3 bytes)."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 or not num_bytes else f"{num_bytes / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    """Return seconds as "1:02:03", or as "2:03" below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def times_real_time(rtfx: float) -> str:
    """Return seconds of audio per second as text: "1,234", and below ten with a decimal, "0.4"."""
    return f"{rtfx:,.{0 if rtfx >= 10 else 1}f}"


def ending(code: int) -> str:
    """Return the end of a process by its exit code: "exit code 1", "signal SIGKILL"."""
    try:
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:  # one of the real-time signals
        return f"signal {-code}"


def ago(when: float) -> str:
    """Return the age of a time in seconds since the epoch as text, such as "5 min ago"."""
    return f"{duration(max(0.0, time.time() - when))} ago"


def listed(facts: Collection[str], most: int) -> str | None:
    """Return the first facts and the number of further ones; None without facts."""
    more = [f"and {len(facts) - most:,} more"] if len(facts) > most else []
    return ", ".join([*list(facts)[:most], *more]) or None


def without_password(text: str) -> str:
    """Replace the password of each url in a text, such as an address, by asterisks."""
    return URL_PASSWORD.sub(r"\1:***@", text)


def printable(text: str) -> str:
    """Replace non-printable characters, such as terminal escape codes."""
    return "".join(c if c.isprintable() else "�" for c in text)


def folded(text: str, width: int | None, indent: int = 2) -> str:
    """Break a line between words so that each part fits. A word that is too long is not split.

    Args:
        text: a line. It is broken at single spaces only.
        width: cells of a terminal; None leaves the line unchanged.
        indent: spaces before each part except the first.
    """
    from rich.cells import cell_len

    if width is None:
        return text
    first, *words = re.split(r"(?<=\S) (?=\S)", text)
    lines = [first]
    for word in words:
        if cell_len(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(" " * indent + word)
    return "\n".join(lines)


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 80
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 4

    def repr_instance(self, x: object, level: int) -> str:
        words = " ".join(repr(x).split())
        return words if len(words) <= self.maxother else f"{words[: self.maxother - 4]} ..."

    def repr_float(self, x: float, level: int) -> str:
        return f"{x:.6g}"

    def repr_mappingproxy(self, x: Mapping[object, object], level: int) -> str:
        return self.repr_dict(dict(x), level)


class Brief:
    """Base of results, shown by their facts if they have some, and otherwise by their fields, truncated."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def all_facts(self) -> Mapping[str, str]:
        """Facts of the result that are not empty, after the place of its sink; empty if it has none."""
        facts = {name: str(fact) for name, fact in dict(getattr(self, "facts", ())).items() if fact}
        sink = getattr(self, "sink", None)
        is_named = any(str(sink) in fact for fact in facts.values())
        return {"sink": sink, **facts} if facts and isinstance(sink, str) and not is_named else facts

    def __repr__(self) -> str:
        """Return a text that fits on a screen: the facts as `raysp` prints them, or the fields."""
        title = type(self).__name__
        if facts := self.all_facts:
            return "\n".join([title, *_folded(facts)])
        lines = [_cut(f"    {name}={value}") for name, value in _fields(self).items()]
        return "\n".join([f"{title}(", *(f"{line}," for line in lines), ")"])

    def _repr_html_(self) -> str:
        """Return the facts or fields as a table for notebooks."""
        return html_table(type(self).__name__, self.all_facts or _fields(self))


def html_table(title: str, facts: Mapping[str, str]) -> str:
    """Return facts by name as a table with a title, in HTML."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(printable(fact))}</td></tr>'
        for name, fact in facts.items()
    )
    return f'<table><caption style="text-align:left">{html.escape(title)}</caption><tbody>{rows}</tbody></table>'


def _folded(facts: Mapping[str, str]) -> list[str]:
    """Return one line per fact, with further lines below the text of the first."""
    width = max(map(len, facts))
    below = " " * (width + 4)
    return [  # words without an end are broken, which `folded` leaves whole
        textwrap.fill(printable(fact), LINE_CHARACTERS, initial_indent=f"  {name:{width}}  ", subsequent_indent=below)
        for name, fact in facts.items()
    ]


def _fields(value: "DataclassInstance") -> dict[str, str]:
    shown = _Brief()
    fields = dataclasses.fields(value)
    return {field.name: shown.repr(getattr(value, field.name)) for field in fields if field.repr}


def _cut(line: str) -> str:
    return line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 4]} ..."
