"""Golden cases of labels, as labels.json has them, by public names only; those of trainings as well.

A case of the table names what writes its corpus and its checkpoint, functions of `corpora` and `checkpoints`; without
a checkpoint it is the bundled one. `outputs` is a list, or the name of one. Cases of a folder share fields.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import raysp
from tests import kit
from tests.golden import checkpoints, corpora
from tests.golden.recorded import TOLERANCE, Result, compact
from tests.golden.trainings import TRAININGS, Training

TABLE = json.loads(Path(__file__).with_name("labels.json").read_text(encoding="utf-8"))
LABEL = {"dtype": "float32", "device": "cpu", "batch_seconds": 60}


@dataclass(frozen=True)
class Labels:
    """Labels of a corpus."""

    fields: Mapping[str, Any]

    @property
    def tolerance(self) -> float:
        """Largest difference of numbers.

        The features of Parakeet are normalised by band, and the bundled digits have only rounding noise above 4 kHz:
        noise of 3e-8 in the samples, by which processors differ, changes features there by 6e-4.
        """
        return float(self.fields.get("tolerance", TOLERANCE))

    @property
    def missing(self) -> str:
        """Reason why the case cannot run here; empty if it can."""
        function, *names = self.fields["source"]
        if function != "real" or (corpora.RECORDINGS / names[0]).is_dir():
            return ""
        return f"needs the recordings of {names[0]}, which are not part of the project"

    def run(self, folder: Path) -> Result:
        """Label in a folder."""
        (folder / "in").mkdir()
        fields = _specs(self.fields, {"digits": str(kit.CHECKPOINT), "golden": str(Path(__file__).parent)})
        function, *names = fields["source"]
        source = getattr(corpora, function)(folder / "in", *names)
        checkpoint = folder / "checkpoint" if "checkpoint" in fields else kit.CHECKPOINT
        if "checkpoint" in fields:
            function, *names = fields["checkpoint"]
            options = names.pop() if names and isinstance(names[-1], dict) else {}
            getattr(checkpoints, function)(*names, **options)(checkpoint)
        label = raysp.Label(str(checkpoint), outputs=fields["outputs"], **{**LABEL, **fields.get("label", {})})
        before = [fields.get("decode", raysp.Decode()), *fields.get("before", [])]
        pipeline = raysp.Pipeline(
            source,
            steps=[*before, label, *fields.get("after", [])],
            sink=raysp.Parquet(str(folder / "out"), keep=fields.get("keep", [])),
            max_error_rate=1.0,
        )
        raysp.run(pipeline, engine="here", progress=False)
        record = json.loads((folder / "out" / ".raysp" / "run.json").read_text())
        tables = [pq.read_table(pa.BufferReader(data)) for data in kit.label_shards(folder / "out").values()]
        columns = {one.name: str(one.type) for one in tables[0].schema}
        rows = [compact(row) for table in tables for row in table.to_pylist()]
        return {"label_version": record["parts"]["label_version"], "columns": columns}, rows


def _specs(value: Any, places: Mapping[str, str]) -> Any:
    """Return a value of the table with specs for objects with a `type`, and with the folders that strings name."""
    if isinstance(value, Mapping):
        fields = {name: _specs(inner, places) for name, inner in value.items() if name != "type"}
        return getattr(raysp, value["type"])(**fields) if "type" in value else fields
    if isinstance(value, list):
        return [_specs(inner, places) for inner in value]
    return value.format(**places) if isinstance(value, str) else value


def _labels(name: str, fields: Mapping[str, Any]) -> Labels:
    outputs = TABLE["outputs"][fields["outputs"]] if isinstance(fields["outputs"], str) else fields["outputs"]
    return Labels({**TABLE["folders"][name.partition("/")[0]], **fields, "outputs": outputs})


CASES: dict[str, Labels | Training] = {
    **{name: _labels(name, fields) for name, fields in TABLE["cases"].items()},
    **TRAININGS,
}
