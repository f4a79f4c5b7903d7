"""N-gram language models in a beam search: the weight of each word, or of each character, after those before it.

Shapes: B batch, W beams, K tokens of a frame, F fields of a state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raysp.text.beams.arpa import Ngrams
from raysp.text.beams.hashing import MULTIPLIER, prefix_hashes, signed, text_hashes
from raysp.text.beams.kenlm import KenlmModel
from raysp.text.beams.search import LARGEST_LOG, Chosen, Extensions, Flags, Floats, Ints


@dataclass(frozen=True)
class Weights:
    """Weights of a language model."""

    log_prob: float
    """Factor of natural log-probabilities."""
    bonus: float
    """Added for each word, or for each token of a model of characters."""
    unknown: float = 0.0
    """Added to the natural log-probability of each unknown word."""
    boundaries: bool = True
    """Whether texts begin with `<s>` and end with `</s>`."""

    def factors(self, log_probs: Floats) -> Floats:
        """Return the factors of words with these log-probabilities."""
        return np.exp(np.clip(self.log_prob * log_probs + self.bonus, -LARGEST_LOG, LARGEST_LOG))


class Scores(Protocol):
    """Log-probabilities of words after their contexts, for many contexts at once."""

    begin: int
    end: int
    unknown: int
    context_fields: int

    def start(self) -> list[int]:
        """Return the context of the first word of a text."""
        ...

    def unknown_log_prob(self) -> float:
        """Return the natural log-probability of an unknown word without a context."""
        ...

    def __call__(self, contexts: Ints, words: Ints) -> tuple[Floats, Ints]:
        """Return natural log-probabilities, and the contexts after the words.

        Args:
            contexts: (..., F) int64.
            words: (...) int64 ids.

        Returns:
            (...) float64 and (..., F) int64.
        """
        ...


class NgramScores:
    """Log-probabilities of words after their contexts, of a packed model.

    A context is the index of the last word among all words, of the last two words among the 2-grams, and so on to
    n - 1 words; -1 where there is no such n-gram.
    """

    def __init__(self, model: Ngrams) -> None:
        self.num_words = len(model.word_ids)
        self.keys, self.log_probs, self.backoffs = model.keys, model.log_probs, model.backoffs
        self.begin, self.end, self.unknown = model.begin, model.end, model.unknown
        self.context_fields = model.order - 1

    def start(self) -> list[int]:
        """Return the context of the first word: `<s>`."""
        return [self.begin, *(-1 for _ in self.keys)][: self.context_fields]

    def unknown_log_prob(self) -> float:
        """Return the natural log-probability of an unknown word without a context."""
        return float(self.log_probs[0][self.unknown])

    def __call__(self, contexts: Ints, words: Ints) -> tuple[Floats, Ints]:
        """Return natural log-probabilities, and the contexts after the words; shapes as in `Scores`."""
        log_probs = self.log_probs[0].take(words)
        after = np.empty((*words.shape, len(self.keys) + 1), np.int64)
        after[..., 0] = words
        for place, (keys, own, backoffs) in enumerate(zip(self.keys, self.log_probs[1:], self.backoffs, strict=True)):
            before = contexts[..., place]
            ngram_keys = before * self.num_words + words
            index = keys.searchsorted(ngram_keys)
            is_found = (keys.take(index, mode="clip") == ngram_keys) & (before >= 0)
            log_probs = np.where(is_found, own.take(index, mode="clip"), log_probs + backoffs.take(before))  # 0 at -1
            after[..., place + 1] = np.where(is_found, index, -1)
        return log_probs.astype(np.float64), after[..., : self.context_fields]


class KenlmScores:
    """Log-probabilities of words after their contexts, as `NgramScores`.

    A context is the last n - 1 words, the last one first; -1 where there is none.
    """

    def __init__(self, model: KenlmModel) -> None:
        self.model = model
        self.begin, self.end, self.unknown = model.begin, model.end, model.unknown
        self.context_fields = model.order - 1

    def start(self) -> list[int]:
        """Return the context of the first word: `<s>`."""
        return [self.begin, *(-1 for _ in range(self.context_fields))][: self.context_fields]

    def unknown_log_prob(self) -> float:
        """Return the natural log-probability of an unknown word without a context."""
        return self.model.log10((), self.unknown) * float(np.log(10))

    def __call__(self, contexts: Ints, words: Ints) -> tuple[Floats, Ints]:
        """Return natural log-probabilities, and the contexts after the words; shapes as for `NgramScores`."""
        rows = contexts.reshape(words.size, self.context_fields).tolist()
        log10 = self.model.log10
        scores = [log10(tuple(row), word) for row, word in zip(rows, words.ravel().tolist(), strict=True)]
        log_probs = np.array(scores, np.float64).reshape(words.shape) * np.log(10)
        after = np.concatenate([words[..., None], contexts[..., :-1]], -1) if self.context_fields else contexts
        return log_probs, after


def scores_of(model: Ngrams | KenlmModel) -> Scores:
    """Return the scores of a model."""
    return NgramScores(model) if isinstance(model, Ngrams) else KenlmScores(model)


def _start(scores: Scores, weights: Weights) -> list[int]:
    """Return the context of the first word of a text."""
    return scores.start() if weights.boundaries else [-1] * scores.context_fields


def _end_factors(scores: Scores, contexts: Ints, weights: Weights) -> Floats:
    """Return the factors of the end of the text, which has no bonus."""
    if not weights.boundaries:
        return np.ones(contexts.shape[:-1])
    ends = np.full(contexts.shape[:-1], scores.end)
    return Weights(weights.log_prob, 0.0).factors(scores(contexts, ends)[0])


class Lexicon:
    """The words of a model, found by the hashes of their letters.

    Args:
        model: the model.
        known: words that count as known if the model has them; None: all of the model.
    """

    def __init__(self, model: Ngrams | KenlmModel, texts: Sequence[str] | None) -> None:
        self.unknown = model.unknown
        self.words, self.word_ids = model.words, model.word_ids
        is_known = np.ones(len(model.word_ids), np.bool_)
        prefixes = model.prefixes
        if texts is not None:
            ids = model.ids(texts)
            is_known[:] = False
            is_known[ids] = True
            prefixes = prefix_hashes([text for text, index in zip(texts, ids, strict=True) if index != model.unknown])
        is_known[model.unknown] = False
        self.is_known, self.prefixes = is_known, prefixes

    def ids(self, hashes: Ints) -> Ints:
        """Return the ids of words with these hashes; unknown words have the id of `<unk>`."""
        index = self.words.searchsorted(hashes)
        is_found = self.words.take(index, mode="clip") == hashes
        return np.where(is_found, self.word_ids.take(index, mode="clip"), self.unknown)

    def begins_word(self, hashes: Ints) -> Flags:
        """Return whether a known word begins with letters of these hashes."""
        is_prefix: Flags = self.prefixes.take(self.prefixes.searchsorted(hashes), mode="clip") == hashes
        return is_prefix


class WordModel:
    """Language model of words. A word counts when a delimiter, or the end of the text, follows it.

    A prefix whose last word no word of the model begins with is ranked as if it ended with an unknown word. Otherwise
    the search would prefer prefixes that join several words, since these get no weight before they end.

    The state of a prefix is the hash of its last word, as far as it goes (0: none), whether a word of the model begins
    so, and the context of that word.

    Args:
        scores: the model.
        lexicon: its words.
        texts: text of each token of the vocabulary in a word; "" for delimiters and the blank.
        weights: weights of the model.
    """

    def __init__(self, scores: Scores, lexicon: Lexicon, texts: Sequence[str], weights: Weights) -> None:
        self.scores = scores
        self.lexicon = lexicon
        self.weights = weights
        unknown = np.array(scores.unknown_log_prob() + weights.unknown)
        self.unknown_lift = min(float(weights.factors(unknown)), 1.0)
        self.is_delimiter = np.array([not text for text in texts])
        self.added = text_hashes(texts)
        self.multipliers = np.array([signed(pow(MULTIPLIER, len(text), 1 << 64)) for text in texts])

    def start(self) -> list[int]:
        """Return the fields of the empty prefix."""
        return [0, 1, *_start(self.scores, self.weights)]

    def extend(self, states: Ints, tokens: Ints, *, has_delimiter: bool) -> Extensions:
        """Return the weights of the last words for extensions by a delimiter, and the lifts of unknown words."""
        grown = states[..., :1] * self.multipliers.take(tokens)[:, None] + self.added.take(tokens)[:, None]
        is_end = self.is_delimiter.take(tokens)
        begins = is_end[:, None] | self.lexicon.begins_word(grown)
        lifts = np.where(begins, 1.0, self.unknown_lift)
        if not has_delimiter:
            return Extensions(None, lifts, (grown, begins, None))
        rows = np.flatnonzero(is_end.any(1))
        factors, contexts = np.ones(grown.shape), states[..., 2:].copy()
        of_rows, contexts[rows] = self._last_words(states[rows])
        factors[rows] = np.where(is_end[rows, None], of_rows[..., None], 1.0)
        return Extensions(factors, lifts, (grown, begins, contexts))

    def lift(self, states: Ints) -> Floats | None:
        """Return the lifts of prefixes that end within a word."""
        return np.where(states[..., 1] == 1, 1.0, self.unknown_lift)

    def advance(self, states: Ints, chosen: Chosen, carried: tuple[Ints, Flags, Ints | None]) -> Ints:
        """Return the states of the chosen prefixes."""
        grown, begins, contexts = carried
        places = chosen.sources * grown.shape[2] + chosen.places
        is_end = chosen.is_new & self.is_delimiter.take(chosen.tokens)
        after = states.copy()
        np.copyto(after[..., 0], grown.ravel().take(places), where=chosen.is_new)
        np.copyto(after[..., 0], 0, where=is_end)
        np.copyto(after[..., 1], begins.ravel().take(places), where=chosen.is_new)
        if contexts is not None:
            *rows, fields = contexts.shape
            of_ends = contexts.reshape(math.prod(rows), fields).take(chosen.sources, 0)
            np.copyto(after[..., 2:], of_ends, where=is_end[..., None])
        return after

    def end(self, states: Ints) -> Floats:
        """Return the factors of the last words and of the end of the text."""
        factors, contexts = self._last_words(states)
        return factors * _end_factors(self.scores, contexts, self.weights)

    def _last_words(self, states: Ints) -> tuple[Floats, Ints]:
        """Return the factors of the last words, and the contexts after them; without a word 1 and the same."""
        hashes, contexts = states[..., 0], states[..., 2:]
        ids = self.lexicon.ids(hashes)
        log_probs, after = self.scores(contexts, ids)
        if self.weights.unknown:
            log_probs = np.where(self.lexicon.is_known[ids], log_probs, log_probs + self.weights.unknown)
        is_none = hashes == 0
        factors = np.where(is_none, 1.0, self.weights.factors(log_probs))
        return factors, np.where(is_none[..., None], contexts, after)


class CharacterModel:
    """Language model of characters, of which each token is one. Its state is the context of the next token.

    Args:
        scores: the model.
        ids: (V,) its id of each token of the vocabulary.
        weights: weights of the model.
    """

    def __init__(self, scores: Scores, ids: Ints, weights: Weights) -> None:
        self.scores = scores
        self.token_ids = ids
        self.weights = weights

    def start(self) -> list[int]:
        """Return the fields of the empty prefix."""
        return _start(self.scores, self.weights)

    def extend(self, states: Ints, tokens: Ints, *, has_delimiter: bool) -> Extensions:
        """Return the weights of all extensions."""
        shape = (*states.shape[:2], tokens.shape[1])
        words = np.broadcast_to(self.token_ids[tokens][:, None], shape)
        contexts = np.broadcast_to(states[:, :, None], (*shape, states.shape[2]))
        log_probs, after = self.scores(contexts, words)
        return Extensions(self.weights.factors(log_probs), None, after)

    def lift(self, states: Ints) -> Floats | None:
        """Return None: every token is complete, so no prefix is lifted."""
        return None

    def advance(self, states: Ints, chosen: Chosen, carried: Ints | None) -> Ints:
        """Return the states of the chosen prefixes."""
        assert carried is not None
        *rows, fields = carried.shape
        places = chosen.sources * carried.shape[2] + chosen.places
        return np.where(chosen.is_new[..., None], carried.reshape(math.prod(rows), fields)[places], states)

    def end(self, states: Ints) -> Floats:
        """Return the factors of the end of the text."""
        return _end_factors(self.scores, states, self.weights)
