"""Processes that search the texts of batches on idle cores of the host, while the device runs other batches.

A search holds Python's lock for most of its time, and would delay the launch of the next pass. The processes run at a
low priority, so that decoding and launches come first. Batches that wait for a process are searched together, which
takes less time than one after another. The texts equal the texts of a search in this process, to the last bit: a batch
whose process ends early is searched here.
"""

import contextlib
import functools
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raysp.devices import num_cpus
from raysp.ops.transcripts.searched_texts import FoundTexts, SearchSettings
from raysp.text.beams.search import TopFrames
from raysp.words import ending

logger = logging.getLogger(__name__)

MAIN = "raysp.ops.transcripts.search_process"
MOST_PROCESSES = 16
"""Largest number of processes of an actor."""
MOST_TOGETHER = 2
"""Batches that a process searches at once. More would take less time, but more memory of the device."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(eq=False)
class _Request:
    """A batch to search."""

    packed: bytes
    frames: TopFrames
    num_frames: Sequence[int]
    is_taken: bool = False
    texts: FoundTexts | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class SearchProcesses:
    """Up to `most` processes; one starts when all others are busy. They end with this object or this process."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._idle: list[_SearchProcess] = []
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []
        self._busy = 0
        weakref.finalize(self, _close, self._idle)

    def search(self, packed: bytes, frames: TopFrames, num_frames: Sequence[int]) -> FoundTexts | None:
        """Return the texts of a batch by pickled settings; None if its process fails. Thread-safe.

        The calling thread waits, without Python's lock, for a free process and for its answer.
        """
        request = _Request(packed, frames, num_frames)
        if together := self._together(request):
            try:
                self._ask(together)
            finally:
                self._free(together)
        request.ended.wait()
        return request.texts

    def _together(self, request: _Request) -> list[_Request]:
        """Wait for a free process, and return the requests for it; empty if another thread took this request."""
        with self._changed:
            self._waiting.append(request)
            self._changed.wait_for(lambda: request.is_taken or self._busy < self.most)
            if request.is_taken:
                return []
            similar = [other for other in self._waiting if other.packed == request.packed and other is not request]
            together = [request, *similar[: MOST_TOGETHER - 1]]
            for taken in together:
                taken.is_taken = True
                self._waiting.remove(taken)
            self._busy += 1
            self._changed.notify_all()
        return together

    def _ask(self, requests: Sequence[_Request]) -> None:
        process = self._process()
        answer = process.ask((requests[0].packed, [(request.frames, request.num_frames) for request in requests]))
        if process.is_running:
            self._idle.append(process)
        if answer is not None:
            for request, texts in zip(requests, answer, strict=True):
                request.texts = texts

    def _free(self, requests: Sequence[_Request]) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()
        for request in requests:
            request.ended.set()

    def start(self) -> None:
        """Start a process before the first batch, unless one is idle."""
        if not self._idle:
            self._idle.append(_SearchProcess())

    def _process(self) -> "_SearchProcess":
        # Not `if self._idle`: another thread may take the last process between the check and `pop`.
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return _SearchProcess()


@functools.cache
def processes() -> SearchProcesses:
    """Return the processes that all searches of this process share: one for each core but one."""
    return SearchProcesses(max(1, min(MOST_PROCESSES, num_cpus() - 1)))


def packed(settings: SearchSettings) -> bytes:
    """Return pickled settings for `SearchProcesses.search`."""
    return pickle.dumps(settings)


class _SearchProcess:
    """One process, which answers one request at a time."""

    def __init__(self) -> None:
        package = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self.is_running = True
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
            start_new_session=True,  # signals of a terminal go to this process, which ends the other
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, request: object) -> list[FoundTexts] | None:
        """Return the answer to a request; None without an answer, with a warning that states the reason."""
        try:
            pickle.dump(request, self._requests, protocol=pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
            answer = pickle.load(self._answers)
        except (OSError, EOFError, pickle.UnpicklingError):
            self.close()
            logger.warning("a process that searches texts ended with %s", ending(self._process.returncode))
            return None
        if isinstance(answer, str):
            logger.warning("a process that searches texts failed: %s", answer)
            return None
        texts: list[FoundTexts] = answer
        return texts

    def close(self) -> None:
        """End the process."""
        self.is_running = False
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()


def _close(idle: list[_SearchProcess]) -> None:
    for process in idle:
        process.close()
