"""Kit for tests that come in where users do: it imports `raysp` and its command line, and nothing below them.

- `corpus`: real digits in Parquet shards, a manifest, a folder or tar files, with faults by name and their outcomes.
- `run`, `killed_at`: a command line in this process, or in one of its own that dies at a phase of the run.
- `planned`: the plan of a pipeline with settings of the command line.
- `interrupted`, `begun`: a run in this process that ends after its first block, or before it labels.
- `rows`, `planned_shards`: the label rows of a sink, and the shards that runs have recorded in it.
- `failing_files`: a file system, reached by url, that fails or dies at its n-th change.
"""

import contextlib
import errno
import io
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem

import raysp
from raysp.cli import main
from tests import forked

CHECKOUT = Path(__file__).parents[1]
DEMO = CHECKOUT / "pipelines" / "demo"
CHECKPOINT = DEMO / "unispeech-digits-ctc"
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MAX_SECONDS = 5.0
"""Limit of `Corpus.pipeline`; a digit takes less than a second."""
PHASES = ("plan_written", "piece_staged", "shard_committed", "stage_removed", "run_finished")
"""Phases at which `killed_at` ends a run, each with `before_` or `after_`."""
DEAD = 137
"""Code of the SystemExit that stands for the death of a process."""
CRASH = b"raysp-test-crash"
"""Mark of recordings that end the decoding process, where `Corpus.variables` are set."""


# Recordings ----------------------------------------------------------------------------------------------------------


def digits(number: int, first: int = 0) -> list[dict[str, Any]]:
    """Return recordings of spoken digits: dictionaries of id, audio (WAV bytes), text and speaker_id."""
    table = pa.concat_tables([pq.read_table(file) for file in sorted((DEMO / "audio").glob("*.parquet"))])
    found = table.slice(first, number).select(["id", "audio", "text", "speaker_id"]).to_pylist()
    return [{**row, "audio": row["audio"]["bytes"]} for row in found]


