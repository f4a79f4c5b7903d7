"""Spelling of texts in the tokens of a CTC head, for alignment with its frames.

A word is a run of characters between white space. Its characters become tokens as they are, in the case that the
vocabulary has, in Unicode's compatibility form (NFKC or NFKD), or without accents, whichever is known first. Characters
without a token, such as most punctuation, are left out of the alignment; those that are spoken may become wildcards. In
Turkish and Azerbaijani İ and i, I and ı are pairs; a vocabulary that lacks one of them is spelt by the case rules of
other languages.

Phonemes are written with spaces between them, and each is one token.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import groupby

from raysp.bounds import shortened
from raysp.text.alignment import Target
from raysp.text.error_rates import APOSTROPHES, Language, in_case
from raysp.text.times import is_spoken


@dataclass(frozen=True)
class Letters:
    """A character of a word, or several that are one token, with their tokens; none if the vocabulary lacks it."""

    text: str
    ids: tuple[int, ...]
    num_skipped: int = 0
    """Number of characters, or phonemes, without a token."""


@dataclass(frozen=True)
class Word:
    """A word as the text has it, with its characters in Unicode's form NFC."""

    text: str
    letters: tuple[Letters, ...]

    @property
    def ids(self) -> list[int]:
        """Tokens of the word; none if no character is known."""
        return [index for letters in self.letters for index in letters.ids]


@dataclass(frozen=True)
class Spelt:
    """A text in tokens."""

    words: tuple[Word, ...]
    delimiter: int | None
    """Token between words; None: there is none."""
    wildcard: int | None = None
    """Token of a wildcard; None: there is none."""

    @property
    def num_skipped(self) -> int:
        """Number of characters, or phonemes, without a token."""
        return sum(letters.num_skipped for word in self.words for letters in word.letters)

    def with_wildcards(self, wildcard: int) -> "Spelt":
        """Return the text with a wildcard for each run of spoken characters of a word that have no token."""
        words = (replace(word, letters=tuple(_with_wildcards(word, wildcard))) for word in self.words)
        return replace(self, words=tuple(words), wildcard=wildcard)

    def target(self, *, wildcard: bool = False) -> Target:
        """Return the tokens to align; with `wildcard`, other speech may be before, between and after the words."""
        ids, gaps, _ = self._laid_out
        return Target(ids, [*gaps, True] if wildcard else None, self.delimiter, self.wildcard)

    def places(self) -> list[list[slice]]:
        """Return for each word the places of the tokens of its letters in the target; empty slices for unknown ones."""
        return self._laid_out[2]

    @property
    def _laid_out(self) -> tuple[list[int], list[bool], list[list[slice]]]:
        """Tokens, whether each begins a word or separates words, and the places of the tokens of letters."""
        ids: list[int] = []
        gaps: list[bool] = []
        places: list[list[slice]] = []
        for word in self.words:
            if word.ids and ids and self.delimiter is not None:
                ids.append(self.delimiter)
                gaps.append(True)
            places.append([])
            gaps += [place == 0 for place in range(len(word.ids))]
            for letters in word.letters:
                places[-1].append(slice(len(ids), len(ids) + len(letters.ids)))
                ids += letters.ids
        return ids, gaps, places


