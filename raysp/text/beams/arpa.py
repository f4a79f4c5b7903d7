"""N-gram models in ARPA files: read once, packed to arrays, and mapped into memory by every process that uses them.

An n-gram is found by a number: the index of its first n - 1 words among the n-grams of their order, times the number of
words, plus the last word. The numbers of an order are sorted.
"""

import io
import json
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import numpy.typing as npt

from raysp import bounds
from raysp.errors import CheckpointError
from raysp.text.beams.hashing import ids_by_hash, prefix_hashes, text_hashes

T = TypeVar("T")

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
MARKERS = (BEGIN, END, UNKNOWN)
UNKNOWN_LOG10 = -10.0
"""Logarithm of the probability of unknown words in a model without `<unk>`."""
MOST_ORDERS = 16
MOST_LINE_CHARACTERS = 1024 * 1024
_NUMBER = re.compile(r"[0-9]{1,18}")
PACKED = "model.json"
"""File of a packed model that is written last."""


@dataclass(frozen=True)
class Ngrams:
    """A packed n-gram model.

    Attributes:
        words: hashes of the words, sorted.
        word_ids: id of each of `words`.
        prefixes: hashes of the first letters of the words, sorted.
        keys: for each order from 2: sorted numbers of its n-grams.
        log_probs: for each order from 1: float32 natural logarithms; for words, by id.
        backoffs: for each order from 1 but the last: float32 natural logarithms of backoff weights, then a 0.
        begin: id of `<s>`.
        end: id of `</s>`.
        unknown: id of `<unk>`.
        texts: the words by id, one a line.
    """

    words: npt.NDArray[np.int64]
    word_ids: npt.NDArray[np.int64]
    prefixes: npt.NDArray[np.int64]
    keys: Sequence[npt.NDArray[np.int64]]
    log_probs: Sequence[npt.NDArray[np.float32]]
    backoffs: Sequence[npt.NDArray[np.float32]]
    begin: int
    end: int
    unknown: int
    texts: npt.NDArray[np.uint8]

    @property
    def order(self) -> int:
        """Words of the longest n-grams."""
        return len(self.log_probs)

    def vocabulary(self) -> list[str]:
        """Return the words without `<s>`, `</s>` and `<unk>`."""
        texts = self.texts.tobytes().decode().split("\n")
        return [text for text in texts if text not in MARKERS]

    def ids(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the id of each text; unknown texts have the id of `<unk>`."""
        return ids_by_hash(texts, self.words, self.word_ids, self.unknown)


ARRAYS = ("words", "word_ids", "prefixes", "texts")
NUMBERS = ("begin", "end", "unknown")


def _orders(most: int) -> Mapping[str, range]:
    """Return the orders of which a model of order `most` has an array."""
    return {"keys": range(2, most + 1), "log_probs": range(1, most + 1), "backoffs": range(1, most)}


def save(model: Ngrams, folder: Path) -> None:
    """Write a packed model to files that `load` maps."""
    arrays: dict[str, npt.NDArray[np.generic]] = {name: getattr(model, name) for name in ARRAYS}
    for name, orders in _orders(model.order).items():
        arrays |= {f"{name}-{order}": of_order for order, of_order in zip(orders, getattr(model, name), strict=True)}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    facts = {"order": model.order, **{name: getattr(model, name) for name in NUMBERS}}
    (folder / PACKED).write_text(json.dumps(facts))


def load(folder: Path) -> Ngrams:
    """Map a packed model into memory, which processes of a machine share."""
    facts = json.loads((folder / PACKED).read_text())

    def mapped(name: str) -> Any:  # noqa: ANN401 - an array of any type
        # As a plain array: a search indexes it thousands of times, and an index of `np.memmap` runs Python code.
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c"))

    lists: dict[str, Any] = {
        name: [mapped(f"{name}-{n}") for n in orders] for name, orders in _orders(facts["order"]).items()
    }
    return Ngrams(**{name: mapped(name) for name in ARRAYS}, **lists, **{name: facts[name] for name in NUMBERS})


def parse(path: Path, name: str | None = None) -> Ngrams:
    """Read an ARPA file, which may be compressed by gzip.

    Args:
        path: the file.
        name: name of the file in messages; None: its path.

    Raises:
        CheckpointError: it is not a whole ARPA file; with the number of the first wrong line.
    """
    return _read(path, name, lambda reader: reader.read())


def counts_of(path: Path) -> tuple[int, ...]:
    """Return the number of n-grams of each order, which the first lines of an ARPA file state.

    Raises:
        CheckpointError: the file does not begin like an ARPA file.
    """
    return _read(path, None, lambda reader: tuple(reader.counts()))


def _read(path: Path, name: str | None, read: "Callable[[_Reader], T]") -> T:
    try:
        with path.open("rb") as raw:
            is_compressed = raw.read(2) == bounds.GZIP
            raw.seek(0)
            content = bounds.decompressed(raw, path.stat().st_size) if is_compressed else raw
            with io.TextIOWrapper(content, encoding="utf-8-sig") as file:
                return read(_Reader(file, name or str(path)))
    except (*bounds.DAMAGED, OSError, bounds.TooLargeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"language model {name or str(path)!r}: cannot be read ({error}); expected an ARPA file in UTF-8"
        ) from None


class _Reader:
    """Reader of the lines of an ARPA file."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file = file
        self.name = name
        self.line = 0
        self.text = ""
        self.ids: dict[str, int] = {}

    def read(self) -> Ngrams:
        counts = self.counts()
        sections = [self._section(order, number, len(counts)) for order, number in enumerate(counts, 1)]
        if self._next_filled() != "\\end\\":
            raise self._wrong("expected \\end\\ after the n-grams")
        if UNKNOWN not in self.ids:
            self.ids[UNKNOWN] = len(self.ids)
            sections[0].add(UNKNOWN_LOG10, 0.0)
        for marker in (BEGIN, END):
            if marker not in self.ids:
                raise CheckpointError(
                    f"language model {self.name!r}: no {marker} among its 1-grams; expected a model of whole sentences"
                )
        return self._packed(sections)

    def counts(self) -> list[int]:
        """Read the header, and return the number of n-grams of each order."""
        if self._next_filled() != "\\data\\":
            raise self._wrong("expected \\data\\, the first line of an ARPA file")
        counts: list[int] = []
        while (text := self._next()) is not None and text.startswith("ngram "):
            order, equals, number = text.removeprefix("ngram ").partition("=")
            if not equals or order.strip() != str(len(counts) + 1) or not _NUMBER.fullmatch(number.strip()):
                raise self._wrong(f"expected 'ngram {len(counts) + 1}=' and a number")
            counts.append(int(number))
        if not 1 <= len(counts) <= MOST_ORDERS or not counts[0]:
            raise self._wrong(f"expected the numbers of 1-grams to at most {MOST_ORDERS}-grams, 'ngram 1=...'")
        return counts

    def _section(self, order: int, number: int, orders: int) -> "_Section":
        header = f"\\{order}-grams:"
        if (self.text if self.text.startswith("\\") else self._next_filled()) != header:
            raise self._wrong(f"expected {header}")
        section = _Section(order, self.line + 1)
        for _ in range(number):
            parts = (self._next() or "").split()
            if len(parts) not in ((order + 1, order + 2) if order < orders else (order + 1,)):
                more = " and a backoff weight" if order < orders else ""
                raise self._wrong(f"expected one of {number:,} {order}-grams: a logarithm, {order} words{more}")
            self._add(section, parts)
        self.text = ""
        return section

    def _add(self, section: "_Section", parts: Sequence[str]) -> None:
        words = parts[1 : section.order + 1]
        try:
            log10, backoff = float(parts[0]), float(parts[-1]) if len(parts) > section.order + 1 else 0.0
        except ValueError:
            raise self._wrong("expected numbers as the first value and after the words") from None
        if not log10 <= 0 or not abs(backoff) < np.inf:
            raise self._wrong("expected the logarithm of a probability, at most 0, and a finite backoff weight")
        section.add(log10, backoff)
        if section.order == 1:
            if words[0] in self.ids:
                raise self._wrong("expected each 1-gram once")
            if len(words[0]) > bounds.MOST_NAME_CHARACTERS:
                raise self._wrong(f"expected words of at most {bounds.MOST_NAME_CHARACTERS:,} characters")
            self.ids[words[0]] = len(self.ids)
            return
        try:
            section.words.extend([self.ids[word] for word in words])
        except KeyError as error:
            raise self._wrong(f"expected words that are 1-grams, found {bounds.shortened(error.args[0])}") from None

    def _packed(self, sections: "Sequence[_Section]") -> Ngrams:
        texts = list(self.ids)
        hashes = text_hashes(texts)
        by_hash = np.argsort(hashes)
        keys: list[npt.NDArray[np.int64]] = []
        log_probs = [_natural(sections[0].log10)]
        backoffs = [_natural(sections[0].backoffs, 0.0)]
        for section in sections[1:]:
            own = self._keys(section, keys)
            by_key = np.argsort(own, kind="stable")
            repeated = np.flatnonzero(np.diff(own[by_key]) == 0)
            if len(repeated):
                raise self._wrong_ngram(section, int(by_key[repeated[0] + 1]), "expected each n-gram once")
            # An order without n-grams has one that no search finds, since `take` of an empty array fails.
            keys.append(own[by_key] if len(own) else np.array([np.iinfo(np.int64).max]))
            log_probs.append(_natural(section.log10)[by_key] if len(own) else np.zeros(1, np.float32))
            backoffs.append(np.append(_natural(section.backoffs)[by_key], np.float32(0)))
        return Ngrams(
            words=hashes[by_hash],
            word_ids=by_hash.astype(np.int64),
            prefixes=prefix_hashes([text for text in texts if text not in MARKERS]),
            keys=keys,
            log_probs=log_probs,
            backoffs=backoffs[: len(sections) - 1],
            begin=self.ids[BEGIN],
            end=self.ids[END],
            unknown=self.ids[UNKNOWN],
            texts=np.frombuffer("\n".join(texts).encode(), np.uint8),
        )

    def _keys(self, section: "_Section", keys: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """Return the number of each n-gram of a section."""
        words = np.array(section.words, np.int64).reshape(-1, section.order)
        numbers = words[:, 0]
        for place, stored_keys in enumerate(keys, 1):
            ngram_keys = numbers * len(self.ids) + words[:, place]
            numbers = np.minimum(np.searchsorted(stored_keys, ngram_keys), len(stored_keys) - 1)
            lost = np.flatnonzero(stored_keys[numbers] != ngram_keys)
            if len(lost):
                message = f"its first {place + 1} words are not among the {place + 1}-grams"
                raise self._wrong_ngram(section, int(lost[0]), message)
        return numbers * len(self.ids) + words[:, -1]

    def _next(self) -> str | None:
        """Return the next line without spaces around it; None after the last."""
        text = self.file.readline(MOST_LINE_CHARACTERS)
        self.line += 1
        if len(text) == MOST_LINE_CHARACTERS:
            self.text = text
            raise self._wrong(f"expected lines of less than {MOST_LINE_CHARACTERS:,} characters")
        self.text = text.strip()
        return self.text if text else None

    def _next_filled(self) -> str | None:
        while (text := self._next()) == "":
            pass
        return text

    def _wrong(self, expected: str) -> CheckpointError:
        line = self.text if len(self.text) <= 60 else f"{self.text[:60]}..."
        return CheckpointError(f"language model {self.name!r}, line {self.line}: found {line!r}; {expected}")

    def _wrong_ngram(self, section: "_Section", index: int, message: str) -> CheckpointError:
        texts = list(self.ids)
        words = section.words[index * section.order : (index + 1) * section.order]
        ngram = " ".join(texts[word] for word in words)
        return CheckpointError(
            f"language model {self.name!r}, line {section.first_line + index}: found "
            f"{bounds.shortened(ngram)}; {message}"
        )


class _Section:
    """The n-grams of one order, in the order of the file."""

    def __init__(self, order: int, first_line: int) -> None:
        self.order = order
        self.first_line = first_line
        self.words = array("q")
        self.log10 = array("d")
        self.backoffs = array("d")

    def add(self, log10: float, backoff: float) -> None:
        """Add the numbers of an n-gram."""
        self.log10.append(log10)
        self.backoffs.append(backoff)


def _natural(values: "array[float]", *more: float) -> npt.NDArray[np.float32]:
    """Return decimal logarithms, and further values, as natural logarithms."""
    natural: npt.NDArray[np.float64] = np.append(np.array(values, np.float64), more) * np.log(10)
    # Rounded once, from float64.
    return natural.astype(np.float32)
