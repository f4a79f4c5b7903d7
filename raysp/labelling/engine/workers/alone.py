"""Main program of the process that labels a small run alone, without Ray.

It reads a pickled job and its pieces from stdin, and writes to stdout a message per line, of `messages`, or the pickled
error of a model that cannot be loaded.
"""

import os
import pickle
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import cast

import pyarrow as pa

from raysp.errors import RayspError
from raysp.labelling.engine.workers.calls_in_order import in_order
from raysp.labelling.engine.workers.job import Job, sleep_while_waiting
from raysp.labelling.engine.workers.label_actor import LabelActor
from raysp.labelling.engine.workers.messages import RAISED
from raysp.labelling.engine.workers.reader import Reader, close_decoder

BLOCKS_AHEAD = 2
"""Blocks decoded while one is labelled."""


def main() -> None:
    """Label the pieces, and write the messages."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a model prints is not a message
    sleep_while_waiting()
    # torch, while the driver is still planning and the first block is decoded
    importing = threading.Thread(target=import_module, args=("raysp.models.loading",))
    importing.start()
    job, pieces = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_driver, args=(sys.stdin.fileno(),), daemon=True).start()
    try:
        for message in _label(job, pieces, importing):
            messages.write(f"{message}\n")
            messages.flush()
    except RayspError as error:
        messages.write(f"{RAISED}{pickle.dumps(error).hex()}\n")
        messages.flush()
    os._exit(0)  # the driver waits for the end, and the interpreter would take most of a second for torch's objects


def _label(job: Job, pieces: Sequence[str], importing: threading.Thread) -> Iterator[str]:
    blocks = queue.Queue[pa.Table | BaseException | None](BLOCKS_AHEAD)
    threading.Thread(target=_read, args=(Reader(job), pieces, blocks), daemon=True).start()
    importing.join()
    actor = LabelActor(job)  # while the first blocks are decoded
    # A device goes from block to block without a gap if it has the next one before it ends one.
    calls = 1 if actor.op.blocks_in_hand == 1 else 1 + actor.op.blocks_in_hand  # one is staged
    for messages in in_order(actor, _taken(blocks), calls):
        yield from cast("list[str]", messages.column("message").to_pylist())
    actor.close()
    close_decoder()


def _taken(blocks: "queue.Queue[pa.Table | BaseException | None]") -> Iterator[pa.Table]:
    """Yield blocks from a queue up to None.

    Raises:
        BaseException: the error that ended the reading.
    """
    while (block := blocks.get()) is not None:
        if isinstance(block, BaseException):
            raise block
        yield block


def _read(reader: Reader, pieces: Sequence[str], blocks: "queue.Queue[pa.Table | BaseException | None]") -> None:
    """Put the blocks of all pieces into a queue, then None, or the error that ended this."""
    try:
        for piece in pieces:
            for block in reader(pa.table({"piece": [piece]})):
                blocks.put(block)
        blocks.put(None)
    except BaseException as error:
        blocks.put(error)


def _end_with_driver(driver: int) -> None:
    """End this process once the driver's end of the pipe is closed, as it is when the driver ends."""
    while os.read(driver, 1024):  # not by a buffered file, whose lock this thread would hold when the program ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
