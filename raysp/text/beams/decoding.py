"""CTC beam search of the rows of a batch, with the times and scores of greedy decoding for the best texts.

Shapes: B batch, T frames, N tokens of all rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from raysp.text.beams.alignment import Alignment, Emissions, align
from raysp.text.beams.arpa import Ngrams
from raysp.text.beams.frames import TopFrames
from raysp.text.beams.fusion import Fusion
from raysp.text.beams.hot_words import HotWords
from raysp.text.beams.language_model import CharacterModel, NgramScores, Weights, WordModel
from raysp.text.beams.search import BeamSearch, Hypothesis
from raysp.text.beams.tokens import TokenTexts, is_of_characters
from raysp.text.ctc import CTCTokens, collapse, row_means


@dataclass(frozen=True)
class Extras:
    """What weighs hypotheses besides the frames."""

    lm: Ngrams | None = None
    lm_weights: Weights = field(default_factory=lambda: Weights(0.5, 1.0))
    hot_words: Mapping[tuple[int, ...], float] | None = None
    """Weights of sequences of tokens."""


class BeamDecoder:
    """Decoder of frames.

    Args:
        tokens: the vocabulary.
        beams: number of prefixes that are kept after each frame.
        extras: language model and hot words.
        device: device of the frames.
    """

    def __init__(self, tokens: TokenTexts, *, beams: int, extras: Extras, device: torch.device | str) -> None:
        self.tokens = tokens
        is_delimiter = torch.tensor(tokens.is_delimiter, device=device)
        self.search = BeamSearch(beams, _fusions(tokens, extras, device), delimiters=is_delimiter)

    def __call__(self, frames: TopFrames, num_frames: Tensor, *, best: int) -> list[list[Hypothesis]]:
        """Return up to `best` hypotheses of each row's first `num_frames` (B,) frames, at least one of each."""
        found = self.search(frames, num_frames, best=best)
        nothing = Hypothesis(np.empty(0, np.int32), -np.inf)
        return [row or [nothing] for row in found]

    def aligned(self, frames: TopFrames, num_frames: Tensor, best: Sequence[Hypothesis]) -> CTCTokens:
        """Return the tokens of the best hypotheses with their most probable frames.

        Those of a row with the tokens of greedy decoding are its own, since its alignment is the most probable.
        """
        greedy = collapse(frames.best(self.tokens.blank), num_frames, blank=self.tokens.blank)
        rows: list[tuple[np.ndarray, Alignment]] = []
        for row, (part, found) in enumerate(zip(greedy.rows(), best, strict=True)):
            ids = found.ids
            if not greedy.finite[row] or np.array_equal(greedy.flat_ids[part], ids):
                ids = greedy.flat_ids[part]
                known = Alignment(greedy.first_frames[part], greedy.last_frames[part], greedy.token_scores[part])
            else:
                known = align(_emissions(frames, row, int(num_frames[row])), ids, vocab_size=len(self.tokens.texts))
            rows.append((ids, known))
        counts = np.array([len(ids) for ids, _ in rows], np.int64)
        scores = np.concatenate([known.scores for _, known in rows])
        return CTCTokens(
            flat_ids=np.concatenate([ids for ids, _ in rows]),
            counts=counts,
            scores=row_means(scores, counts),
            token_scores=scores,
            first_frames=np.concatenate([known.first_frames for _, known in rows]),
            last_frames=np.concatenate([known.last_frames for _, known in rows]),
            finite=greedy.finite,
        )


def _fusions(tokens: TokenTexts, extras: Extras, device: torch.device | str) -> list[Fusion]:
    fusions: list[Fusion] = []
    if extras.lm is not None:
        scores = NgramScores(extras.lm, device)
        if is_of_characters(extras.lm.vocabulary(), tokens):
            ids = torch.from_numpy(extras.lm.ids(tokens.characters)).to(device)
            fusions.append(CharacterModel(scores, ids, extras.lm_weights))
        else:
            fusions.append(WordModel(scores, tokens.texts, extras.lm_weights, device))
    if extras.hot_words:
        hot = HotWords(extras.hot_words, vocab_size=len(tokens.texts), delimiter=tokens.delimiter, device=device)
        fusions.append(hot)
    return fusions


def _emissions(frames: TopFrames, row: int, num_frames: int) -> Emissions:
    blanks, ids, log_probs = (
        one[row, :num_frames].cpu().numpy() for one in (frames.blanks, frames.ids, frames.log_probs)
    )
    return Emissions(blanks, ids, log_probs)
