"""Surveys of many shards, in order: by threads of this process, or by processes where there are very many shards.

A survey waits for its store, and then takes some tenths of a millisecond in which the interpreter runs one thread only.
So a million surveys in one process take the time of one core. The processes import neither torch nor Ray. They only
save time: shards of a process that ended early are surveyed by this one.
"""

import base64
import json
import logging
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import pyarrow as pa

from raysp.corpus import sources
from raysp.corpus.shards import Group, Options, Survey
from raysp.errors import ShardError, StoreError
from raysp.words import ending

logger = logging.getLogger(__name__)


class LineProcess:
    """A process that reads values from its standard input, then requests, and writes an answer to each.

    It inherits the environment, and gets everything else by a pipe, with references to the environment unresolved. It
    must end with its standard input, hence with this process.

    Args:
        main: its main module.
        values: values that it reads first, pickled.
        work: predicate for the log, such as "reads footers".
    """

    def __init__(self, main: str, values: bytes, work: str) -> None:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._work = work
        self._has_ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", main],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # signals of a terminal are for this process, which ends the other
        )
        self.send(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended = True  # on purpose
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def send(self, request: bytes) -> None:
        """Send a request, which ends with its only line break; the process reads it at once."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which `receive` finds
            self._process.stdin.write(request)
            self._process.stdin.flush()

    def receive(self) -> bytes | None:
        """Wait for the answer to the first request without one; None if the process has ended."""
        assert self._process.stdout is not None
        line = b"" if self._has_ended else self._process.stdout.readline()
        # An answer without its line break was cut off by the end of the process.
        if not line.endswith(b"\n"):
            self._end()
            return None
        return line

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            code = self._process.wait()
            ended = ending(code)
            logger.warning("a process that %s ended with %s; this process does the rest for it", self._work, ended)


AT_ONCE = 32
"""Shards that a process surveys at once; with requests of 20 ms, 1,600 a second."""
MOST_PROCESSES = 4
"""With 1,000 surveys a second each, four stay below the 5,500 GET a second that Amazon S3 serves for one prefix."""
WORTH_PROCESSES = 5_000
"""Shards from which several processes are faster than one; starting each takes most of a second of a core."""
SHARDS_A_CHUNK = 256
CHUNKS_AHEAD = 2
"""Chunks begun before the first of them is finished, so that no thread or process waits for the next."""
SHARDS_A_CALL = 8
"""Shards that a thread surveys in turn where there are many: handing over each alone takes longer than it saves."""
MAIN = "raysp.corpus.survey_process"

Surveyed = Survey | str
"""Survey of a shard, or why it cannot be read."""


class Target(Protocol):
    """A shard to survey; it has the attributes of `Shard`."""

    @property
    def kind(self) -> str:
        """Name of its kind of source."""
        ...

    @property
    def url(self) -> str:
        """Url of its file."""
        ...

    @property
    def part(self) -> str:
        """Part of the file's content; empty for the whole file."""
        ...


class Listed(NamedTuple):
    """A shard to survey as it is sent to a process."""

    kind: str
    url: str
    part: str


@dataclass(frozen=True, slots=True)
class Reading:
    """Columns and options with which every shard is read.

    Args:
        storage_options: options of the shards' storage.
        columns: columns that will be read later.
    """

    storage_options: Options
    columns: tuple[str, ...]

    def survey(self, targets: Sequence[Target]) -> list[Surveyed]:
        """Survey shards one after the other."""
        surveys: list[Surveyed] = []
        for target in targets:
            try:
                surveys.append(sources.survey(target.kind, target.url, target.part, self.storage_options, self.columns))
            except (ShardError, StoreError) as error:
                surveys.append(str(error))
        return surveys

    def begin(self, pool: ThreadPoolExecutor, targets: Sequence[Target]) -> "list[Future[list[Surveyed]]]":
        """Begin to survey shards by the threads of a pool; the results of the calls are in order."""
        size = SHARDS_A_CALL if len(targets) >= SHARDS_A_CHUNK else 1
        return [pool.submit(self.survey, targets[at : at + size]) for at in range(0, len(targets), size)]


def survey_all(targets: Sequence[Target], reading: Reading, processes: int = 1) -> Generator[Surveyed]:
    """Yield the surveys of shards in order; a bounded number is surveyed ahead.

    Args:
        targets: the shards.
        reading: what is read of them.
        processes: processes that may be used. They start if there are enough shards, each a file of its own.
    """
    number = min(processes, MOST_PROCESSES)
    if number > 1 and len(targets) >= WORTH_PROCESSES and not any(_is_sliced(target.kind) for target in targets):
        return _by_processes(targets, reading, number)
    return _by_threads(targets, reading)


def _is_sliced(kind: str) -> bool:
    return sources.kind_named(kind).is_sliced


def _chunks(targets: Sequence[Target]) -> Iterator[Sequence[Target]]:
    return (targets[at : at + SHARDS_A_CHUNK] for at in range(0, len(targets), SHARDS_A_CHUNK))


def _by_threads(targets: Sequence[Target], reading: Reading) -> Generator[Surveyed]:
    begun: deque[Future[list[Surveyed]]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for chunk in _chunks(targets):
                calls = reading.begin(pool, chunk)
                begun += calls
                while len(begun) > CHUNKS_AHEAD * len(calls):
                    yield from begun.popleft().result()
            while begun:
                yield from begun.popleft().result()
        finally:
            for call in begun:
                call.cancel()


def _by_processes(targets: Sequence[Target], reading: Reading, number: int) -> Generator[Surveyed]:
    begun: deque[tuple[_Process, Sequence[Target]]] = deque()
    with ExitStack() as stack:
        processes = [stack.enter_context(_Process(reading)) for _ in range(number)]
        for place, chunk in enumerate(_chunks(targets)):
            # In turn, so that the first chunk without an answer is the next answer of its process.
            process = processes[place % number]
            process.send(chunk)
            begun.append((process, chunk))
            if len(begun) > CHUNKS_AHEAD * number:
                yield from _answered(*begun.popleft(), reading)
        while begun:
            yield from _answered(*begun.popleft(), reading)


def _answered(process: "_Process", chunk: Sequence[Target], reading: Reading) -> Generator[Surveyed]:
    """Yield the surveys of the other process, or of this process once the other one has ended or failed."""
    surveys = process.receive()
    yield from _by_threads(chunk, reading) if surveys is None else surveys


class _Process:
    """A process that surveys chunks of shards."""

    def __init__(self, reading: Reading) -> None:
        self._lines = LineProcess(MAIN, pickle.dumps(reading), "reads footers")
        self._schemas: dict[str, pa.Schema] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.__exit__(kind, error, trace)

    def send(self, chunk: Sequence[Target]) -> None:
        """Send shards; the process reads them at once."""
        self._lines.send(f"{json.dumps([[target.kind, target.url, target.part] for target in chunk])}\n".encode())

    def receive(self) -> list[Surveyed] | None:
        """Wait for the surveys of the first chunk without an answer; None if it failed or the process has ended."""
        line = self._lines.receive()
        if line is None:
            return None
        answer = json.loads(line)
        if answer is None:
            return None
        schemas = [self._schemas.get(raw) or _schema(raw) for raw in answer["schemas"]]
        # Those of the last answer alone: a corpus may have a schema for each shard.
        self._schemas = dict(zip(answer["schemas"], schemas, strict=True))
        return [fields if isinstance(fields, str) else _decoded(fields, schemas) for fields in answer["surveys"]]


def encode(surveys: Sequence[Surveyed]) -> bytes:
    """Return surveys as a line of JSON in which equal schemas are written once."""
    schemas: list[pa.Schema] = []
    encoded: list[str | Fields] = []
    for survey in surveys:
        if isinstance(survey, str):
            encoded.append(survey)
            continue
        if not schemas or not survey.schema.equals(schemas[-1], check_metadata=True):
            schemas.append(survey.schema)
        fields = (survey.num_rows, survey.groups, survey.digest, sorted(survey.nulls), survey.seconds, survey.part)
        encoded.append((len(schemas) - 1, *fields))
    raw = [base64.b64encode(schema.serialize().to_pybytes()).decode() for schema in schemas]
    return f"{json.dumps({'schemas': raw, 'surveys': encoded})}\n".encode()


Fields = tuple[int, int, Sequence[tuple[int, int, float]], str, list[str], float | None, str]
"""Survey in JSON: number of the schema, rows, groups, digest, nulls, seconds, part."""


def _decoded(fields: Fields, schemas: Sequence[pa.Schema]) -> Survey:
    schema, num_rows, groups, digest, nulls, seconds, part = fields
    named = [Group(*group) for group in groups]
    return Survey(schemas[schema], num_rows, named, digest, frozenset(nulls), seconds, part)


def _schema(raw: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(raw)))
