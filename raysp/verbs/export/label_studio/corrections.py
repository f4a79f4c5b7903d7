"""Corrections of people in Label Studio, as a manifest of the rows with their texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from raysp import bounds
from raysp.errors import SpecError
from raysp.storage.options import GivenOptions
from raysp.storage.store import split_url
from raysp.storage.stores import open_store
from raysp.text.formats.safe_values import json_line
from raysp.verbs.export.label_studio.annotation_tasks import AUDIO, TEXT
from raysp.verbs.export.source_audio import shared_folder
from raysp.words import Brief, count

OF_TASKS = ("id", "audio_filepath", "offset", "duration", "text", "shard", "row")
"""Keys of the data of tasks that `LabelStudio` writes and a line takes."""


@dataclass(frozen=True, repr=False)
class Corrections(Brief):
    """Counts of corrections."""

    dest: str
    rows: int
    """Tasks with an annotation, which are lines of the manifest."""
    changed: int
    """Rows whose text differs from the prediction."""
    unannotated: int
    """Tasks without an annotation, or skipped by the annotator."""
    audio_root: str
    """Folder that holds all recordings, which `Shards(audio_root=...)` has to name; empty without one."""

    @property
    def facts(self) -> dict[str, str]:
        """Facts for users, as text by name."""
        rest = count(self.unannotated, "task") if self.unannotated else ""
        rows = f"{count(self.rows, 'row')}, {self.changed:,} with another text"
        source = f"Shards({self.dest!r}, audio_root={self.audio_root!r}, text='text')"
        return {"rows": rows, "not annotated": rest, "in": self.dest, "read by": source}


def corrections(annotations: str, dest: str, storage_options: GivenOptions | None = None) -> Corrections:
    """Write the texts of annotated tasks as a manifest of their rows, which `Shards` reads without a copy of audio.

    The tasks are those of `export(to="labelstudio")`. The text of a row is that of its annotation, of several the one
    marked as ground truth, else the latest; the texts of regions are joined in the order of their times. `pred_text`
    is the text before. Tasks that were skipped or have no annotation are left out.

    Args:
        annotations: url of a Label Studio export in JSON format.
        dest: url of the manifest, a file that ends with .jsonl and is replaced.
        storage_options: options to reach both.

    Raises:
        SpecError: the file is not such an export.
        StoreError: a file cannot be read or written.
    """
    if not dest.endswith(".jsonl"):
        raise SpecError(f"corrections: found dest={dest!r}, expected the name of a manifest, such as corrected.jsonl")
    lines: list[str] = []
    tasks, changed = _tasks(annotations, storage_options), 0
    for number, task in enumerate(tasks):
        try:
            if (annotation := _annotation(task)) is None:
                continue
            text = _text(annotation)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise SpecError(
                f"{annotations}: an annotation of entry {number} is not of the form that Label Studio writes; export "
                "the project again in JSON format"
            ) from None
        data = task["data"]
        changed += text != (data["text"] or "")
        kept = {key: value for key, value in data.items() if key not in (AUDIO, "text") and value is not None}
        lines.append(json_line({**kept, "text": text, "pred_text": data["text"]}))
    folder, name = split_url(dest)
    open_store(folder, storage_options).replace(name, "".join(lines).encode())
    folders = (str(task["data"]["audio_filepath"]).partition("#")[0].rpartition("/")[0] for task in tasks)
    return Corrections(dest, len(lines), changed, len(tasks) - len(lines), shared_folder(folders))


def _tasks(annotations: str, storage_options: GivenOptions | None) -> Sequence[Mapping[str, Any]]:
    """Return the tasks of an export of Label Studio."""
    folder, name = split_url(annotations)
    try:
        tasks = bounds.parse_record(open_store(folder, storage_options).read(name))
    except ValueError as error:
        raise SpecError(f"{annotations}: not JSON ({error}); expected a Label Studio export in JSON format") from None
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks]):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(tasks, list) or not isinstance(task.get("annotations"), list) or not isinstance(data, dict):
            raise SpecError(
                f"{annotations}: entry {number} has no data and annotations; expected Label Studio's export in the "
                "format JSON, not JSON-MIN or another one"
            )
        if missing := [key for key in OF_TASKS if key not in data]:
            raise SpecError(
                f"{annotations}: the data of entry {number} lack {', '.join(missing)}; expected tasks of "
                "`raysp export --to labelstudio`"
            )
    return cast("Sequence[Mapping[str, Any]]", tasks)


def _annotation(task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the annotation of a task that counts; None without one."""
    done = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
    rank = [(bool(a.get("ground_truth")), str(a.get("updated_at") or a.get("created_at") or "")) for a in done]
    return done[max(range(len(done)), key=rank.__getitem__)] if done else None


def _text(annotation: Mapping[str, Any]) -> str:
    """Return the text of an annotation: the texts of its regions in order."""
    values = [
        result["value"]
        for result in annotation.get("result") or ()
        if result.get("type") == "textarea" and result.get("from_name") == TEXT
    ]
    values.sort(key=lambda value: float(value.get("start") or 0.0))
    parts = [[value["text"]] if isinstance(value["text"], str) else value["text"] for value in values]
    return " ".join(stripped for texts in parts for text in texts if (stripped := str(text).strip()))
