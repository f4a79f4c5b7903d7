"""Text of the ids of a CTC tokenizer: one id at a time, and many rows at once."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt


class Written(dict[int, str]):
    """Cache of the text of each id."""

    def __init__(self, find: Callable[[int], str]) -> None:
        super().__init__()
        self.find = find

    def __missing__(self, index: int) -> str:
        self[index] = self.find(index)
        return self[index]


class Letters:
    """Texts of rows of ids with one character each, decoded in one pass.

    Args:
        written: Text of each id, from 0.
    """

    def __init__(self, written: list[str]) -> None:
        self.codes = np.array([ord(text) if len(text) == 1 else 0 for text in written], np.dtype("<u4"))

    def knows(self, ids: npt.NDArray[np.integer]) -> bool:
        """Return whether all of the ids are known."""
        return not len(ids) or bool(ids.min() >= 0 and ids.max() < len(self.codes))

    def texts(self, ids: npt.NDArray[np.integer], ends: list[int]) -> list[str] | None:
        """Return the text of each row, which ends at `ends`; None if an id is not one character."""
        codes = self.codes[ids] if self.knows(ids) else np.zeros(1)
        if not codes.all():
            return None
        text = codes.tobytes().decode("utf-32-le")
        return [text[start:end] for start, end in pairwise([0, *ends])]
