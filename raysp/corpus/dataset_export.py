"""Export of data sets of the `datasets` library to audio shards that hold the bytes of every recording."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from raysp import bounds
from raysp.corpus.shards import AUDIO
from raysp.errors import PlanError, ShardError, StoreError
from raysp.storage.options import GivenOptions, options_of, resolve
from raysp.storage.s3_options import for_s3fs
from raysp.storage.store import HOME, Store, explain, scheme_of
from raysp.storage.stores import open_store

SHARD_BYTES = 256 * 1024 * 1024
ROWS_AT_ONCE = 32
MARKER = "_exported.json"
"""Marker file, written last: fingerprint of the data set and names of its shards."""
SAVED = ("state.json", "dataset_dict.json")
"""Files of which `save_to_disk` writes one: for a data set, and for one with several splits."""


class Exported(NamedTuple):
    """Audio shards of a data set."""

    urls: tuple[str, ...]
    audio: str
    """Name of the column with the recordings."""
    columns: tuple[str, ...]


def export(
    dataset: Any,  # noqa: ANN401 - a `datasets.Dataset`, or the name of one
    folder: str,
    *,
    split: str | None = None,
    audio: str | None = None,
    storage_options: GivenOptions | None = None,
) -> Exported:
    """Write a data set as Parquet audio shards. Shards of an earlier export of the same data set are reused.

    Args:
        dataset: a `datasets.Dataset`, a folder written by `save_to_disk` (a path or url), or a name for `load_dataset`.
        folder: url of the folder for the shards, used for this data set only.
        split: split to export, required if the data set has several.
        audio: column with the recordings; None for the only audio column.
        storage_options: options of the folder's storage, and of a saved data set whose url has the same scheme.

    Raises:
        PlanError: the data set cannot be loaded or written, or the folder holds other files.
        ShardError: a recording cannot be read.
        StoreError: the folder cannot be written.
    """
    if isinstance(dataset, str | Path) and (scheme := scheme_of(str(dataset))):
        same = scheme == scheme_of(folder)
        dataset = _load_saved(str(dataset), options_of(storage_options or {}) if same else {})
    dataset = _loaded(dataset, split)
    audio = _audio_column(dataset, audio)
    store = open_store(folder, storage_options)
    fingerprint = str(dataset._fingerprint)
    done = _done(store, fingerprint)
    if done is None:
        done = _write(store, _tables(dataset, audio), fingerprint)
        store.create(MARKER, json.dumps({"fingerprint": fingerprint, "shards": done}).encode())
    return Exported(tuple(f"{store.url}/{name}" for name in done), audio, tuple(dataset.column_names))


def _load_saved(url: str, options: Mapping[str, object]) -> Any:  # noqa: ANN401
    """Load a data set that `save_to_disk` wrote to object storage."""
    store = open_store(url, options)
    if not any(store.stat(name) for name in SAVED):
        raise PlanError(f"{url}: found no {' and no '.join(SAVED)}; expected a folder written by save_to_disk")
    resolved = for_s3fs(options) if scheme_of(url) == "s3" else resolve(options)
    try:
        return datasets.load_from_disk(store.url, storage_options=resolved)
    except ImportError as error:
        package = "s3fs (pip install s3fs)" if scheme_of(url) == "s3" else "another package"
        raise PlanError(f"{url}: `datasets` needs {package} to load it: {error}") from None
    except Exception as error:  # its text may repeat how a request was signed
        raise PlanError(f"{url}: `datasets` cannot load it ({type(error).__name__}); check the folder") from None


def _loaded(dataset: Any, split: str | None) -> Any:  # noqa: ANN401
    if isinstance(dataset, str | Path):
        where = str(dataset)
        try:
            is_saved = any(Path(where, name).is_file() for name in SAVED)
            dataset = datasets.load_from_disk(where) if is_saved else datasets.load_dataset(where, split=split)
        except Exception as error:  # of many types: no such name, no network, no such split
            raise PlanError(f"{where}: `datasets` cannot load it: {error}") from error
    if isinstance(dataset, dict):
        if split is None and len(dataset) > 1:
            raise PlanError(f"the data set has the splits {', '.join(dataset)}; choose one with split='...'")
        if split is not None and split not in dataset:
            raise PlanError(f"the data set has no split {split!r}; it has {', '.join(dataset)}")
        dataset = dataset[split or next(iter(dataset))]
    if not isinstance(dataset, datasets.Dataset):
        raise PlanError(f"found {type(dataset).__name__}, expected a datasets.Dataset; load it without streaming")
    return dataset


def _audio_column(dataset: Any, given: str | None) -> str:  # noqa: ANN401
    if given is not None:
        if given not in dataset.column_names:
            raise PlanError(f"the data set has no column {given!r}; it has {', '.join(dataset.column_names)}")
        return given
    found = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Audio)]
    found = found or [name for name in dataset.column_names if name == "audio"]
    if len(found) != 1:
        columns = ", ".join(dataset.column_names)
        raise PlanError(f"found {len(found)} audio columns among {columns}, expected one; choose it with audio='...'")
    return str(found[0])


def _done(store: Store, fingerprint: str) -> list[str] | None:
    """Return the shards of a finished export of this data set; None if there is none.

    Raises:
        PlanError: the folder holds other files, or a shard is missing.
    """
    if store.stat(MARKER) is None:
        ours = f"{fingerprint}-"
        other = [one.path for one in store.list() if not one.path.startswith((HOME, ours))]
        if other:
            raise PlanError(f"{store.url}: holds {other[0]!r}, expected an empty folder; use another folder")
        return None
    found = bounds.parse_json(store.read(MARKER))
    if found.get("fingerprint") != fingerprint:
        raise PlanError(
            f"{store.url}: holds another data set (fingerprint {found.get('fingerprint')!r}, this one's is "
            f"{fingerprint!r}); use another folder, or remove that one"
        )
    shards = [str(name) for name in found["shards"]]
    if missing := [name for name in shards if store.stat(name) is None]:
        raise PlanError(f"{store.url}: {missing[0]!r} is missing; remove the folder, and it is written again")
    return shards


def _tables(dataset: Any, audio: str) -> Iterator[pa.Table]:  # noqa: ANN401
    """Yield tables of `ROWS_AT_ONCE` rows as stored, with the bytes of each recording."""
    if isinstance(dataset.features[audio], datasets.Audio):
        dataset = dataset.cast_column(audio, datasets.Audio(decode=False))
    place = dataset.column_names.index(audio)
    first = 0
    for table in dataset.with_format("arrow").iter(ROWS_AT_ONCE) if len(dataset) else [dataset.data.table.slice(0, 0)]:
        values = table.column(audio).to_pylist()
        recordings = [_recording(value, first + number) for number, value in enumerate(values)]
        first += len(values)
        yield table.set_column(place, audio, pa.array(recordings, AUDIO)).replace_schema_metadata(None)


def _recording(value: object, row: int) -> dict[str, object] | None:
    """Return a recording with its bytes, from bytes, a path or an array."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, str):
        value = {"bytes": None, "path": value}
    if not isinstance(value, dict):
        raise ShardError(f"row {row}: its audio is {type(value).__name__}, expected bytes, a path or an array")
    path = value.get("path")
    if value.get("array") is not None:
        return {"bytes": _encoded(value["array"], int(value["sampling_rate"])), "path": path}
    found = value.get("bytes")
    return {"bytes": _read(str(path), row) if found is None and path else found, "path": path}


