"""Content of files as far as it is compared between runs: a checksum of the store, else the size and samples.

A modification time is no content: a file that was copied or touched is the same. Reading whole files would cost a run
as much as a pass over its audio, so of a file on this machine's disks the first and last `END_BYTES` are read, and
`SAMPLE_BYTES` at the end of every `STRIDE_BYTES` between them. A change of `STRIDE_BYTES` in a row is always noticed,
and so is every change of the size, and of a file of at most twice `END_BYTES`. A shorter change between samples is not.
"""

import os
from collections.abc import Iterator
from hashlib import blake2b

from raysp.storage.opened import Entry, ReadableFile

DIGEST_BYTES = 16
END_BYTES = 64 * 1024
STRIDE_BYTES = 128 * 1024
SAMPLE_BYTES = 4096


def content_of(entry: Entry) -> str:
    """Return the identifier of a file's content by its store: its size, and a checksum, or else its version.

    The version is the etag on S3, which is a checksum of the content and of the sizes in which it was uploaded.
    """
    return f"{entry.num_bytes}:{entry.checksum or entry.version}"


def sampled(file: ReadableFile) -> Iterator[bytes]:
    """Yield the size of a file, its first and last bytes, and samples between them."""
    num_bytes = file.seek(0, os.SEEK_END)
    yield num_bytes.to_bytes(8, "little")
    last = max(0, num_bytes - END_BYTES)
    for place, wanted in (
        (0, END_BYTES),
        *((place, SAMPLE_BYTES) for place in range(END_BYTES + STRIDE_BYTES - SAMPLE_BYTES, last, STRIDE_BYTES)),
        (last, END_BYTES),
    ):
        file.seek(place, os.SEEK_SET)
        yield file.read(wanted)


def digest_of(*parts: bytes | memoryview) -> bytes:
    """Return the digest of some bytes."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
