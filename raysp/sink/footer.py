"""Parquet metadata of a label shard, and its comparison with a plan."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysp import bounds
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError, StoreError
from raysp.sink import layout
from raysp.sink.receipts import ShardReceipt
from raysp.sink.run_record import SCHEMA_VERSION, raysp_version
from raysp.storage.store import Store
from raysp.words import label_again

PREFIX = "raysp."
_PREFIX = PREFIX.encode()
ORIGIN = ("fingerprint", "input_id", "file_id")
"""Fields of a receipt that are entries of their own."""
RUN, RETRIED = "run", "retried"
"""Entries of the run that labelled the rows, and of later runs with the rows that each of them labelled again."""


@dataclass(frozen=True)
class LabelFooter:
    """Metadata of a label shard that raysp reads back."""

    rest_id: str
    """Id of the file with the rows that were left out; empty without such rows."""
    write_id: str
    """Id of the write that made the file; empty in older label shards."""
    recordings: str
    """Encoded `recordings.Hashes` of the files that rows were made from; empty if no row was read by path."""
    receipt: ShardReceipt

    @property
    def rest_path(self) -> str:
        """Path of the file with the rows that were left out; empty without such rows."""
        origin = self.receipt
        path = layout.errors_path(origin.shard, origin.input_id, origin.fingerprint, self.rest_id)
        return path if self.rest_id else ""


def encode(
    receipt: ShardReceipt,
    *,
    metadata: Mapping[str, str],
    rest_id: str = "",
    write_id: str = "",
    recordings: str = "",
) -> dict[str, str]:
    """Return the key-value metadata of a label shard; `metadata` adds entries under the same prefix.

    Args:
        receipt: counts and origin of the label shard.
        metadata: further entries.
        rest_id: id of the file with the rows that were left out, if any.
        write_id: unique to every write of a label shard.
        recordings: hashes of the files that rows were made from, if any were read by path.
    """
    fields = vars(receipt)
    counts = {name: fields[name] for name in fields if name not in ("shard", "existing", "version", *ORIGIN)}
    own = {
        **{name: fields[name] for name in ORIGIN},
        "rest_id": rest_id,
        "write_id": write_id,
        **({"recordings": recordings} if recordings else {}),
        "version": raysp_version(),
        "schema_version": str(SCHEMA_VERSION),
        "counts": json.dumps(counts),
    }
    # Own entries last: further metadata never replaces entries that later runs compare.
    return {f"{PREFIX}{key.removeprefix(PREFIX)}": value for key, value in {**metadata, **own}.items()}


def read(store: Store, name: str) -> LabelFooter:
    """Read a label shard's metadata only.

    Raises:
        ChangedError: The file is not a label shard of raysp.
    """
    try:
        with store.open(name) as file:
            found = _key_values(file)
        fields = {key: found[f"{PREFIX}{key}".encode()].decode() for key in (*ORIGIN, "rest_id", "counts")}
        origin: dict[str, Any] = {key: fields[key] for key in ORIGIN}
        counts = bounds.parse_record(fields["counts"])
        receipt = ShardReceipt(shard=name, existing=True, version="", **origin, **counts)
    except StoreError:
        raise
    except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError) as error:
        reason = "it has no raysp metadata" if isinstance(error, KeyError) else str(error)
        raise ChangedError(
            f"{store.url}/{name}: not a label shard of raysp ({reason}); move it, or use another sink",
            (f"{name}: not a label shard of raysp",),
        ) from error
    write_id, recordings = (found.get(f"{PREFIX}{key}".encode(), b"").decode() for key in ("write_id", "recordings"))
    return LabelFooter(fields["rest_id"], write_id, recordings, receipt)


def entries(store: Store, name: str) -> dict[str, str]:
    """Return all entries of a label shard's metadata, without their prefix.

    Raises:
        StoreError: it cannot be read.
    """
    with store.open(name) as file:
        found = _key_values(file)
    return {key.decode().removeprefix(PREFIX): one.decode() for key, one in found.items() if key.startswith(_PREFIX)}


def runs(store: Store, shard: Shard) -> list[str | None]:
    """Return the id of the run that labelled each row of a label shard; None where it is not recorded."""
    found = entries(store, shard.name)
    by_row: list[str | None] = [found.get(RUN)] * shard.num_rows
    for run, rows in bounds.parse_record(found.get(RETRIED, "{}")).items():
        for row in rows:
            by_row[row] = run
    return by_row


def _key_values(file: pa.NativeFile) -> Mapping[bytes, bytes]:
    return pq.read_metadata(file).metadata or {}


def read_expected(store: Store, shard: Shard, fingerprint: str, file_id: str = "") -> ShardReceipt:
    """Return the receipt from the label shard of this input and pipeline.

    Args:
        store: the sink.
        shard: the recorded shard.
        fingerprint: fingerprint of the pipeline.
        file_id: hash of its columns and rows; empty: not compared.

    Raises:
        ChangedError: It was made from other input or by another pipeline, has other columns, or is not a label shard of
            raysp.
    """
    return expect(store, read(store, shard.name).receipt, shard, fingerprint, file_id)


def expect(store: Store, receipt: ShardReceipt, shard: Shard, fingerprint: str, file_id: str = "") -> ShardReceipt:
    """Return the receipt of a footer that was read, after the checks of `read_expected`."""
    if differing := differences(receipt, shard, fingerprint, file_id):
        raise ChangedError(
            f"{store.url}/{shard.name}: this label shard was made from other input or by another "
            f"pipeline ({'; '.join(differing)}); move it, use another sink, or label the shard again with "
            f"`{label_again(shard.name)}`",
            differing,
        )
    return receipt


def differences(receipt: ShardReceipt, shard: Shard, fingerprint: str, file_id: str = "") -> tuple[str, ...]:
    """Return how the origin of a label shard differs from a plan; arguments as of `read_expected`."""
    return tuple(
        f"{what}: {old!r} -> {new!r}"
        for what, old, new in (
            ("fingerprint", receipt.fingerprint, fingerprint),
            ("input id", receipt.input_id, shard.input_id),
            ("columns and rows", receipt.file_id, (receipt.file_id and file_id) or receipt.file_id),
        )
        if old != new
    )
