"""N-gram language models in a beam search: the weight of each word, or of each character, after those before it.

Shapes: B batch, W beams, K tokens of a frame, F fields of a state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysp.text.beams.arpa import Ngrams
from raysp.text.beams.fusion import LARGEST_LOG, Chosen, Extensions
from raysp.text.beams.hashing import MULTIPLIER, signed, text_hashes


@dataclass(frozen=True)
class Weights:
    """Weights of a language model."""

    log_prob: float
    """Factor of natural log-probabilities."""
    bonus: float
    """Added for each word, or for each token of a model of characters."""

    def factors(self, log_probs: Tensor) -> Tensor:
        """Return the factors of words with these log-probabilities."""
        return (self.log_prob * log_probs + self.bonus).clamp(-LARGEST_LOG, LARGEST_LOG).exp()


class NgramScores:
    """Log-probabilities of words after their contexts, for many contexts at once.

    A context is the index of the last word among all words, of the last two words among the 2-grams, and so on to
    n - 1 words; -1 where there is no such n-gram.
    """

    def __init__(self, model: Ngrams, device: torch.device | str = "cpu") -> None:
        def there(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device)

        self.num_words = len(model.word_ids)
        self.keys = [there(one) for one in model.keys]
        self.log_probs = [there(one) for one in model.log_probs]
        self.backoffs = [there(one) for one in model.backoffs]
        self.begin, self.end, self.unknown = model.begin, model.end, model.unknown
        self.words, self.word_ids, self.prefixes = (there(one) for one in (model.words, model.word_ids, model.prefixes))
        self.context_fields = model.order - 1

    def start(self) -> list[int]:
        """Return the context of the first word: `<s>`."""
        return [self.begin, *(-1 for _ in self.keys)][: self.context_fields]

    def __call__(self, contexts: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return natural log-probabilities, and the contexts after the words.

        Args:
            contexts: (..., F) int64.
            words: (...) int64 ids.

        Returns:
            (...) float64 and (..., F) int64.
        """
        log_probs = self.log_probs[0][words]
        after = [words]
        for place, (keys, own, backoffs) in enumerate(zip(self.keys, self.log_probs[1:], self.backoffs, strict=True)):
            before = contexts[..., place]
            wanted = before * self.num_words + words
            index = torch.searchsorted(keys, wanted.contiguous()).clamp_max(len(keys) - 1)
            is_found = (keys[index] == wanted) & (before >= 0)
            log_probs = torch.where(is_found, own[index], log_probs + backoffs[before])  # 0 at -1
            after.append(torch.where(is_found, index, -1))
        return log_probs.double(), torch.stack(after[: self.context_fields], -1) if self.context_fields else contexts

    def ids(self, hashes: Tensor) -> Tensor:
        """Return the ids of words with these hashes, that of `<unk>` for unknown ones."""
        index = torch.searchsorted(self.words, hashes.contiguous()).clamp_max(len(self.words) - 1)
        return torch.where(self.words[index] == hashes, self.word_ids[index], self.unknown)

    def begins_word(self, hashes: Tensor) -> Tensor:
        """Return whether a word begins with letters of these hashes."""
        index = torch.searchsorted(self.prefixes, hashes.contiguous()).clamp_max(len(self.prefixes) - 1)
        return self.prefixes[index] == hashes

    def end_factors(self, contexts: Tensor, weights: Weights) -> Tensor:
        """Return the factors of the end of the text, which has no bonus."""
        ends = torch.full(contexts.shape[:-1], self.end, device=contexts.device)
        return Weights(weights.log_prob, 0.0).factors(self(contexts, ends)[0])


