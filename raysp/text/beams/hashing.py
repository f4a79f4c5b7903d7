"""Polynomial hashes of sequences, modulo 2 ** 64: `hash * MULTIPLIER + value + 1` for each value."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

MULTIPLIER = 0x5851F42D4C957F2D
"""Odd multiplier of a linear congruential generator modulo 2 ** 64 (Knuth, MMIX)."""


def signed(value: int) -> int:
    """Return a number modulo 2 ** 64 as int64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def text_hashes(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the hash of the code points of each text; an empty text has the hash 0."""
    hashes = np.zeros(len(texts), np.int64)
    for indexes, longer in _hashes_by_place(texts):
        hashes[indexes] = longer
    return hashes


def ids_by_hash(
    texts: Sequence[str], hashes: npt.NDArray[np.int64], ids: npt.NDArray[np.int64], unknown: int
) -> npt.NDArray[np.int64]:
    """Return the id of each text by sorted hashes of known ones and their ids; `unknown` for other texts."""
    hashes_of_texts = text_hashes(texts)
    places = np.minimum(np.searchsorted(hashes, hashes_of_texts), len(hashes) - 1)
    return np.where(hashes[places] == hashes_of_texts, ids[places], unknown)


def prefix_hashes(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the sorted hashes of all prefixes of texts, the empty one included."""
    return np.unique(np.concatenate([np.zeros(1, np.int64), *(hashes for _, hashes in _hashes_by_place(texts))]))


def _hashes_by_place(texts: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the indexes of texts of at least one code point, two, and so on, and the hashes of these code points."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    num_codes = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(num_codes) - num_codes
    longer, hashes, place = np.flatnonzero(num_codes), np.zeros(len(texts), np.uint64), 0
    while len(longer):
        hashes[longer] = hashes[longer] * np.uint64(MULTIPLIER) + codes[starts[longer] + place] + np.uint64(1)
        yield longer, hashes[longer].view(np.int64)
        place += 1
        longer = longer[num_codes[longer] > place]
