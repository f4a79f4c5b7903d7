"""Texts made comparable, errors against reference texts, counts of edits and the edits themselves; and repetition.

Errors are of texts as they are; normalise them before. Words are separated by single spaces. Characters are code
points, spaces included.
"""

import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.errors import SpecError

if TYPE_CHECKING:
    from jiwer import AlignmentChunk

Ints = npt.NDArray[np.int64]
Kind = Literal["substitute", "insert", "delete"]

COUNTS = ("substitutions", "insertions", "deletions", "length")
"""Columns of the counts of `count_errors`."""
ROWS_AT_ONCE = 10_000
_COLUMN = {"substitute": 0, "insert": 1, "delete": 2}


@dataclass(frozen=True)
class Edit:
    """Neighbouring words of a reference and the words in their place; `reference` is empty for insertions."""

    kind: Kind
    reference: str
    hypothesis: str
    start: int
    """Place of the first word in the reference."""


def count_errors(references: Sequence[str], hypotheses: Sequence[str], *, characters: bool = False) -> Ints:
    """Return the errors of each row by the alignment with the fewest errors, (N, 4): see `COUNTS`.

    `length` is the length of the reference. With an empty reference, every word of the hypothesis is an insertion.

    Args:
        references: N texts.
        hypotheses: N texts.
        characters: count characters instead of words.
    """
    counts = np.zeros((len(references), len(COUNTS)), np.int64)
    for row, chunks in enumerate(_alignments(references, hypotheses, characters=characters)):
        for chunk in chunks:
            counts[row, -1] += chunk.ref_end_idx - chunk.ref_start_idx
            if chunk.type != "equal":
                size = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
                counts[row, _COLUMN[chunk.type]] += size
    return counts