def sound(samples: np.ndarray, rate: int = 16_000, form: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    """Return samples of shape (frames,) or (frames, channels) as the bytes of a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def _samples(wav: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(wav), dtype="float32")


def _with_rate(wav: bytes, rate: int) -> bytes:
    return wav[:24] + rate.to_bytes(4, "little") + wav[28:]


def _cut_flac(wav: bytes) -> bytes:
    flac = sound(*_samples(wav), form="FLAC")
    return flac[: len(flac) // 2]


def _nan(wav: bytes) -> bytes:
    samples, rate = _samples(wav)
    samples[len(samples) // 2] = np.nan
    return sound(samples, rate, subtype="FLOAT")


def _marked(wav: bytes) -> bytes:
    start = wav.index(b"data") + 8
    return wav[:start] + CRASH + wav[start + len(CRASH) :]


@dataclass(frozen=True)
class Fault:
    """A fault of one row: what becomes of its recording, and what of its label."""

    status: str = "error"
    error_type: str | None = None
    audio: Callable[[bytes], bytes | None] = bytes
    """Function of the good recording."""
    path: str | None = None
    """Path of the recording in place of its bytes."""
    kinds: Sequence[str] = ("parquet", "manifest", "folder", "tar")
    """Kinds of corpora that can have it."""
    id: Callable[[dict[str, Any]], str | None] | None = None
    """Function of the first row of the corpus."""


_BY_PATH = ("parquet", "manifest")
FAULTS = {
    "null": Fault("error", "no_audio", lambda wav: None, kinds=("parquet", "tar")),
    "empty": Fault("error", "no_audio", lambda wav: b"", kinds=("parquet", "manifest", "folder")),
    "not_audio": Fault("error", "unsupported_format", lambda wav: b"<!doctype html><title>Not found</title>" * 20),
    "truncated": Fault("error", "corrupt_audio", _cut_flac),
    "no_samples": Fault("error", "corrupt_audio", lambda wav: wav[: wav.index(b"data") + 8]),
    "nan_samples": Fault("error", "invalid_audio", _nan),
    "no_rate": Fault("error", "invalid_audio", lambda wav: _with_rate(wav, 0)),
    "crash_decoder": Fault("error", "decoder_crashed", _marked),
    "missing_path": Fault("error", "not_found", path="gone.wav", kinds=_BY_PATH),
    "path_outside": Fault("error", "path_not_allowed", path="../outside.wav", kinds=_BY_PATH),
    "path_elsewhere": Fault("error", "path_not_allowed", path="http://127.0.0.1:9/a.wav", kinds=_BY_PATH),
    "too_short": Fault("skipped", "too_short", lambda wav: sound(np.zeros(20, np.float32))),
    "too_long": Fault("skipped", "too_long", lambda wav: sound(np.tile(_samples(wav)[0], 80), 8_000)),
    "cut": Fault("ok", None, lambda wav: wav[: len(wav) * 3 // 4]),
    "silence": Fault("ok", None, lambda wav: sound(np.zeros(8_000, np.float32))),
    "stereo": Fault("ok", None, lambda wav: sound(np.stack([_samples(wav)[0]] * 2, axis=1), 8_000)),
    "duplicate_id": Fault("ok", None, kinds=_BY_PATH, id=lambda first: first["id"]),
    "null_id": Fault("ok", None, kinds=("parquet",), id=lambda first: None),
}
"""Faults by name."""


# Corpora -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """What a row of a corpus becomes."""

    id: str | None
    status: str
    error_type: str | None
    fault: str | None


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk."""

    url: str
    """Url for `raysp.Shards`."""
    audio_root: str | None
    """Folder of recordings given by path, where `raysp.Shards` needs it."""
    expected: tuple[Expected, ...]
    """Label rows in the order of `rows`."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables of processes that label it."""

    def pipeline(
        self,
        sink: object,
        outputs: Sequence[object] = (raysp.Transcript(),),
        steps: Sequence[object] = (),
        source: Mapping[str, Any] | None = None,
        label: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> raysp.Pipeline:
        """Return a pipeline by the small digits checkpoint.

        Args:
            sink: url, path, or a `raysp.Parquet`.
            outputs: outputs of `Label`.
            steps: steps between `Decode` and `Label`.
            source: further fields of `Shards`.
            label: further fields of `Label`.
            keywords: further fields of `Pipeline`.
        """
        given = {"audio_root": self.audio_root} if self.audio_root else {}
        return raysp.Pipeline(
            source=raysp.Shards(self.url, **given, **(source or {})),
            steps=[
                raysp.Decode(max_seconds=MAX_SECONDS),
                *steps,
                raysp.Label(str(CHECKPOINT), outputs=list(outputs), **(label or {})),
            ],
            sink=sink if isinstance(sink, raysp.Parquet) else raysp.Parquet(str(sink)),
            **{"max_error_rate": 1.0, **keywords},
        )

    def file(self, path: Path, sink: object, **keywords: Any) -> Path:
        """Write a pipeline file for the command line; keywords are those of `pipeline`."""
        return pipeline_file(path, self.pipeline(sink, **keywords))


def pipeline_in(path: object) -> raysp.Pipeline:
    """Return the pipeline that a Python file defines."""
    return runpy.run_path(str(path))["pipeline"]


def pipeline_file(path: Path, pipeline: raysp.Pipeline) -> Path:
    """Write a pipeline as the Python of its representation."""
    code = repr(pipeline)
    names = sorted({name for name in re.findall(r"\b([A-Z]\w+)\(", code) if hasattr(raysp, name)})
    path.write_text(f"from raysp import {', '.join(names)}\n\npipeline = {code}\n")
    return path


def corpus(
    folder: Path,
    rows: int = 6,
    faults: Sequence[str] | Mapping[int, str] = (),
    kind: str = "parquet",
    shards: int = 1,
    first: int = 0,
) -> Corpus:
    """Write a small corpus of real digits.

    Args:
        folder: folder to write into; made if it is not there.
        rows: rows without a fault.
        faults: names of FAULTS, each of a further row: at the given places, else one after every second good row.
        kind: "parquet", "manifest" (JSON lines), "folder" (of audio files) or "tar".
        shards: number of Parquet or tar files; rows go to them in order.
        first: number of the first digit of the demo.
    """
    places = (
        faults if isinstance(faults, Mapping) else {min(3 * i + 2, rows + i): name for i, name in enumerate(faults)}
    )
    sources = iter(digits(rows + len(places), first))
    made = [_row(next(sources), places.get(place), kind) for place in range(rows + len(places))]
    for place, name in places.items():
        if (new_id := FAULTS[name].id) is not None:
            made[place]["id"] = new_id(made[0])
    folder.mkdir(parents=True, exist_ok=True)
    url, root = _WRITERS[kind](folder, made, shards)
    expected = [Expected(row["id"], *_outcome(row["fault"]), row["fault"]) for row in made]
    if kind == "folder":
        expected.sort(key=lambda row: str(row.id))
    crashes = "crash_decoder" in places.values()
    return Corpus(url, root, tuple(expected), {"RAYSP_DECODER_FAULTS": f"{CRASH.decode()}=SIGSEGV"} if crashes else {})


def _outcome(name: str | None) -> tuple[str, str | None]:
    return ("ok", None) if name is None else (FAULTS[name].status, FAULTS[name].error_type)


def _row(good: dict[str, Any], name: str | None, kind: str) -> dict[str, Any]:
    if name is None:
        return {**good, "path": None, "fault": None}
    fault = FAULTS[name]
    if kind not in fault.kinds:
        raise ValueError(f"corpus: found the fault {name!r} for a {kind}, expected one of {', '.join(fault.kinds)}")
    audio = None if fault.path else fault.audio(good["audio"])
    return {**good, "audio": audio, "path": fault.path, "fault": name}


def _write_parquet(folder: Path, made: Sequence[dict[str, Any]], shards: int) -> tuple[str, str | None]:
    (folder / "recordings").mkdir(exist_ok=True)
    for number, part in enumerate(_parts(made, shards)):
        audio = [
            {"bytes": row["audio"], "path": row["path"]} if row["audio"] or row["path"] else _nothing(row)
            for row in part
        ]
        names = ("id", "text", "speaker_id")
        columns = {name: pa.array([row[name] for row in part], pa.string()) for name in names}
        table = pa.table({**columns, "audio": pa.array(audio, AUDIO)})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=4)
    return f"{folder}/*.parquet", str(folder / "recordings")


def _nothing(row: dict[str, Any]) -> dict[str, Any] | None:
    return None if row["audio"] is None else {"bytes": row["audio"], "path": None}


def _write_manifest(folder: Path, made: Sequence[dict[str, Any]], shards: int) -> tuple[str, str | None]:
    lines = []
    for number, row in enumerate(made):
        path = row["path"] or f"{number}.wav"
        if row["path"] is None:
            (folder / path).write_bytes(row["audio"])
        names = ("id", "text", "speaker_id")
        lines.append(json.dumps({"audio_filepath": path, **{name: row[name] for name in names}}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "manifest.jsonl"), None


def _write_folder(folder: Path, made: Sequence[dict[str, Any]], shards: int) -> tuple[str, str | None]:
    for row in made:
        (folder / f"{row['id']}.wav").write_bytes(row["audio"])
        (folder / f"{row['id']}.txt").write_text(row["text"])
        row["id"] = f"{row['id']}.wav"
    return str(folder), None


def _write_tar(folder: Path, made: Sequence[dict[str, Any]], shards: int) -> tuple[str, str | None]:
    for number, part in enumerate(_parts(made, shards)):
        with tarfile.open(folder / f"part-{number}.tar", "w") as archive:
            for row in part:
                members = {"wav": row["audio"], "txt": row["text"].encode()}
                for suffix, data in members.items():
                    if data is not None:
                        member = tarfile.TarInfo(f"{row['id']}.{suffix}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
    return f"{folder}/*.tar", None


_WRITERS = {"parquet": _write_parquet, "manifest": _write_manifest, "folder": _write_folder, "tar": _write_tar}


def _parts(made: Sequence[dict[str, Any]], number: int) -> Iterator[Sequence[dict[str, Any]]]:
    each = -(-len(made) // number)
    return (made[first : first + each] for first in range(0, len(made), each))


# Commands ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """Result of a command."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """Lines on stderr without the first line of a run, and without progress, which a slow run prints."""
        return [
            line for line in self.err.splitlines() if not re.match(r"raysp: (looking at |labelling |\d+% · )", line)
        ]


def run(line: str | Sequence[object], **variables: str) -> Ran:
    """Run a command line of raysp in this process, without the word `raysp`, by the engine `here`.

    Args:
        line: the arguments, quoted as for a shell, or a list of them.
        variables: environment variables while it runs.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    path = [*sys.path]
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("RAYSP_DEBUG", raising=False)
        for name, value in {"RAYSP_ENGINE": "here", **variables}.items():
            patched.setenv(name, value)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main(_arguments(line))
    sys.path[:] = path
    return Ran(int(stop.value.code or 0), *(stream.buffer.getvalue().decode() for stream in (out, err)))


def killed_at(phase: str, n: int, line: str | Sequence[object], **variables: str) -> Ran:
    """Run a command line in a process of its own that is killed at the n-th passing of a phase; check that it was.

    Args:
        phase: `before_` or `after_` and one of PHASES, or a phase of a training.
        n: from 1.
        line: as for `run`.
        variables: further environment variables.
    """
    with tempfile.TemporaryDirectory() as folder:
        at = {"RAYSP_FAIL_AT": f"{phase}:{n}", "RAYSP_FAIL_FOLDER": folder}
        ran = run_forked(line, **at, **variables)
    assert ran.code == -signal.SIGKILL, f"not killed at {phase}:{n}, but ended with {ran.code}: {ran.err}"
    return ran


def planned(pipeline: raysp.Pipeline, folder: Path, *settings: str) -> Ran:
    """Plan a pipeline on the command line with settings for `--set`, and print the plan as JSON.

    Args:
        pipeline: the pipeline, which is written to a file.
        folder: folder for that file.
        settings: settings as `PATH=VALUE`.
    """
    file = pipeline_file(folder / "planned_by_the_kit.py", pipeline)
    options = [part for setting in settings for part in ("--set", setting)]
    return run(["plan", file, "--sample", "0", "--json", *options])


def run_forked(line: str | Sequence[object], **variables: str) -> Ran:
    """Run a command line in a process that is forked once raysp is imported, with the arguments of `run`."""
    environment = {**os.environ, "RAYSP_ENGINE": "here", **variables}
    return Ran(*forked.python(["-m", "raysp", *_arguments(line)], environment))


def run_apart(line: str | Sequence[object], **variables: str) -> Ran:
    """Run a command line in a new process, with the arguments of `run`."""
    ran = subprocess.run(
        [sys.executable, "-m", "raysp", *_arguments(line)],
        env={**os.environ, "RAYSP_ENGINE": "here", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def _arguments(line: str | Sequence[object]) -> list[str]:
    return shlex.split(line) if isinstance(line, str) else [str(one) for one in line]


# Runs that end early -------------------------------------------------------------------------------------------------


def interrupted(pipeline: raysp.Pipeline, num_rows: int = 1) -> None:
    """Run a pipeline in this process, with Ctrl-C once that many rows are staged, by default the first piece.

    A shard that is complete then is committed, unless it has error rows.
    """

    def stop(progress: Any) -> None:
        if progress.staged.rows >= num_rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        raysp.run(pipeline, engine="here", progress=False, on_progress=stop)


def begun(pipeline: raysp.Pipeline, source: Path) -> None:
    """Run a pipeline whose source, a file or folder, is away once it is planned: all is recorded, nothing labelled."""
    away = source.with_name(f"{source.name}.away")
    with pytest.raises(raysp.RunError):
        raysp.run(pipeline, engine="here", progress=False, on_plan=lambda _: source.rename(away))
    away.rename(source)


# Sinks ---------------------------------------------------------------------------------------------------------------


def rows(sink: object, *columns: str, options: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
    """Return the label rows that a reader of a sink sees: by the names of its label shards, then in their order.

    Args:
        sink: path or url.
        columns: columns to keep; all if there are none.
        options: storage options, as in a pipeline.
    """
    found: list[dict[str, Any]] = []
    for data in label_shards(sink, options).values():
        found += pq.read_table(pa.BufferReader(data), columns=list(columns) or None).to_pylist()
    return found


def label_shards(sink: object, options: Mapping[str, object] | None = None) -> dict[str, bytes]:
    """Return the bytes of the label shards of a sink by their names."""
    given = {
        name: os.environ[value.name] if isinstance(value, raysp.Env) else value
        for name, value in (options or {}).items()
    }
    files, root = fsspec.core.url_to_fs(str(sink), **given)
    files.invalidate_cache()
    names = {name.removeprefix(root).lstrip("/"): name for name in files.find(root)}
    wanted = {
        name: path for name, path in names.items() if name.endswith(".parquet") and not name.startswith(".raysp/")
    }
    return {name: files.cat_file(wanted[name]) for name in sorted(wanted)}


def planned_shards(sink: Path) -> list[dict[str, Any]]:
    """Return the shards that runs have recorded in a sink on disk, with their pieces, in the order of recording."""
    found: list[dict[str, Any]] = []
    for file in sorted(sink.glob(".raysp/plan/*.arrow"), key=lambda file: int(file.stem)):
        with file.open("rb") as opened, pa.ipc.open_stream(opened) as part:
            found += part.read_all().to_pylist()
    return found


def outcomes(labels: Sequence[Mapping[str, Any]]) -> list[tuple[str | None, str, str | None]]:
    """Return id, status and error_type of label rows, to compare with `Corpus.expected`."""
    return [(row["id"], row["status"], row["error_type"]) for row in labels]


# Files that fail -----------------------------------------------------------------------------------------------------


class FailingFiles:
    """A file system of `memory://` urls that counts its changes (files written, copied or removed) and fails at one.

    raysp writes only to schemes whose files appear in one step. Of these `memory://` is the one that fsspec lets a test
    replace, so the files come in by url, past no part of raysp.
    """

    def __init__(self) -> None:
        self.changes = 0
        """Changes so far, those that failed included."""
        self.changed: list[str] = []
        """Paths of the changes that were made, in order."""
        self._at: int | None = None
        self._how = "error"
        self._is_dead = False
        self._lock = threading.Lock()

    def url(self, name: str = "") -> str:
        """Return the url of a path."""
        return f"memory://{name}"

    def put(self, folder: Path, name: str) -> None:
        """Copy the files of a folder there, uncounted."""
        self.revive()
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = f"{self.url(name)}/{file.relative_to(folder).as_posix()}"
            fsspec.filesystem("memory").pipe_file(place, file.read_bytes())
        self.changes = 0

    def content(self, name: str) -> dict[str, bytes]:
        """Return the files of a folder that are not temporary, by their paths in it."""
        self.revive()
        files = fsspec.filesystem("memory")
        found = {path.removeprefix(f"/{name}/"): path for path in files.find(f"/{name}")}
        return {path: files.cat_file(found[path]) for path in sorted(found) if not path.startswith(".raysp/tmp")}

    def remove(self, path: str) -> None:
        """Remove a file, uncounted."""
        self.revive()
        fsspec.filesystem("memory").rm_file(f"/{path}")

    def fail_at(self, n: int, how: str = "error") -> None:
        """Fail at the n-th change from now on.

        Args:
            n: from 1.
            how: "error": the change is not made, an OSError is raised, and later changes work; "lost": it is made, and
                an OSError is raised, as by a lost answer; "full": neither it nor any later change is made; "death": not
                made, and from then on nothing works: SystemExit(DEAD) is raised.
        """
        self.revive()
        self.changes, self._at, self._how = 0, n, how

    def revive(self) -> None:
        """Fail no more; what was written stays."""
        self._at, self._is_dead = None, False

    @contextlib.contextmanager
    def change(self, path: str) -> Iterator[None]:
        """Count a change, and fail if it is its turn."""
        with self._lock:
            self.changes += 1
            number, at, how = self.changes, self._at, self._how
            self._is_dead = self._is_dead or (how == "death" and number == at)
        self.look()
        if at is not None and ((how == "full" and number >= at) or (how == "error" and number == at)):
            raise OSError(errno.ENOSPC if how == "full" else errno.EIO, f"change {number} failed", path)
        yield
        self.changed.append(path)
        if how == "lost" and number == at:
            raise OSError(errno.EIO, f"the answer to change {number} was lost", path)

    def look(self) -> None:
        """Fail if the process is dead."""
        if self._is_dead and threading.current_thread() is threading.main_thread():
            raise SystemExit(DEAD)
        if self._is_dead:  # pytest would report a SystemExit of another thread
            raise OSError(errno.EIO, "the process is dead")


@contextlib.contextmanager
def failing_files() -> Iterator[FailingFiles]:
    """Put a file system that fails in place of `memory://`, with files of its own."""
    files = FailingFiles()

    class Memory(MemoryFileSystem):
        cachable = False
        store: dict[str, Any] = {}  # noqa: RUF012 - shared by the instances, as in the base
        pseudo_dirs = [""]  # noqa: RUF012

        def _open(self, path: str, mode: str = "rb", **keywords: Any) -> Any:
            files.look()
            with contextlib.nullcontext() if mode == "rb" else files.change(path):
                return super()._open(path, mode, **keywords)

        def cp_file(self, path1: str, path2: str, **keywords: Any) -> None:
            with files.change(path2):
                super().cp_file(path1, path2, **keywords)

        def _rm(self, path: str) -> None:
            with files.change(path):
                super()._rm(path)

        def info(self, path: str, **keywords: Any) -> Any:
            files.look()
            return super().info(path, **keywords)

        def find(self, path: str, *arguments: Any, **keywords: Any) -> Any:
            files.look()
            return super().find(path, *arguments, **keywords)

    fsspec.register_implementation("memory", Memory, clobber=True)
    try:
        yield files
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
