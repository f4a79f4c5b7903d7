"""Small shards, recordings of noise, pipelines over them, and sinks of chosen label rows, for many tests."""

import dataclasses
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import raysp
from raysp.corpus.parquet import seal
from tests import kit
from tests.kit import AUDIO, CHECKPOINT, DEMO


def digits_table(number: int | None = None, first: int = 0) -> pa.Table:
    """Return rows of the first demo shard: recordings of spoken digits with their columns."""
    return pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(first, number)


def wav(num_samples: int = 1600, rate: int = 16_000, subtype: str = "PCM_16", seed: int = 0) -> bytes:
    """Make a recording of noise."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    return kit.sound(samples, rate, subtype=subtype)


def rows_table(num_rows: int, *, audio: bytes | None = None, prefix: str = "u") -> pa.Table:
    audio = wav() if audio is None else audio
    return pa.table(
        {
            "id": [f"{prefix}{row}" for row in range(num_rows)],
            "audio": pa.array([{"bytes": audio, "path": None}] * num_rows, AUDIO),
            "text": ["one two"] * num_rows,
            "language": ["en" if row % 2 else "de" for row in range(num_rows)],
        }
    )


def write_shard(path: Path, num_rows: int = 3, *, table: pa.Table | None = None, row_group_size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = rows_table(num_rows, prefix=path.stem) if table is None else table
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def damaged(table: pa.Table, *rows: int) -> pa.Table:
    """Return rows of which some hold no audio."""
    audio = table.column("audio").to_pylist()
    for row in rows:
        audio[row] = {"bytes": b"no audio", "path": None}
    return table.set_column(table.schema.get_field_index("audio"), "audio", pa.array(audio, AUDIO))


def tar_of(members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar file of members with their names."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(members))
    return path


def a_pipeline(source: object = "in/*.parquet", sink: object = "out", **fields: object) -> raysp.Pipeline:
    """Make a pipeline; `source` and `sink` are specs or urls, `label` changes the `Label` step."""
    label = {"outputs": [raysp.Transcript()], **fields.pop("label", {})}
    steps = [raysp.Decode(), *fields.pop("keep", ()), raysp.Label(str(CHECKPOINT), **label)]
    return raysp.Pipeline(
        source=source if isinstance(source, raysp.Shards) else raysp.Shards(source),
        steps=fields.pop("steps", steps),
        sink=sink if isinstance(sink, raysp.Parquet) else raysp.Parquet(str(sink)),
        **fields,
    )


def labels_alone(folder: object, output: object, recordings: Sequence[bytes], **fields: object) -> list[dict[str, Any]]:
    """Return label rows of recordings by an output of a checkpoint; `fields` are those of `Label`."""
    rows = {"id": list(map(str, range(len(recordings)))), "audio": [{"bytes": one, "path": None} for one in recordings]}
    steps = [raysp.Decode(), raysp.Label(str(folder), outputs=[output], **fields)]
    with raysp.Labeller(steps) as labeller:
        return labeller(pa.table({**rows, "audio": pa.array(rows["audio"], AUDIO)})).to_pylist()


def label_arrays(
    folder: object,
    outputs: object,
    waves: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[object]] | None = None,
    rate: int = 16_000,
    **fields: object,
) -> list[dict[str, Any]]:
    """Return label rows of arrays by outputs of a checkpoint; `fields` are those of `Label`."""
    given = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    with raysp.Labeller([raysp.Decode(), raysp.Label(str(folder), outputs=given, **fields)]) as labeller:
        return labeller.arrays(waves, rate, columns=columns).to_pylist()


def samples_of(recording: bytes) -> np.ndarray:
    """Return the samples of a recording of 16 bits, float32 of shape (num_samples,)."""
    return soundfile.read(io.BytesIO(recording), dtype="float32")[0]


def label_twice(folder: Path) -> None:
    """Label six spoken digits to `A`, and by a pipeline that skips one of them to `B`."""
    write_shard(folder / "in" / "a.parquet", table=digits_table(6))
    source = raysp.Shards(f"{folder}/in/*.parquet", text="text")
    raysp.run(a_pipeline(source, raysp.Parquet(f"{folder}/A", keep=["speaker_id"])), engine="here", progress=False)
    skipping = a_pipeline(source, raysp.Parquet(f"{folder}/B"), keep=[raysp.Keep(max_seconds=0.4)])
    raysp.run(skipping, engine="here", progress=False)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table] = lambda table: table, **entries: str) -> None:
    """Write a label shard again with other rows, and other entries of its metadata."""
    file = pq.ParquetFile(path)
    table = change(file.read())
    kept = {key: one for key, one in file.metadata.metadata.items() if key.startswith(b"raysp.")}
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**kept, **{f"raysp.{name}".encode(): one for name, one in entries.items()}})
    seal(path)


def with_columns(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """Return label rows with other columns: Arrow arrays as they are, other values in the type of the old column."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        if place < 0:
            table = table.append_column(name, pa.array(values))
        else:
            array = values if isinstance(values, pa.Array) else pa.array(values, table.schema.field(place).type)
            table = table.set_column(place, pa.field(name, array.type, metadata=table.field(place).metadata), array)
    return table


