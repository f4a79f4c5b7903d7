"""Process that labels the pieces of a small run, started while the run is planned."""

import contextlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING

from raysp.errors import RayspError
from raysp.words import ending

if TYPE_CHECKING:  # a run imports them while the process starts
    from raysp.labelling.engine.workers.job import Job
    from raysp.labelling.engine.workers.messages import Message

MAIN = "raysp.labelling.engine.workers.alone"
LAST_LINES = 5
"""Lines of the output of a process that ended early, for the log."""


class EndedEarlyError(Exception):
    """The process ended before all pieces were labelled."""


class LabelProcess:
    """A process that labels one list of pieces. It imports torch and the models before it is given the job."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is None:
            self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._process = subprocess.Popen(
                [sys.executable, "-m", MAIN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A file, since a pipe that is not read blocks the process once it is full.
                stderr=self._output,
                start_new_session=True,  # signals of a terminal are for the driver, which ends this process
            )

    def label(self, job: "Job", pieces: Sequence[str]) -> "Generator[Message]":
        """Label serialised pieces, and yield the messages of the process, which ends with this generator.

        Raises:
            RayspError: the process could not load the model.
            EndedEarlyError: the process crashed, or was ended from outside or by its watchdog.
        """
        from raysp.labelling.engine.workers.messages import RAISED, from_json

        self.start()
        process, output = self._process, self._output
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        assert output is not None
        try:
            with contextlib.suppress(OSError):  # its exit code tells more
                pickle.dump((job, pieces), process.stdin)
                process.stdin.flush()  # not closed: the process ends when it is
            for line in process.stdout:
                if not line.endswith(b"\n"):  # it crashed while it wrote this message
                    break
                text = line.decode()
                if text.startswith(RAISED):
                    error: RayspError = pickle.loads(bytes.fromhex(text.removeprefix(RAISED)))
                    raise error
                yield from_json(text)
            if (code := process.wait()) != 0:
                raise EndedEarlyError(_describe(code, output))
        finally:
            self.close()

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdout, self._process.stdin, self._output):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            self._process = self._output = None


_EARLY: ContextVar[LabelProcess | None] = ContextVar("early", default=None)


@contextlib.contextmanager
def started_early() -> Iterator[None]:
    """Start a process that a run in this context takes over, before the modules of the run are imported.

    It ends with the context. A run that needs Ray ends it first.
    """
    process = LabelProcess()
    process.start()
    token = _EARLY.set(process)
    try:
        yield
    finally:
        _EARLY.reset(token)
        process.close()


def of_this_run() -> LabelProcess:
    """Return the process that was started early, else one that has not started."""
    return _EARLY.get() or LabelProcess()


def _describe(code: int, output: IO[bytes]) -> str:
    """Return a text on the end of a process: its signal or exit code, and the last lines that it printed."""
    ended = ending(code)
    output.seek(0)
    lines = output.read().decode(errors="replace").splitlines()[-LAST_LINES:]
    return f"the labelling process ended with {ended}" + (f" ({' | '.join(lines)})" if lines else "")
