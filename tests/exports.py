"""Exports by the name of their format, for tests of several formats."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import raysp

FORMATS = {
    "srt": raysp.Srt,
    "vtt": raysp.Vtt,
    "ctm": raysp.Ctm,
    "textgrid": raysp.TextGrid,
    "rttm": raysp.Rttm,
    "jsonl": raysp.Jsonl,
    "csv": raysp.Csv,
    "nemo": raysp.Nemo,
    "dataset": raysp.Dataset,
    "clips": raysp.Clips,
    "utterances": raysp.Utterances,
    "labelstudio": raysp.LabelStudio,
}
"""Formats by their names on the command line."""


def export_to(to: str, sink: object, storage_options: Mapping[str, object] | None = None, **options: object) -> Any:
    """Export a sink to a format, with options of the format and of the verb."""
    names = {field.name for field in dataclasses.fields(FORMATS[to])}
    of_format = {name: value for name, value in options.items() if name in names}
    rest = {name: value for name, value in options.items() if name not in names}
    return raysp.export(str(sink), FORMATS[to](**of_format), storage_options=storage_options, **rest)


def exported(folder: Path) -> dict[str, bytes]:
    """Return the files of an export that readers see, by their paths."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and ".raysp" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