class WordModel:
    """Language model of words. A word counts when a delimiter, or the end of the text, follows it.

    Meanwhile a prefix is ranked as one with an unknown word once no word of the model begins with the letters of its
    last one; else letters of several words would be joined, which delays the weights of these words.

    The state of a prefix is the hash of its last word, as far as it goes (0: none), whether a word of the model begins
    so, and the context of that word.

    Args:
        scores: the model.
        texts: text of each token of the vocabulary in a word; "" for delimiters and the blank.
        weights: weights of the model.
    """

    def __init__(self, scores: NgramScores, texts: Sequence[str], weights: Weights, device: torch.device | str) -> None:
        self.scores = scores
        self.weights = weights
        self.unknown_lift = float(weights.factors(scores.log_probs[0][scores.unknown].double()).clamp_max(1.0))
        self.is_delimiter = torch.tensor([not text for text in texts], device=device)
        self.added = torch.from_numpy(text_hashes(texts)).to(device)
        self.multipliers = torch.tensor([signed(pow(MULTIPLIER, len(text), 1 << 64)) for text in texts], device=device)

    def start(self) -> list[int]:
        """Return the fields of the empty prefix."""
        return [0, 1, *self.scores.start()]

    def extend(self, states: Tensor, tokens: Tensor, *, has_delimiter: bool) -> Extensions:
        """Return the weights of the last words for extensions by a delimiter, and the lifts of unknown ones."""
        grown = states[..., :1] * self.multipliers[tokens][:, None] + self.added[tokens][:, None]
        is_end = self.is_delimiter[tokens][:, None]
        lifts = torch.where(is_end | self.scores.begins_word(grown), 1.0, self.unknown_lift)
        if not has_delimiter:
            return Extensions(None, lifts, None)
        factors, contexts = self._last_words(states)
        return Extensions(torch.where(is_end, factors[..., None], 1.0), lifts, contexts)

    def lift(self, states: Tensor) -> Tensor | None:
        """Return the lifts of prefixes that end within a word."""
        return torch.where(states[..., 1] == 1, 1.0, self.unknown_lift)

    def advance(self, states: Tensor, chosen: Chosen, carried: Tensor | None) -> Tensor:
        """Return the states of the chosen prefixes."""
        hashes, contexts = states[..., 0], states[..., 2:]
        grown = hashes * self.multipliers[chosen.tokens] + self.added[chosen.tokens]
        is_end = chosen.is_new & self.is_delimiter[chosen.tokens]
        hashes = torch.where(chosen.is_new, torch.where(is_end, 0, grown), hashes)
        if carried is not None:
            after = carried.gather(1, chosen.sources[..., None].expand_as(contexts))
            contexts = torch.where(is_end[..., None], after, contexts)
        return torch.cat([hashes[..., None], self.scores.begins_word(hashes).long()[..., None], contexts], -1)

    def end(self, states: Tensor) -> Tensor:
        """Return the factors of the last words and of the end of the text."""
        factors, contexts = self._last_words(states)
        return factors * self.scores.end_factors(contexts, self.weights)

    def _last_words(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the last words, and the contexts after them; without a word 1 and the same."""
        hashes, contexts = states[..., 0], states[..., 2:]
        log_probs, after = self.scores(contexts, self.scores.ids(hashes))
        is_none = hashes == 0
        factors = torch.where(is_none, 1.0, self.weights.factors(log_probs))
        return factors, torch.where(is_none[..., None], contexts, after)


class CharacterModel:
    """Language model of characters, of which each token is one. Its state is the context of the next token.

    Args:
        scores: the model.
        ids: (V,) its id of each token of the vocabulary.
        weights: weights of the model.
    """

    def __init__(self, scores: NgramScores, ids: Tensor, weights: Weights) -> None:
        self.scores = scores
        self.token_ids = ids
        self.weights = weights

    def start(self) -> list[int]:
        """Return the fields of the empty prefix."""
        return self.scores.start()

    def extend(self, states: Tensor, tokens: Tensor, *, has_delimiter: bool) -> Extensions:
        """Return the weights of all extensions."""
        words = self.token_ids[tokens][:, None].expand(-1, states.shape[1], -1)
        contexts = states[:, :, None].expand(-1, -1, tokens.shape[1], -1)
        log_probs, after = self.scores(contexts, words)
        return Extensions(self.weights.factors(log_probs), None, after)

    def lift(self, states: Tensor) -> Tensor | None:
        """Return None."""
        return None

    def advance(self, states: Tensor, chosen: Chosen, carried: Tensor | None) -> Tensor:
        """Return the states of the chosen prefixes."""
        assert carried is not None
        places = chosen.sources * carried.shape[2] + chosen.places
        after = carried.flatten(1, 2).gather(1, places[..., None].expand_as(states))
        return torch.where(chosen.is_new[..., None], after, states)

    def end(self, states: Tensor) -> Tensor:
        """Return the factors of the end of the text."""
        return self.scores.end_factors(states, self.weights)
