"""Parquet metadata of a label shard, its comparison with a plan, and the versions of files that rows were read from.

A shard's own identity does not cover the files that its rows name. So the version of each file (size, and etag or
modification time) is staged with its row, and the label shard keeps a short hash of it per row, for `raysp verify`. The
hashes are in the Parquet metadata: readers of labels do not see them, and no second file has to stay consistent with
the label shard.
"""

import base64
import hashlib
import json
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp import bounds
from raysp.columns import RECORDING_COLUMNS
from raysp.corpus.parquet import NotSealedError, SealedFile
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError
from raysp.sink import layout, records
from raysp.sink.receipts import ShardReceipt
from raysp.sink.run_record import SCHEMA_VERSION, installed_version
from raysp.storage.store import Store
from raysp.words import label_again, listed

RECORDING, VERSION = RECORDING_COLUMNS
"""Columns of staged results: path below the root, and version of the file that was read; null if no file was read."""
HASH_BYTES = 3  # `verify` misses one change in 16 million
SHOWN_ROWS = 3


def shown(changed: Sequence[tuple[int, str]]) -> str:
    """Return the first rows and their paths as text."""
    return listed([f"row {row} ({path!r:.80})" for row, path in changed], SHOWN_ROWS) or ""


@dataclass
class Hashes:
    """Hashes of the versions of a label shard's files, one per row; zero for rows not read by path."""

    by_row: npt.NDArray[np.uint8]  # (rows, HASH_BYTES)

    @classmethod
    def zeros(cls, num_rows: int) -> "Hashes":
        """Return the hashes of rows that were not read by path."""
        return cls(np.zeros((num_rows, HASH_BYTES), np.uint8))

    @classmethod
    def decode(cls, text: str, num_rows: int) -> "Hashes":
        """Return the hashes from the text of `encode`.

        Raises:
            ValueError: the text is not from `encode`.
        """
        if not text:
            return cls.zeros(num_rows)
        raw = bounds.unzipped(base64.b64decode(text, validate=True), num_rows * HASH_BYTES)
        # A copy, since `add` writes and the view of the bytes is read-only.
        return cls(np.frombuffer(raw, np.uint8).reshape(num_rows, HASH_BYTES).copy())

    def encode(self) -> str:
        """Return the hashes as text; empty if no row was read by path."""
        if not self.by_row.any():
            return ""
        return base64.b64encode(zlib.compress(self.by_row.tobytes(), 1)).decode()

    def add(self, staged: pa.Table) -> None:
        """Set the hashes of staged rows."""
        if VERSION not in staged.column_names:
            return
        rows = staged.column("row").to_numpy()
        # A row that is labelled again may no longer be read by path.
        self.by_row[rows] = 0
        read = np.asarray(staged.column(VERSION).is_valid())
        if read.any():
            self.set(rows[read], cast("list[str]", staged.column(VERSION).drop_null().to_pylist()))

    def set(self, rows: Sequence[int] | npt.NDArray[np.int64], versions: Sequence[str]) -> None:
        """Set the hashes of rows with the versions of their files."""
        self.by_row[rows] = _hashes(versions)

    @classmethod
    def of_numbers(cls, numbers: npt.NDArray[np.uint32]) -> "Hashes":
        """Return the hashes from `numbers`."""
        return cls(numbers.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :HASH_BYTES])

    @property
    def numbers(self) -> npt.NDArray[np.uint32]:
        """The hashes as numbers; 0 for rows that were not read by path."""
        return np.pad(self.by_row, ((0, 0), (0, 4 - HASH_BYTES))).view("<u4")[:, 0]

    @property
    def is_read(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows that were read by path."""
        return np.asarray(self.by_row.any(1))

    def differ(self, rows: Sequence[int], versions: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows whose recorded version differs."""
        return np.asarray((self.by_row[list(rows)] != _hashes(versions)).any(1))


def _hashes(versions: Iterable[str]) -> npt.NDArray[np.uint8]:
    cache: dict[str, bytes] = {}
    raw = b"".join(cache.setdefault(version, _hash(version)) for version in versions)
    return np.frombuffer(raw, np.uint8).reshape(-1, HASH_BYTES)


def _hash(version: str) -> bytes:
    digest = hashlib.blake2b(version.encode(), digest_size=HASH_BYTES).digest()
    # All zeros mean that a row was not read by path.
    return digest if any(digest) else b"\1" * HASH_BYTES


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
    receipt: ShardReceipt, metadata: Mapping[str, str], *, rest_id: str = "", recordings: str = ""
) -> dict[str, str]:
    """Return the key-value metadata of a label shard to write, with an id that no other write has.

    Args:
        receipt: counts and origin of the label shard.
        metadata: further entries, under the same prefix.
        rest_id: id of the file with the rows that were left out, if any.
        recordings: hashes of the files that rows were made from, if any were read by path.
    """
    fields = asdict(receipt)
    counts = {name: fields[name] for name in fields if name not in ("shard", "existing", "version", *ORIGIN)}
    own = {
        **{name: fields[name] for name in ORIGIN},
        "rest_id": rest_id,
        "write_id": new_id(),
        **({"recordings": recordings} if recordings else {}),
        "version": installed_version("raysp"),
        "schema_version": str(SCHEMA_VERSION),
        "counts": json.dumps(counts),
    }
    # Own entries last: further metadata never replaces entries that later runs compare.
    return {f"{PREFIX}{key.removeprefix(PREFIX)}": value for key, value in {**metadata, **own}.items()}


def new_id() -> str:
    """Return an id that is unique to one write or attempt."""
    return uuid.uuid4().hex[:16]


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
            key.decode().removeprefix(PREFIX): text.decode() for key, text in raw.items() if key.startswith(_PREFIX)
        }
        counts = records.parse(entries["counts"], dict[str, object])
        origin = {field: entries[field] for field in ORIGIN}
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


def hashes(store: Store, shard: Shard, footer: LabelFooter) -> Hashes:
    """Return the hashes of the files that the rows of a label shard were made from.

    Raises:
        ChangedError: they are damaged.
    """
    try:
        return Hashes.decode(footer.recordings, shard.num_rows)
    except ValueError as error:
        raise refusal(store, shard.name, error) from error


def read_expected(store: Store, shard: Shard, fingerprint: str, file_id: str = "") -> LabelFooter:
    """Read the metadata of the label shard of this input and pipeline.

    Args:
        store: the sink.
        shard: the recorded shard.
        fingerprint: fingerprint of the pipeline.
        file_id: hash of its columns and rows; empty: not compared.

    Raises:
        ChangedError: It was made from other input or by another pipeline, has other columns, or is not a label shard of
            raysp.
    """
    labels = read(store, shard.name)
    if differing := differences(labels.receipt, shard, fingerprint, file_id):
        raise ChangedError(
            f"{store.url}/{shard.name}: this label shard was made from other input or by another "
            f"pipeline ({'; '.join(differing)}); move it, use another sink, or label the shard again with "
            f"`{label_again(shard.name)}`",
            differing,
        )
    return labels


def differences(receipt: ShardReceipt, shard: Shard, fingerprint: str, file_id: str = "") -> tuple[str, ...]:
    """Return how the origin of a label shard differs from a plan; arguments as of `read_expected`."""
    return tuple(
        f"{name}: {old!r} -> {new!r}"
        for name, old, new in (
            ("fingerprint", receipt.fingerprint, fingerprint),
            ("input id", receipt.input_id, shard.input_id),
            ("columns and rows", receipt.file_id, (receipt.file_id and file_id) or receipt.file_id),
        )
        if old != new
    )
