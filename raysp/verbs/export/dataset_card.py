"""Card of an exported data set: README.md with the metadata that `datasets` and the Hugging Face hub read."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Protocol, cast

import pyarrow as pa
from pydantic import Field

from raysp.labelling.finished.finished_labels import Labelling
from raysp.sink.run_record import installed_version
from raysp.specs.values import to_json
from raysp.text.formats.safe_values import on_one_line, place_name
from raysp.verbs.export.destination import Destination, Tally, by_reason
from raysp.words import count, duration

Split = Annotated[str, Field(pattern=r"^[^\W\d]\w*$")]
"""Name of a split: letters, digits and _."""
Shares = Annotated[Mapping[Split, Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
"""Shares of splits, by their names."""
CARD = "README.md"
AUDIO_COLUMN = "audio"
NO_LICENCE = "unknown"
"""Licence in the metadata if `licence` is not set."""


class Described(Protocol):
    """A format whose export has a card."""

    NAME: ClassVar[str]

    @property
    def split(self) -> str | Mapping[str, float]:
        """Name of the split, or shares of several."""

    @property
    def licence(self) -> str | None:
        """Licence, as the Hugging Face hub names it."""


def write_card(
    destination: Destination, labelling: Labelling, to: Described, schema: pa.Schema, total: Tally, *, has_audio: bool
) -> int:
    """Write the card of an export, and return the number of files, 1.

    Args:
        destination: folder of the export.
        labelling: the sink.
        to: the format.
        schema: columns of the exported files.
        total: counts of the exported label shards.
        has_audio: whether the column `audio` holds recordings.
    """
    rows, num_bytes = total.clips if to.NAME == "clips" else total.rows, total.num_bytes
    splits = {to.split: ("data", rows, num_bytes)} if isinstance(to.split, str) else _several(to.split, total)
    head: dict[str, object] = {
        "license": to.licence or NO_LICENCE,
        "task_categories": ["automatic-speech-recognition"],
        "tags": ["raysp"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": name, "path": f"{folder}/**/*.parquet"} for name, (folder, *_) in splits.items()
                ],
            }
        ],
        "dataset_info": {
            "features": features(schema, has_audio=has_audio),
            "splits": [
                {"name": name, "num_bytes": size, "num_examples": number} for name, (_, number, size) in splits.items()
            ],
            "download_size": num_bytes,
            "dataset_size": num_bytes,
        },
    }
    front = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    content = "\n".join(["---", *front, "---", "", *_body(labelling, to, total), ""])
    with destination.whole() as files:
        files.put([(CARD, content.encode())])
    return 1


def _several(shares: Mapping[str, float], total: Tally) -> dict[str, tuple[str, int, int]]:
    """Return the folder of each split that has files, its number of rows and its bytes."""
    folder = "data/{}" if len(shares) > 1 else "data"
    return {
        name: (folder.format(name), total.splits[name], total.split_bytes[name])
        for name in shares
        if total.split_bytes[name]
    }


def _body(labelling: Labelling, to: Described, total: Tally) -> list[str]:
    rows = count(total.clips, "clip") if to.NAME == "clips" else count(total.rows, "row")
    time = duration(total.seconds)
    units = "hours:minutes:seconds" if time.count(":") == 2 else "minutes:seconds"
    checkpoints = map(place_name, (labelling.checkpoint or "").split(", "))
    digest = _code(labelling.record.checkpoint_digest)
    made_by = [f"- checkpoint: `{_code(', '.join(checkpoints))}` (digest {digest})"] if labelling.checkpoint else []
    made = [
        f"- {rows}, {time} of audio ({units})",
        _split_line(to.split, total),
        f"- left out: {by_reason(dict(sorted(total.left_out.items()))) or 'nothing'}",
        *made_by,
        f"- fingerprint of the pipeline: {_code(labelling.record.fingerprint)}",
        f"- command: `{_code(_command(labelling, to))}`",
        f"- licence: {_code(to.licence or 'not stated; set it with --set to.licence=NAME')}",
    ]
    return [f"# Labels by raysp {installed_version('raysp')}", "", *made]


def _split_line(split: str | Mapping[str, float], total: Tally) -> str:
    """Return a line with the name of the split, or the rows of several."""
    if isinstance(split, str):
        return f"- split: {split}"
    return f"- splits: {', '.join(f'{name} {total.splits[name]:,}' for name in split)}"


def _code(value: object) -> str:
    """Return a value as text that does not end a code span."""
    return on_one_line(str(value)).replace("`", "'")


def _command(labelling: Labelling, to: Described) -> str:
    """Return the command that makes the export."""
    target = "PIPELINE" if getattr(to, "audio", True) else place_name(labelling.url)
    words = ["raysp", "export", target, "DEST", "--to", to.NAME]
    for field in fields(cast("Any", to)):
        if (value := getattr(to, field.name)) != field.default:
            text = str(value) if isinstance(value, str) else json.dumps(to_json(value))
            words += ["--set", f"to.{field.name}={text}"]
    return shlex.join(words)


def features(schema: pa.Schema, *, has_audio: bool) -> list[dict[str, object]]:
    """Return the columns as `datasets` writes them in a card."""
    columns = [{"name": field.name, **_feature(field.type)} for field in schema]
    audio: dict[str, object] = {"name": AUDIO_COLUMN, "dtype": "audio"}
    return [audio if has_audio and column["name"] == AUDIO_COLUMN else column for column in columns]


def _feature(kind: pa.DataType) -> dict[str, object]:
    if isinstance(kind, pa.DictionaryType):
        return _feature(kind.value_type)
    if isinstance(kind, pa.StructType):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in kind]}
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        name = "large_list" if isinstance(kind, pa.LargeListType) else "list"
        inner = _feature(kind.value_type)
        content = inner["dtype"] if [*inner] == ["dtype"] else inner.get("struct", inner)
        sized = {"length": kind.list_size} if isinstance(kind, pa.FixedSizeListType) else {}
        return {name: content, **sized}
    names = {"float": "float32", "double": "float64", "halffloat": "float16", "date32[day]": "date32"}
    return {"dtype": names.get(str(kind), str(kind))}
