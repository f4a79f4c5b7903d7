"""Parquet metadata of a label shard, and its comparison with a plan."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import pyarrow as pa

from raysp import bounds
from raysp.corpus.parquet import NotSealedError, SealedFile
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError
from raysp.sink import layout, records
from raysp.sink.receipts import ShardReceipt
from raysp.sink.recording_versions import Hashes
from raysp.sink.run_record import SCHEMA_VERSION, raysp_version
from raysp.storage.store import Store
from raysp.words import label_again

PREFIX = "raysp."
_PREFIX = PREFIX.encode()
ORIGIN = ("fingerprint", "input_id", "file_id")
"""Fields of a receipt that are entries of their own."""
RUN = "run"
"""Entry of the run that wrote the label shard."""


@dataclass(frozen=True)
class LabelFooter:
    """Metadata of a label shard that raysp reads back."""

    receipt: ShardReceipt
    entries: Mapping[str, str]
    """All entries, without their prefix."""

    @property
    def write_id(self) -> str:
        """Id of the write that made the file; empty in older label shards."""
        return self.entries.get("write_id", "")

    @property
    def recordings(self) -> str:
        """Encoded `Hashes` of the files that rows were made from; empty if no row was read by path."""
        return self.entries.get("recordings", "")

    @property
    def rest_path(self) -> str:
        """Path of the file with the rows that were left out; empty without such rows."""
        origin, rest_id = self.receipt, self.entries["rest_id"]
        return rest_id and layout.errors_path(origin.shard, origin.input_id, origin.fingerprint, rest_id)


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
    fields = asdict(receipt)
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


@contextmanager
def opened(store: Store, name: str) -> Iterator[pa.NativeFile]:
    """Open a label shard.

    Raises:
        ChangedError: in place of a NotSealedError of the caller.
        StoreError: it cannot be read.
    """
    try:
        with store.open(name) as file:
            yield file
    except NotSealedError as error:
        raise refusal(store, name, error) from error


def refusal(store: Store, name: str, reason: object) -> ChangedError:
    """Return the error for a file that is damaged, or not a label shard of raysp."""
    return ChangedError(
        f"{store.url}/{name}: damaged, or not a label shard of raysp ({bounds.plain(reason)}); move it and run again, "
        "which labels its shard again, or use another sink",
        (f"damaged, or not a label shard of raysp ({bounds.plain(reason)})",),
    )


def read(store: Store, name: str) -> LabelFooter:
    """Read a label shard's metadata only.

    Raises:
        ChangedError: The file is damaged, or not a label shard of raysp.
        StoreError: it cannot be read.
    """
    with opened(store, name) as file:
        raw = _key_values(file)
    try:
        entries = {
            key.decode().removeprefix(PREFIX): one.decode() for key, one in raw.items() if key.startswith(_PREFIX)
        }
        counts = records.parse(entries["counts"], dict[str, object])
        origin = {one: entries[one] for one in ORIGIN}
        receipt = records.checked({**counts, **origin, "shard": name, "existing": True}, ShardReceipt)
        if "rest_id" not in entries:
            raise KeyError("rest_id")
        return LabelFooter(receipt, entries)
    except (KeyError, ValueError) as error:
        reason = f"its metadata lacks {error}" if isinstance(error, KeyError) else error
        raise refusal(store, name, reason) from error


def input_id(file: SealedFile) -> str:
    """Return the input id of a label shard; empty if it has none."""
    return (file.metadata.metadata or {}).get(f"{PREFIX}input_id".encode(), b"").decode(errors="replace")


def _key_values(file: pa.NativeFile) -> Mapping[bytes, bytes]:
    return SealedFile.of(file).metadata.metadata or {}


def hashes(store: Store, shard: Shard, found: LabelFooter) -> Hashes:
    """Return the hashes of the files that the rows of a label shard were made from.

    Raises:
        ChangedError: they are damaged.
    """
    try:
        return Hashes.decode(found.recordings, shard.num_rows)
    except ValueError as error:
        raise refusal(store, shard.name, error) from error


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