def _encoded(samples: Sequence[float], sample_rate: int) -> bytes:
    """Encode samples as WAV in the smallest subtype that represents all of them exactly."""
    array = np.asarray(samples)
    array = array.T if array.ndim == 2 and array.shape[0] < array.shape[1] else array  # channels first
    if array.dtype.kind in "iu":
        subtype = "PCM_16" if np.abs(array).max(initial=0) < 2**15 else "PCM_32"
        array = array.astype(np.int16 if subtype == "PCM_16" else np.int32)
    else:
        is_single = bool((array == array.astype(np.float32)).all())
        subtype, array = ("FLOAT", array.astype(np.float32)) if is_single else ("DOUBLE", array.astype(np.float64))
    file = io.BytesIO()
    soundfile.write(file, array, sample_rate, format="WAV", subtype=subtype)
    return file.getvalue()


def _read(path: str, row: int) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # of many types, by storage
        raise ShardError(f"row {row}: its recording {path!r} cannot be read ({error}); correct the data set") from error


def _write(store: Store, tables: Iterator[pa.Table], fingerprint: str) -> list[str]:
    """Write shards of bounded size. Names derive from the fingerprint, so that a second attempt writes the same."""
    names: list[str] = []
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(one.nbytes for one in held) >= SHARD_BYTES:
            names.append(_write_shard(store, held, f"{fingerprint}-{len(names):05d}.parquet"))
            held = []
    if held:
        names.append(_write_shard(store, held, f"{fingerprint}-{len(names):05d}.parquet"))
    return names


def _write_shard(store: Store, tables: list[pa.Table], name: str) -> str:
    with store.scratch() as scratch:
        try:
            with pq.ParquetWriter(str(scratch), tables[0].schema) as writer:
                for table in tables:
                    writer.write_table(table)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise explain(error, "write", f"{store.url}/{name}") from error
        store.publish(scratch, name)
    return name
