"""Formats of exports: each is a frozen spec in a file of its own, whose fields are its options."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from raysp.corpus.shards import Shard
from raysp.errors import SpecError
from raysp.specs.values import from_json
from raysp.verbs.export.destination import Destination, ShardFiles, Tally
from raysp.verbs.export.naming import Named
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


class Finishing(Protocol):
    """What the writers of all formats have."""

    @property
    def named(self) -> Named | None:
        """Names of the files of rows; None in formats without such files."""
        ...

    def finish(self, destination: Destination, total: Tally) -> int:
        """Write the files of the whole export, and return the change of the number of files."""
        ...


class Writing(Finishing, Protocol):
    """Export of label shards to one format."""

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the files of a label shard."""
        ...


@runtime_checkable
class Packing(Finishing, Protocol):
    """Export to a format whose files may hold the rows of several neighbouring label shards."""

    @property
    def shard_bytes(self) -> int | None:
        """Bytes of a file, up to which small neighbours are written together; None: each by itself."""
        ...

    def expected_bytes(self, shard: Shard) -> float:
        """Return the bytes that the rows of a label shard probably take, from the plan alone."""
        ...

    def pack(self, shards: Sequence[Shard], files: ShardFiles) -> None:
        """Write the files of neighbouring label shards."""
        ...


@runtime_checkable
class Format(Protocol):
    """A format: a spec whose fields are its options."""

    NAME: ClassVar[str]
    """Name in messages and in the record of the export."""

    def writing(self, source: Source) -> Writing | Packing:
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
