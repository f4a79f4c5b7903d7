"""Label shards of an export, written by this process, by processes of this machine, or by tasks of a cluster.

Label shards are independent, and each has its own mark: the files do not depend on the process that writes them, and
an export may go on with another number of processes. Label shards of a process that ended early, and those over which
code of a user failed, are written by this process, which raises the error.

As a main program this file is such a process: it reads the user's code and a `ShardExport`, pickled, and then a label
shard per line from stdin, and writes an answer per label shard to stdout. It ends with its standard input, hence with
the process that exports.
"""

import base64
import functools
import io
import os
import pickle
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, cast

import cloudpickle

from raysp import tracebacks
from raysp.corpus.shards import Shard
from raysp.corpus.surveys import LineProcess
from raysp.errors import RayspError, SpecError, StoreError
from raysp.specs.code import UserCode
from raysp.verbs.export.destination import RECORD, Destination, ShardFiles, ShardMark
from raysp.verbs.export.formats import Packing, Writing

MAIN = "raysp.verbs.export.spreading"


@dataclass(frozen=True)
class Todo:
    """A label shard to export, or neighbours that are written together."""

    name: str
    """Name of the first one, finished or not."""
    shards: tuple[Shard, ...]
    """Those that are finished."""
    identity: str
    """Hash of their versions and of their input."""


@dataclass(frozen=True)
class Exported:
    """A label shard whose files are all there."""

    mark: ShardMark
    lost: Sequence[str] = ()
    """Paths of files of earlier exports that were removed or changed since, and were written again."""


Answer = Exported | RayspError | None
"""Exported label shard, or its error; None for an error of other code, which the exporting process meets again."""


@dataclass(frozen=True)
class ShardExport:
    """Export of one label shard after the other."""

    writing: Writing | Packing
    destination: Destination

    def __call__(self, todo: Todo) -> Exported:
        """Write the files of a label shard."""
        files = ShardFiles(self.destination, todo.name)
        if isinstance(self.writing, Packing):
            self.writing.pack(todo.shards, files)
        else:
            for shard in todo.shards:
                self.writing(shard, files)
        return Exported(files.finish(todo.identity), files.lost)

    def answer(self, todo: Todo) -> Answer:
        """Write the files of a label shard for another process."""
        try:
            if self.destination.store.stat(RECORD) is None:
                raise StoreError(
                    f"{self.destination.store.url}: this process of the export does not see the files of the others. "
                    "Use a location that all machines share"
                )
            return self(todo)
        except RayspError as error:
            return error
        except Exception:
            return None

    def to_bytes(self, code: UserCode) -> bytes:
        """Return the bytes that `from_file` reads.

        Raises:
            SpecError: a value of a user's format cannot be sent.
        """
        try:
            data = cloudpickle.dumps(self)
        except (TypeError, pickle.PicklingError) as error:
            raise SpecError(f"export: it cannot be sent to other processes ({error}); use one process") from error
        return pickle.dumps(code) + cast("bytes", data)

    @staticmethod
    def from_file(file: BinaryIO) -> "ShardExport":
        """Read an export, after the user's code that it is made of."""
        code: UserCode = pickle.load(file)
        code.install()
        export: ShardExport = pickle.load(file)
        return export


def in_processes(
    export: ShardExport, todos: Sequence[Todo], *, code: UserCode, processes: int
) -> Generator[tuple[Todo, Exported]]:
    """Yield exported label shards as they are finished by processes of this machine; one is this process."""
    if processes == 1 or len(todos) < 2:
        yield from ((todo, export(todo)) for todo in todos)
        return
    data, waiting = export.to_bytes(code), deque(todos)
    answers: queue.SimpleQueue[tuple[Todo, bytes | None]] = queue.SimpleQueue()
    with ExitStack() as stack:
        stack.callback(waiting.clear)
        alive = min(processes, len(todos))
        for _ in range(alive):
            process = stack.enter_context(LineProcess(MAIN, b"", "exports label shards"))
            threading.Thread(target=_serve, args=(process, data, waiting, answers), daemon=True).start()
        for _ in todos:
            todo, line = answers.get() if alive else (waiting.popleft(), None)
            alive -= line is None
            yield todo, _exported(export, todo, None if line is None else pickle.loads(base64.b64decode(line)))


def _serve(
    process: LineProcess, data: bytes, waiting: "deque[Todo]", answers: "queue.SimpleQueue[tuple[Todo, bytes | None]]"
) -> None:
    """Send an export and then label shards to a process, one after the other, and collect its answers."""
    process.send(data)
    line: bytes | None = b""
    while line is not None:
        try:
            todo = waiting.popleft()
        except IndexError:
            return
        process.send(base64.b64encode(pickle.dumps(todo)) + b"\n")
        line = process.receive()
        answers.put((todo, line))


def on_cluster(
    export: ShardExport, todos: Sequence[Todo], *, code: UserCode, address: str
) -> Generator[tuple[Todo, Exported]]:
    """Yield exported label shards as they are finished by tasks of a cluster.

    Raises:
        PlanError: nothing answers at the address.
        RunError: Ray failed.
    """
    from raysp.cluster.connection import connected
    from raysp.cluster.tasks import map_tasks

    with connected(address):
        for todo, answer in map_tasks(export_shard, export.to_bytes(code), todos):
            yield todo, _exported(export, todo, answer)


def export_shard(data: bytes, todo: Todo) -> Answer:
    """Write the files of a label shard in a task of a cluster."""
    return _loaded(data).answer(todo)


@functools.lru_cache(maxsize=1)
def _loaded(data: bytes) -> ShardExport:
    tracebacks.refuse_debuggers()
    return ShardExport.from_file(io.BytesIO(data))


def _exported(export: ShardExport, todo: Todo, answer: Answer) -> Exported:
    """Return a label shard that another process has exported, or export it here if there is none."""
    if isinstance(answer, RayspError):
        raise answer
    return answer or export(todo)


def main() -> None:
    """Export label shards, and write the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries is no answer
    export = ShardExport.from_file(sys.stdin.buffer)
    todos: queue.SimpleQueue[Todo] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, todos.put), daemon=True).start()
    while True:
        answers.write(base64.b64encode(pickle.dumps(export.answer(todos.get()))) + b"\n")
        answers.flush()


def _read(requests: BinaryIO, put: Callable[[Todo], None]) -> None:
    """Read each request as soon as it arrives, and end the process at the end of them."""
    for line in requests:
        put(pickle.loads(base64.b64decode(line)))
    os._exit(0)


if __name__ == "__main__":
    main()
