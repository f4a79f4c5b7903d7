"""N-gram models in KenLM's binary files, read by the package `kenlm`; importable without torch.

A binary file begins with a header: a magic line with the version, numbers that show how the machine that wrote it
stores them, the kind of the model and its counts. It ends with the words in the order of their ids, each followed by a
zero byte. The package maps the rest into memory, so that processes share it.

The package trusts the tables of a file. Run as `python -m raysp.text.beams.kenlm FILE`, this module opens a file and
scores its words, so that a damaged file ends that process and no worker. It exits with 0 if all goes well, or if the
package refuses the file, which the caller then finds itself; else with `WRONG_SCORES`, or by a signal.
"""

import functools
import math
import os
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysp import bounds
from raysp.errors import CheckpointError
from raysp.text.beams.arpa import BEGIN, END, MARKERS, MOST_ORDERS, UNKNOWN
from raysp.text.beams.hashing import ids_by_hash, prefix_hashes, text_hashes
from raysp.words import ending

MAGIC = b"mmap lm http://kheafield.com/code"
"""First bytes of all versions of the format."""
VERSION = b" format version 5\n"
SANITY = struct.Struct("<56s3f3IQ")
"""Magic line; 0, 1 and -1/2 as float32; 1 and the largest number as uint32, and padding; 1 as uint64."""
EXPECTED = (0.0, 1.0, -0.5, 1, 0xFFFFFFFF, 0, 1)
KIND = struct.Struct("<B3xfi?3xI")
"""Order, multiplier of hash tables, kind of model, whether the words are there, and version of the kind."""
KINDS = (
    "probing",
    "probing with rest costs",
    "trie",
    "quantised trie",
    "array-compressed trie",
    "quantised array-compressed trie",
)
LEAST_BYTES = (8, 8, 8, 1, 8, 1)
"""Least bytes that a word takes in a file of each kind."""
CHUNK_BYTES = 1 << 20
MOST_KEPT = 200_000
"""Scores, and contexts, that a worker keeps."""
PACKAGE = "the package kenlm reads; pip install 'raysp[kenlm]' (it is built by a C++ compiler), or give the ARPA file"
PROGRAM = "raysp.text.beams.kenlm"
"""Module that the process runs."""
WRONG_SCORES = 3
"""Exit code for a score that is not a logarithm of a probability."""
MOST_WORDS, CONTEXTS, LEAST_SCORES = 20_000, 4, 20_000
"""Words that are scored; contexts of each, of random words; and scores of a model of few words."""
START_SECONDS, BYTES_PER_SECOND = 60, 20_000_000
"""Most time of the process: a constant, and more by the size of the file."""
MOST_SCORE = 1e-3
"""Above 0, as quantised values may be."""
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")


@dataclass(frozen=True)
class Header:
    """Facts of a binary file."""

    kind: str
    counts: tuple[int, ...]
    """Number of n-grams of each order."""


def is_binary(path: Path) -> bool:
    """Return whether a file begins as a binary file of KenLM, of any version."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> Header:
    """Return the facts of a binary file.

    Raises:
        CheckpointError: the file is not of KenLM, incomplete, of another version or machine, or has no words.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        sanity, kind = file.read(SANITY.size), file.read(KIND.size)
        if not sanity.startswith(MAGIC + VERSION):
            version = sanity.partition(b"\n")[0].removeprefix(MAGIC).strip().decode("utf-8", "replace")
            raise refusal(path, f"is {bounds.shortened(version)}; expected {VERSION.decode().strip()!r}")
        if len(kind) < KIND.size or SANITY.unpack(sanity)[1:] != EXPECTED:
            raise refusal(path, "was written by a machine that stores numbers otherwise, or is damaged")
        order, multiplier, number, has_words, _ = KIND.unpack(kind)
        if not 0 <= number < len(KINDS) or not 1 <= order <= MOST_ORDERS or not multiplier >= 1:
            raise refusal(path, f"has kind {number}, order {order} and multiplier {multiplier:g}")
        packed = file.read(8 * order)
    if len(packed) < 8 * order:
        raise refusal(path, "ends within its header")
    counts = struct.unpack(f"<{order}Q", packed)
    if not counts[0] or sum(counts) * LEAST_BYTES[number] // 8 > num_bytes:
        raise refusal(path, f"claims {' '.join(map(str, counts))} n-grams in {num_bytes:,} bytes")
    if not has_words:
        raise refusal(path, "has no words at its end")
    return Header(KINDS[number], counts)