class Spelling:
    """Callable that spells texts.

    Args:
        vocabulary: ids of tokens, without special ones.
        delimiter: id of the token between words; None: there is none.
        language: language whose case rules hold; None: those that most languages share.
    """

    def __init__(self, vocabulary: Mapping[str, int], delimiter: int | None, language: Language | None = None) -> None:
        self.languages: tuple[Language | None, ...] = (language, None) if language else (None,)
        self.vocabulary = vocabulary
        self.delimiter = delimiter
        self.most_characters = max(map(len, vocabulary), default=1)
        self._cache: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> Spelt:
        """Return a text in tokens."""
        return Spelt(tuple(Word(word, tuple(self._letters(word))) for word in text.split()), self.delimiter)

    def _letters(self, word: str) -> Iterator[Letters]:
        word = unicodedata.normalize("NFC", word)
        place = 0
        while place < len(word):
            for num_characters in range(min(self.most_characters, len(word) - place), 0, -1):
                text = word[place : place + num_characters]
                ids = self._ids(text)
                if ids or num_characters == 1:
                    yield Letters(text, ids, num_skipped=int(not ids))
                    place += num_characters
                    break

    def _ids(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a character, or the one token of several; none if the vocabulary lacks them."""
        if text not in self._cache:
            find = self._of_character if len(text) == 1 else self._of_several
            self._cache[text] = find(text)
        return self._cache[text]

    def _of_several(self, text: str) -> tuple[int, ...]:
        forms = (form for language in self.languages for form in _cases(text, language))
        return next(((self.vocabulary[form],) for form in forms if form in self.vocabulary), ())

    def _of_character(self, character: str) -> tuple[int, ...]:
        for language in self.languages:
            for form in _forms(character):
                for text in _cases(form, language):
                    if text and all(letter in self.vocabulary for letter in text):
                        return tuple(self.vocabulary[letter] for letter in text)
        return ()


@dataclass(frozen=True)
class PhonemeSpelling:
    """Callable that spells texts of phonemes, which have spaces between them.

    Words stand between delimiters of words; without these each phoneme is a word.

    Attributes:
        vocabulary: ids of phonemes, without special tokens.
        delimiter: id of the token between words; None: there is none.
        delimiter_text: this token.
        refuses_letters: whether a text without any phoneme of the vocabulary is an error.
    """

    vocabulary: Mapping[str, int]
    delimiter: int | None
    _: KW_ONLY
    delimiter_text: str | None
    refuses_letters: bool

    def __call__(self, text: str) -> Spelt:
        """Return a text in tokens.

        Raises:
            ValueError: none of its phonemes is known.
        """
        phonemes = text.split()
        is_of_words = self.delimiter is not None and self.delimiter_text in phonemes
        words = self._between_delimiters(phonemes) if is_of_words else [[phoneme] for phoneme in phonemes]
        letters = (tuple(self._letters(phoneme) for phoneme in word) for word in words)
        spelt = tuple(Word(" ".join(word), spelling) for word, spelling in zip(words, letters, strict=True))
        if self.refuses_letters and spelt and not any(word.ids for word in spelt):
            shown = " ".join(list(self.vocabulary)[:4])
            raise ValueError(
                f"the text {shortened(text)} has none of the checkpoint's phonemes; expected phonemes separated by "
                f"spaces, such as {shown!r}: raysp does not turn text into phonemes"
            )
        return Spelt(spelt, self.delimiter if is_of_words else None)

    def _between_delimiters(self, phonemes: Sequence[str]) -> list[list[str]]:
        runs = groupby(phonemes, key=lambda phoneme: phoneme == self.delimiter_text)
        return [list(run) for is_delimiter, run in runs if not is_delimiter]

    def _letters(self, phoneme: str) -> Letters:
        forms = (phoneme, *(unicodedata.normalize(name, phoneme) for name in ("NFC", "NFD")))
        ids = next(((self.vocabulary[form],) for form in forms if form in self.vocabulary), ())
        return Letters(phoneme, ids, num_skipped=int(not ids))


def _with_wildcards(word: Word, wildcard: int) -> Iterator[Letters]:
    """Yield the characters of a word; marks around a wildcard stay apart."""
    for has_tokens, run in groupby(word.letters, key=lambda letters: bool(letters.ids)):
        letters = [*run]
        spoken = [] if has_tokens else [place for place, letter in enumerate(letters) if is_spoken(letter.text)]
        if not spoken:
            yield from letters
            continue
        first, end = spoken[0], spoken[-1] + 1
        text = (" " if " " in word.text else "").join(letter.text for letter in letters[first:end])
        yield from letters[:first]
        yield Letters(text, (wildcard,), num_skipped=end - first)
        yield from letters[end:]


def _cases(text: str, language: Language | None) -> tuple[str, ...]:
    cases = text, in_case(text, "upper", language), in_case(text, "lower", language)
    return cases if language else (*cases, text.casefold())


def _forms(character: str) -> Iterator[str]:
    """Yield the ways to write a character, from the most to the least faithful."""
    yield character
    yield character.translate(APOSTROPHES)
    yield unicodedata.normalize("NFKC", character)
    decomposed = unicodedata.normalize("NFKD", character)
    yield decomposed
    yield "".join(letter for letter in decomposed if not unicodedata.combining(letter))
