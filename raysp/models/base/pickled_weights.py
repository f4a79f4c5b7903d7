"""Conversion of pickled weights to safetensors by a process of their own, which is ended if it hangs.

A pickle can run any code when it is opened. Nothing else in raysp opens one that comes from outside.
"""

import json
import os
import select
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from raysp import bounds
from raysp.errors import CheckpointError, StoreError
from raysp.words import ending

PROCESS = "raysp.models.base.pickle_process"
"""Module that the process runs."""
SILENT_SECONDS = 300
"""Time without an event after which the process counts as hung, beyond that for the size of the files."""
BYTES_PER_SECOND = 5_000_000
"""Slowest expected speed."""
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Written:
    """Result of the conversion of a file of `torch.save`."""

    digests: Mapping[str, str]
    """The SHA-256 of each tensor's values, by its name in the new file."""
    tied: Mapping[str, str]
    """Names of tensors that are not stored, each with the name of the equal tensor that is."""


def convert_files(
    files: Sequence[tuple[Path, Path]], *, are_tied: bool = False, on_bytes: Callable[[int], None] = lambda _: None
) -> list[Written]:
    """Write each file of `torch.save` as a new safetensors file, by PyTorch's reader of plain weights.

    Args:
        files: pairs of a file and the new one.
        are_tied: whether the model's configuration ties its outputs to its embeddings: of several names of one tensor,
            weights of outputs are then left out. Other names are stored with values of their own.
        on_bytes: called with the number of bytes that were read since the last call.

    Raises:
        CheckpointError: a file holds anything but plain weights, or is damaged.
        StoreError: a file cannot be read, or there is no space for the new one.
    """
    seconds = SILENT_SECONDS + sum(_num_bytes(source) for source, _ in files) // BYTES_PER_SECOND
    request = {"files": [(str(source), str(target)) for source, target in files], "are_tied": are_tied}
    child = _started(json.dumps(request).encode())
    written: list[Written] = []
    try:
        for event in _events(child, seconds):
            if "bytes" in event:
                on_bytes(event["bytes"])
            elif "written" in event:
                written.append(Written(event["written"], event["tied"]))
            elif "refused" in event:
                raise _refusal(files[len(written)][0], event["refused"])
            else:
                raise StoreError(
                    f"{files[len(written)][0]}: cannot be converted ({event['failed']}); make the file readable, free "
                    "space, or give another folder"
                )
    finally:
        child.kill()
        code = child.wait()
        for pipe in filter(None, (child.stdin, child.stdout)):
            pipe.close()
    if len(written) < len(files):
        raise _refusal(files[len(written)][0], f"reading it ended a process with {ending(code)}")
    return written


def _num_bytes(source: Path) -> int:
    """Return the size of a regular file; a pipe would be waited for."""
    try:
        facts = source.stat()
    except OSError as error:
        raise StoreError(f"{source}: cannot be read ({error.strerror}); make the file readable") from error
    if not stat.S_ISREG(facts.st_mode):
        raise _refusal(source, "it is no regular file")
    return facts.st_size


def _started(request: bytes) -> "subprocess.Popen[bytes]":
    package = str(Path(__file__).parents[3])
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # signals of a terminal are for this process, which ends the other
    )
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it has ended, which its output shows
        child.stdin.write(request + b"\n")
        child.stdin.flush()
    return child


def _events(child: "subprocess.Popen[bytes]", seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the events of the process until it closes its output."""
    assert child.stdout is not None
    pending = b""
    while chunk := _read(child.stdout, seconds):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield bounds.parse_json(line, bounds.MOST_RECORD_BYTES)


def _read(pipe: IO[bytes], seconds: float) -> bytes:
    """Return some bytes of the output; of a process that hangs, a refusal."""
    if not select.select([pipe], [], [], seconds)[0]:
        return json.dumps({"refused": f"reading it takes more than {seconds} s"}).encode() + b"\n"
    # Not `pipe.read`: `select` does not see bytes in the buffer of Python.
    return os.read(pipe.fileno(), 1 << 20)


def _refusal(source: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{source}: not plain weights: {reason}; nothing of it was run. Copy the file again if it was damaged on the "
        "way; else do not use it"
    )
