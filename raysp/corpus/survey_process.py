"""Main program of the processes of `surveys`, which survey shards for a plan.

It reads a pickled `Reading` and then chunks of shards from stdin, a line of JSON each, and writes an answer per chunk
to stdout. It ends with its standard input, hence with the process that plans.
"""

import json
import os
import pickle
import queue
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from raysp.corpus.surveys import AT_ONCE, Listed, Reading, Surveyed, encode

Calls = list[Future[list[Surveyed]]]

FAILED = b"null\n"
"""Answer for a chunk with an unexpected error; the process that plans surveys it again, and raises the error."""


def main() -> None:
    """Survey the shards, and write the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is not an answer
    reading: Reading = pickle.load(sys.stdin.buffer)
    begun: queue.SimpleQueue[Calls] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, reading, begun), daemon=True).start()
    while True:
        answers.write(_answer(begun.get()))
        answers.flush()


def _read(requests: BinaryIO, reading: Reading, begun: "queue.SimpleQueue[Calls]") -> None:
    """Begin the surveys of each chunk as soon as it arrives, and end the process at the end of the requests."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in requests:
            begun.put(reading.begin(pool, [Listed(*fields) for fields in json.loads(line)]))
        os._exit(0)


def _answer(calls: Sequence["Future[list[Surveyed]]"]) -> bytes:
    try:
        return encode([survey for call in calls for survey in call.result()])
    except Exception:
        return FAILED


if __name__ == "__main__":
    main()
