"""What a label shard says of itself in its Parquet metadata, and whether that is what a plan expects."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raysp.errors import ChangedError, StoreError
from raysp.io.shards import Shard
from raysp.io.store import Store
from raysp.sink.receipts import ShardReceipt
from raysp.sink.run_record import SCHEMA_VERSION, raysp_version

PREFIX = "raysp."


@dataclass(frozen=True)
class LabelFooter:
    """The metadata that raysp reads back."""

    fingerprint: str
    input_id: str
    receipt: ShardReceipt


def encode(receipt: ShardReceipt, *, fingerprint: str, input_id: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Make the key-value metadata of a label shard; `metadata` adds to it, under the same prefix."""
    counts = asdict(receipt)
    del counts["shard"], counts["existing"]
    own = {
        "fingerprint": fingerprint,
        "input_id": input_id,
        "version": raysp_version(),
        "schema_version": str(SCHEMA_VERSION),
        "counts": json.dumps(counts),
    }
    return {f"{PREFIX}{key.removeprefix(PREFIX)}": value for key, value in {**metadata, **own}.items()}


def read(store: Store, name: str) -> LabelFooter:
    """Read a label shard's metadata, and nothing else of it.

    Raises:
        ChangedError: The file is no label shard of raysp.
    """
    try:
        with store.open(name) as file:
            found = pq.read_metadata(file).metadata or {}
        fields = {key: found[f"{PREFIX}{key}".encode()].decode() for key in ("fingerprint", "input_id", "counts")}
        receipt = ShardReceipt(shard=name, existing=True, **json.loads(fields["counts"]))
    except StoreError:
        raise
    except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError) as error:
        reason = "it has no raysp metadata" if isinstance(error, KeyError) else str(error)
        raise ChangedError(
            f"{store.url}/{name}: not a label shard of raysp ({reason}); move it away, or take another sink",
            (f"{name}: not a label shard of raysp",),
        ) from error
    return LabelFooter(fields["fingerprint"], fields["input_id"], receipt)


def read_expected(store: Store, shard: Shard, fingerprint: str) -> ShardReceipt:
    """Read the receipt out of the label shard of this very input and pipeline.

    Raises:
        ChangedError: It answers other input, was made by another pipeline, or is no label shard of raysp.
    """
    found = read(store, shard.name)
    differing = tuple(
        f"{what}: {old!r} -> {new!r}"
        for what, old, new in (
            ("fingerprint", found.fingerprint, fingerprint),
            ("input id", found.input_id, shard.input_id),
        )
        if old != new
    )
    if differing:
        raise ChangedError(
            f"{store.url}/{shard.name}: this label shard is of other input or another pipeline "
            f"({'; '.join(differing)}); move it away, or take another sink",
            differing,
        )
    return found.receipt
