"""The tokens of a checkpoint as a language model sees them, and whether one can be used with it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_WRITABLE = 0.1
"""Least share of a model's words that the tokens of a checkpoint must be able to write."""
SHOWN_TEXT = 60
"""Characters of phonemes that a message shows."""


@dataclass(frozen=True)
class TokenTexts:
    """A vocabulary of CTC.

    Attributes:
        texts: text of each token within a word; "" of the blank and of tokens that separate words.
        delimiter: token between words; None: the vocabulary has none.
        blank: token of the blank.
        delimiter_text: how models of characters write the delimiter.
        are_phonemes: whether tokens are phonemes, with spaces between them; for language models they are characters.
    """

    texts: Sequence[str]
    delimiter: int | None
    blank: int
    delimiter_text: str
    are_phonemes: bool = False

    @property
    def described(self) -> str:
        """Letters or phonemes of the vocabulary, for messages."""
        if self.are_phonemes:
            return f"its phonemes, separated by spaces, are {' '.join(filter(None, self.texts))[:SHOWN_TEXT]!r}"
        return f"its letters are {''.join(sorted(text for text in self.texts if len(text) == 1))!r}"

    @property
    def is_delimiter(self) -> list[bool]:
        """Whether each token separates words."""
        return [not text and token != self.blank for token, text in enumerate(self.texts)]

    @property
    def characters(self) -> list[str]:
        """Each token as a model of characters writes it."""
        return [self.delimiter_text if ends else text for ends, text in zip(self.is_delimiter, self.texts, strict=True)]


def is_of_characters(words: Sequence[str], tokens: TokenTexts) -> bool:
    """Return whether a language model of these words is one of characters.

    It is one if all of its words have one character, and the token between words is among them, unless the vocabulary
    has no such token. Phonemes are characters, whatever their length.
    """
    if tokens.are_phonemes:
        return True
    if any(len(word) > 1 and word != tokens.delimiter_text for word in words):
        return False
    return tokens.delimiter is None or tokens.delimiter_text in words


def misfit(words: Sequence[str], tokens: TokenTexts) -> str:
    """Return the reason why a language model of these words cannot be used; empty if it can."""
    of_characters = is_of_characters(words, tokens)
    if not of_characters and tokens.delimiter is None:
        return "is a model of words, but the vocabulary has no token between words: use a model of characters"
    token_texts = {text for text in (tokens.characters if of_characters else tokens.texts) if text}
    writable = re.compile("|".join(map(re.escape, sorted(token_texts, key=len, reverse=True))))
    lost = [word for word in words if writable.sub("", word)]
    if len(words) - len(lost) < LEAST_WRITABLE * len(words):
        letters = "".join(sorted(letter for letter in token_texts if len(letter) == 1))[:40]
        return (
            f"has {len(words):,} words, of which the checkpoint can write {len(words) - len(lost):,}, not {lost[0]!r}; "
            f"its letters are {letters!r}: write the text for the model in the same case and letters"
        )
    return ""


def unwritable(phrases: Mapping[str, object], tokens: TokenTexts) -> str | None:
    """Return the first hot word with a character that no token writes; None if there is none."""
    if tokens.are_phonemes:
        writable = {*tokens.characters} - {""}
        return next((phrase for phrase in phrases if not writable.issuperset(phrase.split())), None)
    writable = {letter for text in tokens.texts for letter in text}
    return next((phrase for phrase in phrases if not writable.issuperset("".join(phrase.split()))), None)