def refusal(path: Path, fault: str) -> CheckpointError:
    """Return the error of a file, with a clause on the finding."""
    return CheckpointError(
        f"language model {str(path)!r}: this binary file of KenLM {fault}; build it again from its ARPA file "
        "(build_binary), or give the ARPA file"
    )


def read_words(path: Path, header: Header) -> list[str]:
    """Return the words of a binary file by id.

    Raises:
        CheckpointError: the file does not end with as many words as its header states.
    """
    number, tail = header.counts[0], b""
    with path.open("rb") as file:
        place = file.seek(0, 2)
        while tail.count(b"\0") <= number and place:
            step = min(place, max(CHUNK_BYTES, len(tail)))
            place = file.seek(place - step)
            tail = file.read(step) + tail
    ends = tail.split(b"\0")
    words = ends[-number - 1 : -1]
    # The first word, <unk>, follows data that only the package reads.
    if len(words) < number or ends[-1] or not words[0].endswith(UNKNOWN.encode()):
        raise refusal(path, f"does not end with its {number:,} words")
    try:
        return [UNKNOWN, *(word.decode() for word in words[1:])]
    except UnicodeDecodeError:
        raise refusal(path, "has words that are not UTF-8") from None


class KenlmModel:
    """A model in a binary file.

    Attributes:
        texts: words by id.
        begin: id of `<s>`.
        end: id of `</s>`.
        unknown: id of `<unk>`.
    """

    def __init__(self, path: Path) -> None:
        self.header = read_header(path)
        self.texts = read_words(path, self.header)
        self._package, self._model = _opened(path)
        ids = {text: index for index, text in enumerate(self.texts)}
        if missing := [mark for mark in (BEGIN, END) if mark not in ids]:
            raise refusal(path, f"has no {missing[0]} among its words")
        self.begin, self.end, self.unknown = ids[BEGIN], ids[END], ids[UNKNOWN]
        hashes = text_hashes(self.texts)
        self.word_ids: npt.NDArray[np.int64] = np.argsort(hashes).astype(np.int64)
        self.words = hashes[self.word_ids]
        self.prefixes = prefix_hashes(self.vocabulary())
        self._states: dict[tuple[int, ...], Any] = {}
        self._scores: dict[tuple[int, ...], float] = {}

    @property
    def order(self) -> int:
        """Words of the longest n-grams."""
        return len(self.header.counts)

    def vocabulary(self) -> list[str]:
        """Return the words without `<s>`, `</s>` and `<unk>`."""
        return [text for text in self.texts if text not in MARKERS]

    def ids(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the id of each text; unknown texts have the id of `<unk>`."""
        return ids_by_hash(texts, self.words, self.word_ids, self.unknown)

    def log10(self, context: tuple[int, ...], word: int) -> float:
        """Return the decimal logarithm of the probability of a word after others, the last one first, -1 for none."""
        key = (*context, word)
        if (cached := self._scores.get(key)) is not None:
            return cached
        if len(self._scores) >= MOST_KEPT:
            self._scores.clear()
        score = float(self._model.BaseScore(self._state(context), self.texts[word], self._package.State()))
        self._scores[key] = score
        return score

    def _state(self, context: tuple[int, ...]) -> Any:  # noqa: ANN401 - of the package
        if (cached := self._states.get(context)) is not None:
            return cached
        state = self._package.State()
        if context[:1] == (self.begin,):
            self._model.BeginSentenceWrite(state)
        elif not context or context[0] < 0:
            self._model.NullContextWrite(state)
        else:
            self._model.BaseScore(self._state(context[1:]), self.texts[context[0]], state)
        if len(self._states) >= MOST_KEPT:
            self._states.clear()
        self._states[context] = state
        return state


@functools.lru_cache(4)
def _opened(path: Path) -> tuple[Any, Any]:
    """Return the package, and its model of a file."""
    try:
        import kenlm
    except ImportError:
        kind = read_header(path).kind
        raise CheckpointError(
            f"language model {str(path)!r}: a binary file of KenLM ({kind}), which {PACKAGE}"
        ) from None
    config = kenlm.Config()
    config.show_progress = False
    try:
        return kenlm, kenlm.Model(str(path), config)
    except (OSError, RuntimeError, ValueError) as error:
        raise refusal(path, f"cannot be opened ({bounds.plain(str(error))})") from None


def damage_of(path: Path) -> str | None:
    """Return the damage of a file as text; None if it can be opened and scored, or if the package refuses it."""
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
        return "is damaged: the scores of some of its words are not logarithms of probabilities"
    return None if code == 0 else f"is damaged: scoring its words ended a process with {ending(code)}"


def main(path: Path) -> int:
    """Open a file and score its words, alone and after others; return the exit code."""
    try:
        model = KenlmModel(path)
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
