"""Main module of a process that searches texts; see `search_processes`."""

import contextlib
import functools
import os
import pickle
import sys

import torch

from raysp.ops.transcripts.searched_texts import SearchedTexts

NICENESS = 10
"""Increment of niceness over the parent process."""
MOST_SETTINGS = 16
"""Settings, per output and language, whose decoders stay in memory."""


@functools.lru_cache(MOST_SETTINGS)
def _texts_of(packed: bytes) -> SearchedTexts:
    return SearchedTexts(pickle.loads(packed))


def main() -> None:
    """Answer requests until the end of stdin; a string as answer is the reason of a failure."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # anything printed goes to stderr
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            packed, batches = pickle.load(sys.stdin.buffer)
            answer: object
            try:
                answer = _texts_of(packed).together(batches)
            except Exception as error:  # the parent process repeats the search, and raises it
                answer = f"{type(error).__name__}: {error}"
            pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()


if __name__ == "__main__":
    main()
