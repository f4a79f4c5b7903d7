"""Main program of the processes of `indexes`, which index shards for a training.

It reads the user's code and an `Indexer`, pickled, and then a shard per line from stdin, and writes an answer per shard
to stdout. It ends with its standard input, hence with the process that trains.
"""

import base64
import os
import pickle
import queue
import sys
import threading
from typing import BinaryIO

from raysp.audio.isolation import Decoder
from raysp.corpus.shards import Shard
from raysp.specs.code import UserCode


def main() -> None:
    """Index the shards, and write the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries is no answer
    code: UserCode = pickle.load(sys.stdin.buffer)
    code.install()  # before anything of the user's is unpickled
    from raysp.training.data.indexes import FAILED, Indexer, to_line

    indexer: Indexer = pickle.load(sys.stdin.buffer)
    shards: queue.SimpleQueue[Shard] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, shards), daemon=True).start()
    with Decoder() as decoder:
        while True:
            try:
                answer = to_line(indexer(shards.get(), decoder))
            except Exception:
                answer = FAILED
            answers.write(answer)
            answers.flush()


def _read(requests: BinaryIO, shards: "queue.SimpleQueue[Shard]") -> None:
    """Read each request as soon as it arrives, and end the process at the end of them."""
    for line in requests:
        shards.put(pickle.loads(base64.b64decode(line)))
    os._exit(0)


if __name__ == "__main__":
    main()
