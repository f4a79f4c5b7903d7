"""Formats of exports: each is a frozen spec in a file of its own, whose fields are its options."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from raysp.errors import SpecError
from raysp.specs.values import from_json
from raysp.verbs.export.shard_export import Writer
from raysp.verbs.export.source_audio import Source

CLASSES = (
    "Srt",
    "Vtt",
    "Ctm",
    "TextGrid",
    "Rttm",
    "Jsonl",
    "Csv",
    "Nemo",
    "Dataset",
    "Clips",
    "Utterances",
    "LabelStudio",
)
"""Public names of the formats of raysp."""
FORMATS: Mapping[str, str] = {name.lower(): name for name in CLASSES}
"""Their public names by the names of the command line."""


@runtime_checkable
class Format(Protocol):
    """A format: a spec whose fields are its options."""

    NAME: ClassVar[str]
    """Name in messages and in the record of the export."""

    def writing(self, source: Source) -> Writer:
        """Return the export of a sink's labels to the format.

        Raises:
            PlanError, TrustError: the sink lacks what the format needs.
        """
        ...


def format_of(to: str | Format) -> Format:
    """Return a format; a name or `module:Class` stands for its default options.

    Raises:
        SpecError: there is no such format, or `to` is something else.
    """
    if isinstance(to, str) and to not in FORMATS and ":" not in to:
        raise SpecError(f"export: found the format {to!r}; expected one of {', '.join(FORMATS)}, or module:Class")
    spec = from_json({"type": FORMATS.get(to, to)}) if isinstance(to, str) else to
    # A class has the attributes of its specs.
    if isinstance(spec, type) or not isinstance(spec, Format):
        raise SpecError(f"export: found to={to!r}, expected a format such as raysp.Srt() or its name")
    return spec