def labelled(
    folder: Path,
    columns: Mapping[str, Any],
    outputs: Sequence[object] = (raysp.Transcript(words=True, chars=True),),
    source: Mapping[str, Any] | None = None,
    name: str = "out",
    checkpoint: object = CHECKPOINT,
) -> Path:
    """Return a sink of one label shard, `a.parquet`, with chosen label rows.

    A run labels recordings that are too short for a model, so it takes no time; then the rows get their values. Sinks
    of one folder that differ in these values alone are copies of the first one.

    Args:
        folder: folder of the corpus, which is made once, and of the sink.
        columns: columns of label rows, of equal lengths; without `status` and `seconds`, rows of 1 second are ok.
        outputs: outputs of `Label`, whose columns are null where they are not given.
        source: columns of the source that are kept; `text` is the column of reference texts.
        name: name of the sink.
        checkpoint: checkpoint that has the outputs.
    """
    number = len(next(iter({**(source or {}), **columns}.values())))
    ids = columns.get("id", [f"u{row}" for row in range(number)])
    audio = pa.array([{"bytes": wav(20), "path": None}] * number, AUDIO)
    if not (folder / "in").exists():
        write_shard(folder / "in" / "a.parquet", table=pa.table({"id": ids, "audio": audio, **(source or {})}))
    sink, key = folder / name, repr((folder, ids, outputs, [*(source or {})], str(checkpoint)))
    for path, data in _LABELLED.get(key, {}).items():
        (sink / path).parent.mkdir(parents=True, exist_ok=True)
        (sink / path).write_bytes(data)
    if key not in _LABELLED:
        text = {"text": "text"} if "text" in (source or {}) else {}
        pipeline = raysp.Pipeline(
            raysp.Shards(f"{folder}/in", **text),
            steps=[raysp.Decode(), raysp.Label(str(checkpoint), outputs=[*outputs])],
            sink=raysp.Parquet(str(sink), keep=[*(source or {})]),
        )
        raysp.run(pipeline, engine="here", progress=False)
        _LABELLED[key] = {path.relative_to(sink): path.read_bytes() for path in sink.rglob("*") if path.is_file()}
    ok = {"status": ["ok"] * number, "seconds": [1.0] * number}
    reasons = dict.fromkeys(("error_type", "error_message"), [None] * number)
    rewrite(sink / "a.parquet", lambda table: with_columns(table, {**ok, **reasons, **columns}))
    return sink


_LABELLED: dict[str, dict[Path, bytes]] = {}
"""Files of sinks by what they were made of."""


def reading(source: raysp.Shards | str | Path, sink: object, *columns: str) -> raysp.Pipeline:
    """Return a pipeline that decodes each row and labels none; its label rows have these columns of the source."""
    return raysp.Pipeline(
        source=source if isinstance(source, raysp.Shards) else raysp.Shards(str(source)),
        steps=[raysp.Decode(), raysp.Keep(min_seconds=1e6), raysp.Label(str(CHECKPOINT), outputs=[raysp.Embedding()])],
        sink=raysp.Parquet(str(sink), keep=list(columns)),
        max_error_rate=1.0,
    )


def read(source: raysp.Shards | str | Path, *columns: str) -> list[dict[str, Any]]:
    """Return the rows of a corpus as a run reads them.

    A row has id, row, seconds, status (never `ok`), error_type, error_message and the columns; rows that are decoded
    have the error_type `filtered`.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = raysp.run(reading(source, folder, *columns), engine="here", progress=False)
        assert not result.shards_failed, result.shards_failed
        return kit.rows(folder)


def refusal(source: raysp.Shards | str | Path, *columns: str) -> str:
    """Return why a plan cannot read the only shard of a corpus."""
    with tempfile.TemporaryDirectory() as folder:
        [reason] = raysp.plan(reading(source, folder, *columns)).corpus.unreadable.values()
    return reason


def failures(source: raysp.Shards | str | Path, change: Callable[[], object], *columns: str) -> dict[str, str]:
    """Return why a run cannot read shards of a corpus that changes once it is planned, by the names of label shards.

    Without a shard that can be read the only name is "".
    """
    with tempfile.TemporaryDirectory() as folder:
        pipeline = reading(source, folder, *columns)
        try:
            result = raysp.run(pipeline, engine="here", progress=False, on_plan=lambda _: change())
        except raysp.RunError as error:
            return {"": str(error)}
    return dict(result.shards_failed)


_HEARD: dict[str, np.ndarray] = {}


def remember(rows: pa.Table) -> dict[str, list[int]]:
    """Keep the samples of rows, as a step of a pipeline."""
    for name, audio in zip(rows["id"].to_pylist(), rows["audio"].combine_chunks(), strict=True):
        _HEARD[name] = np.asarray(audio["samples"].values)
    return {"heard": [1] * rows.num_rows}


def decoded(recordings: Mapping[str, bytes]) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, str]]]:
    """Return what a run decodes: samples at 16 kHz by id, and the type and message of errors and short rows by id."""
    _HEARD.clear()
    with tempfile.TemporaryDirectory() as folder:
        audio = [{"bytes": data, "path": None} for data in recordings.values()]
        table = pa.table({"id": list(recordings), "audio": pa.array(audio, AUDIO)})
        made = reading(write_shard(Path(folder) / "in" / "a.parquet", table=table), f"{folder}/out")
        step = raysp.Map(remember, adds={"heard": "int8"}, reads=["id", "audio"])
        steps = [raysp.Decode(), step, raysp.Keep(where=[("heard", "==", 0)]), made.steps[-1]]
        raysp.run(dataclasses.replace(made, steps=steps), engine="here", progress=False)
        rows = kit.rows(f"{folder}/out")
    failed = {row["id"]: (row["error_type"], row["error_message"]) for row in rows if row["error_type"] != "filtered"}
    assert {*_HEARD, *failed} == {*recordings}
    return dict(_HEARD), failed