def edits(reference: str, hypothesis: str) -> tuple[Edit, ...]:
    """Return the words in which two texts differ, in order."""
    [chunks] = _alignments([reference], [hypothesis], characters=False)
    ours, theirs = reference.split(" "), hypothesis.split(" ")
    return tuple(
        Edit(
            cast("Kind", chunk.type),
            " ".join(ours[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(theirs[chunk.hyp_start_idx : chunk.hyp_end_idx]),
            chunk.ref_start_idx,
        )
        for chunk in chunks
        if chunk.type != "equal"
    )


def _alignments(
    references: Sequence[str], hypotheses: Sequence[str], *, characters: bool
) -> Iterator[Sequence["AlignmentChunk"]]:
    """Yield the alignment of each row."""
    import jiwer

    process = jiwer.process_characters if characters else jiwer.process_words
    for first in range(0, len(references), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        yield from process(list(references[part]), list(hypotheses[part])).alignments


Ranks = npt.NDArray[np.int64]


class Repetition(NamedTuple):
    """The longest sequence of words that a text repeats."""

    words: int
    """Number of its words; 0 if no word is repeated."""
    times: int
    """How often it occurs, without overlaps; 0 if no word is repeated."""


def longest_repetition(words: list[str]) -> Repetition:
    """Return the longest sequence of words that occurs twice without overlap.

    Of several of the same length the one that occurs most often counts. Takes time O(n log² n): sequences of a power of
    two are numbered from those of half the length (Karp, Miller and Rosenberg 1972).
    """
    if len({*words}) == len(words):
        return Repetition(0, 0)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    powers = [np.array([numbers[word] for word in words], np.int64)]
    length = 1
    while 2 * length <= len(words) // 2:
        powers.append(_numbered(powers[-1][:-length], powers[-1][length:]))
        length *= 2
    low, high = 1, len(words) // 2  # a shorter sequence is repeated if a longer one is
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _most(powers, middle) > 1 else (low, middle - 1)
    return Repetition(low, _most(powers, low))


def _numbered(firsts: Ranks, seconds: Ranks) -> Ranks:
    """Return a number for each pair, the same for the same pairs."""
    numbers: Ranks = np.unique(firsts * (int(seconds.max()) + 1) + seconds, return_inverse=True)[1].astype(np.int64)
    return numbers


def _most(powers: list[Ranks], length: int) -> int:
    """Return the number of times that the most frequent sequence of some words occurs without overlaps."""
    level = length.bit_length() - 1
    shift = length - (1 << level)
    ranks = powers[level]
    sequences = _numbered(ranks[: len(ranks) - shift], ranks[shift:])
    order = np.argsort(sequences, kind="stable")
    most = 1
    for places in np.split(order, np.flatnonzero(np.diff(sequences[order])) + 1):
        if len(places) > most and places[-1] - places[0] >= length:
            most = max(most, _apart(places.tolist(), length))
    return most


def _apart(places: list[int], length: int) -> int:
    """Return the number of places, in order, that are at least a length apart."""
    count, end = 0, 0
    for place in places:
        if place >= end:
            count, end = count + 1, place + length
    return count


def compression(text: str) -> float:
    """Return the bytes of a text over those of its zlib compression, as Whisper measures loops (Radford et al. 2022).

    It is 0 for an empty text, below 1 for one of a few words, and mostly below 2.4 for speech.
    """
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))


Case = Literal["keep", "lower", "upper"]
Language = Literal["tr", "az"]
"""Languages with case rules of their own: İ and i, I and ı are pairs (SpecialCasing.txt of Unicode)."""

APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u2032\uff07`\u00b4"), "'")
_NON_JOINER, _VIRAMA = "\u200c", 9
"""The character, and the combining class of viramas."""
_UNSEEN = re.compile("[\u00ad\u200c-\u200f\u2060\ufeff]")
"""Soft hyphen, non-joiner, joiner, marks of direction, word joiner, byte order mark."""
_SPACE = re.compile(r"\s+")
_SECOND_DOT = re.compile("i\u0307+")
"""An i with its dot as a mark, which languages other than these make of İ."""


@dataclass(frozen=True)
class TextRules:
    """Rules for texts.

    Every text is in Unicode's form NFC, and has single spaces between words and none at its ends.

    Attributes:
        case: "lower", "upper", or as it is.
        keep: "all" characters; or "letters": letters, their marks, digits, and apostrophes within words, every other
            character becomes a space; or the characters that stay, besides spaces, in a string.
        language: language whose case rules hold; None: those that most languages share.
    """

    case: Case = "keep"
    keep: str = "all"
    language: Language | None = None

    def __call__(self, text: str) -> str:
        """Return a text by the rules; an empty one if no character stays."""
        text = unicodedata.normalize("NFC", text)
        if self.case != "keep":
            text = unicodedata.normalize("NFC", in_case(text, self.case, self.language))
        if self.keep == "letters":
            text = _letters(text)
        elif self.keep != "all":
            allowed = {*self.keep}
            text = "".join(character if character in allowed else " " for character in text)
        return _SPACE.sub(" ", text).strip()


def in_case(text: str, case: Literal["lower", "upper"], language: Language | None = None) -> str:
    """Return a text in a case, by the rules of a language; None: those that most languages share."""
    text = text if language is None else _dotted(text, case)
    return text.lower() if case == "lower" else text.upper()


def _dotted(text: str, case: Case) -> str:
    """Return a text with every dotted and dotless i in a case, by the rules of Turkish."""
    if case == "upper":
        return _SECOND_DOT.sub("i", text).replace("i", "İ")
    return _SECOND_DOT.sub("i", text.replace("İ", "i").replace("I", "ı"))


def _letters(text: str) -> str:
    """Return letters, marks and digits, and apostrophes between letters; other characters as spaces."""
    return _OUTER_APOSTROPHE.sub(" ", joined(text).translate(APOSTROPHES).translate(_KEPT))


def joined(text: str) -> str:
    """Return a text without the characters that are not seen within a word, such as joiners and soft hyphens.

    A non-joiner after a virama is part of a cluster of Indic scripts (RFC 5892, appendix A.1). Elsewhere, as in
    Persian, it separates parts that may also be written with a space, and becomes one.
    """
    return text if text.isascii() else _UNSEEN.sub(_seen, text)


def _seen(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1 : match.start()]
    return " " if match[0] == _NON_JOINER and (not before or unicodedata.combining(before) != _VIRAMA) else ""


class _Kept(dict[int, str]):
    """Letters, marks, digits and apostrophes by their code points; spaces for other characters. Filled as needed."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_kept = unicodedata.category(character)[0] in "LMN" or character == "'"
        self[code] = character if is_kept else " "
        return self[code]


_KEPT = _Kept()
_OUTER_APOSTROPHE = re.compile(r"(?<![^ '])'|'(?![^ '])")
"""An apostrophe without a letter on both sides, where every other character is a letter or a space."""


_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16."""
_OF_TEXT = (pa.types.is_string, pa.types.is_large_string)
_ENCODED = (pa.DictionaryType, pa.RunEndEncodedType)
_OF_BYTES = (pa.types.is_binary, pa.types.is_large_binary)


def plain_text(raw: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        ValueError: it is in another encoding.
    """
    try:
        return raw.decode("utf-16" if raw[:2] in _UTF16 else "utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"has {raw[error.start : error.start + 1]!r} at byte {error.start:,}; expected UTF-8, or UTF-16 with a "
            "byte order mark: convert it, such as by iconv -f latin1 -t utf-8"
        ) from None


def json_text(value: object) -> str:
    """Return a value as JSON, which holds lone surrogates by their escapes."""
    text = json.dumps(value, ensure_ascii=False)
    return text if is_unicode(text) else json.dumps(value)


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogates, which JSON can write and UTF-8 cannot."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def storable(name: str) -> str:
    """Return the name of a column, id or file with its lone surrogates replaced by their escapes in JSON."""
    return name.encode("utf-8", "backslashreplace").decode()


def fault_of(name: str, value: object) -> str | None:
    """Return why a value of a JSON object is no text; None if it is one, or no string."""
    if not isinstance(value, str) or is_unicode(value):
        return None
    wrong = next(character for character in value if not is_unicode(character))
    return f"{storable(name)!r} has the lone surrogate {wrong!a}; expected text of Unicode: write the row again"


def readable(
    column: "pa.ChunkedArray[Any]", name: str, *, is_text: bool = False
) -> tuple["pa.ChunkedArray[Any]", list[str | None]]:
    """Return a column with null in place of invalid UTF-8, and an error or None for each row (empty if all are valid).

    Args:
        column: the column.
        name: its name for messages.
        is_text: whether bytes are texts as well.
    """
    kind = column.type.value_type if isinstance(column.type, _ENCODED) else column.type
    if not any(fits(kind) for fits in (*_OF_TEXT, *(_OF_BYTES if is_text else ()))):
        return column, []
    raw = column.cast(kind).cast(pa.large_binary())
    try:
        raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        values = raw.to_pylist()
        faults = [_fault(name, value) for value in values]
        kept = [value if fault is None else None for value, fault in zip(values, faults, strict=True)]
        return pa.chunked_array([pa.array(kept, pa.large_binary())]).cast(kind), faults
    return column, []


def _fault(name: str, value: bytes | None) -> str | None:
    try:
        (value or b"").decode()
    except UnicodeDecodeError as error:
        wrong = error.object[error.start : error.start + 1]
        return f"column {name!r} has {wrong!r} at byte {error.start:,}; expected UTF-8: write the row again"
    return None


RULES = {
    "none": (TextRules(), "Unicode NFC and single spaces only"),
    "lower": (TextRules(case="lower"), "lower case"),
    "letters": (TextRules(case="lower", keep="letters"), "lower case; letters, digits and apostrophes within words"),
}
WHISPER = {"whisper-english": "english.EnglishTextNormalizer", "whisper-basic": "basic.BasicTextNormalizer"}
"""Classes of the package whisper-normalizer."""
NAMES = (*RULES, *WHISPER)
LANGUAGES: tuple[Language, ...] = get_args(Language)
"""Languages whose case rules a name may end with, as "letters-tr"."""
DEFAULT = "letters"


@dataclass(frozen=True)
class Normalisation:
    """A function that normalises texts, with its name and a description for reports."""

    name: str
    description: str
    function: Callable[[str], str] = field(repr=False, compare=False)

    def __call__(self, text: str) -> str:
        """Return a text in Unicode's form NFC, normalised, with single spaces between words."""
        return _SPACED(self.function(text))


@dataclass(frozen=True)
class Normalised:
    """Normalisation of both texts."""

    name: str
    description: str


_SPACED = TextRules()


def in_language(choice: str, language: Language | None) -> str:
    """Return the name of a normalisation with the case rules of a language."""
    has_case = choice != "none" and _split(choice)[1] is None
    return f"{choice}-{language}" if language is not None and has_case else choice


def _split(choice: str) -> tuple[str, Language | None]:
    """Return a name without its language, and the language."""
    name, _, language = choice.rpartition("-")
    return (name, language) if name and language in LANGUAGES else (choice, None)


def normalisation(choice: str | TextRules) -> Normalisation:
    """Return the normalisation of a name, or by rules of one's own.

    Raises:
        SpecError: the name is unknown, or its package is not installed.
    """
    if isinstance(choice, TextRules):
        more = f", language={choice.language!r}" if choice.language else ""
        return Normalisation("rules", f"case={choice.case!r}, keep={choice.keep!r}{more}", choice)
    name, language = _split(choice)
    if name in RULES and (language is None or name != "none"):
        rules, description = RULES[name]
        return _in_language(Normalisation(name, description, replace(rules, language=language)), language)
    if name in WHISPER:
        return _in_language(_whisper(name), language)
    raise SpecError(
        f"found the normalisation {choice!r}, expected one of {', '.join(NAMES)}; all but none may end with the "
        f"language of its case rules, {' or '.join(f'-{code}' for code in LANGUAGES)}"
    )


def _in_language(general: Normalisation, language: Language | None) -> Normalisation:
    """Return a normalisation after which texts are in lower case, with the case rules of a language."""
    if language is None:
        return general
    lower = TextRules("lower", language=language)
    return Normalisation(
        f"{general.name}-{language}",
        f"{general.description}; case of {language}",
        lambda text: general.function(lower(text)),
    )


def _whisper(choice: str) -> Normalisation:
    module, _, name = WHISPER[choice].rpartition(".")
    try:
        function = getattr(import_module(f"whisper_normalizer.{module}"), name)()
    except ImportError:
        raise SpecError(
            f"the normalisation {choice!r} needs the package whisper-normalizer, which is not installed; "
            "pip install 'raysp[whisper-normalizer]', or choose another one"
        ) from None
    return Normalisation(choice, f"{name} of whisper-normalizer {metadata.version('whisper-normalizer')}", function)
