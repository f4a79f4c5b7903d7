"""A process that opens a binary file of KenLM and scores its words, so that a damaged file ends it and no worker.

The package trusts the tables of a file. The process exits with 0 if all goes well, or if the package refuses the file,
which its caller then finds itself; else with `WRONG_SCORES`, or by a signal.
"""

import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from raysp.errors import CheckpointError
from raysp.text.beams import kenlm

PROGRAM = "raysp.text.beams.kenlm_probe"
"""Module that the process runs."""
WRONG_SCORES = 3
"""Exit code for a score that is no logarithm of a probability."""
MOST_WORDS, CONTEXTS, LEAST_SCORES = 20_000, 4, 20_000
"""Words that are scored; contexts of each, of random words; and scores of a model of few words."""
START_SECONDS, BYTES_PER_SECOND = 60, 20_000_000
"""Most time of the process: a constant, and more by the size of the file."""
MOST_SCORE = 1e-3
"""Above 0, as quantised values may be."""
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")


def found_wrong(path: Path) -> str | None:
    """Return what is wrong with a file; None if it can be opened and scored, or if the package refuses it."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    places = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]))
    seconds = START_SECONDS + path.stat().st_size // BYTES_PER_SECOND
    try:
        code = subprocess.run(
            [sys.executable, "-P", "-m", PROGRAM, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**kept, "PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1"},
            timeout=seconds,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return f"is damaged: scoring its words takes more than {seconds} s"
    if code == WRONG_SCORES:
        return "is damaged: the scores of some of its words are no logarithms of probabilities"
    return None if code == 0 else f"is damaged: scoring its words ended a process with {_ending(code)}"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main(path: Path) -> int:
    """Open a file and score its words, alone and after others; return the exit code."""
    try:
        model = kenlm.KenlmModel(path)
    except CheckpointError:
        return 0
    draw = random.Random(len(model.texts))
    words = draw.sample(range(len(model.texts)), min(len(model.texts), MOST_WORDS))
    num_contexts = max(CONTEXTS, LEAST_SCORES // len(words))
    for word in words:
        before = [tuple(draw.choices(words, k=model.order - 1)) for _ in range(num_contexts)]
        scores = [model.log10(context, word) for context in ((), *before)]
        if not all(math.isfinite(score) and score <= MOST_SCORE for score in scores):
            return WRONG_SCORES
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
