"""Beam search: several open texts per row; the best finished texts are its results.

Rows are independent. The results of a decided row stay, and decided rows leave the batch once they are half of it.

Legend: B rows, K beams, C candidates (more than beams, so that enough stay open when some end), T longest text, V
vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from raysp.crossing import number
from raysp.models.base.outputs import GenerateOutput
from raysp.models.decoder.sampling import Search, draw, of_rows

LOWEST = -1e9  # below the score of any text
BLOCK = 64  # scores per block in `best`


def best(scores_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the highest scores of each row and their indices, as `topk`.

    For a large vocabulary on a CPU, only the blocks with the highest maxima are searched: they hold the best scores.
    """
    rows, size = scores_RV.shape
    blocks = size // BLOCK
    if scores_RV.device.type != "cpu" or blocks < 4 * count:
        return scores_RV.topk(min(count, size))
    whole_RNM = scores_RV[:, : blocks * BLOCK].reshape(rows, blocks, BLOCK)
    places_RC = whole_RNM.amax(-1).topk(count).indices
    candidates = whole_RNM.gather(1, places_RC[..., None].expand(-1, -1, BLOCK)).flatten(1)
    indices = (places_RC[..., None] * BLOCK + torch.arange(BLOCK)).flatten(1)
    rest = torch.arange(blocks * BLOCK, size).expand(rows, -1)
    candidates, indices = torch.cat([candidates, scores_RV[:, blocks * BLOCK :]], 1), torch.cat([indices, rest], 1)
    values, chosen = candidates.topk(count)
    return values, indices.gather(1, chosen)


class Texts(NamedTuple):
    """Texts of each row with their scores.

    `history` (B, n, 2, T) holds the tokens and, for each token, the row of the batch of beams it came from.
    """

    history: Tensor
    scores: Tensor
    ended: Tensor
    """(B, n), true where a text has ended."""

    def chosen(self, places_BK: Tensor) -> "Texts":
        """Return the texts of each row at these indices."""
        spread = places_BK[..., None, None].expand(-1, -1, *self.history.shape[2:])
        return Texts(self.history.gather(1, spread), self.scores.gather(1, places_BK), self.ended.gather(1, places_BK))

    def rows(self, rows: Tensor) -> "Texts":
        """Return the texts of the rows with these indices."""
        return Texts(*(values[rows] for values in self))

    def joined(self, other: "Texts") -> "Texts":
        """Concatenate the texts of each row."""
        return Texts(*(torch.cat(pair, 1) for pair in zip(self, other, strict=True)))


class BeamSearch(Search):
    """Beam search for one batch of rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.start = self.length
        self.num_candidates = max(2, 1 + len(self.eos)) * self.settings.num_beams
        self.rows_B = torch.arange(len(self.prompt_BT), device=self.prompt_BT.device)
        self.open_B = torch.ones_like(self.rows_B, dtype=torch.bool)
        self.running = self._first(fresh=False)
        self.finished, self.results = self._first(fresh=True), self._first(fresh=True)

    def _first(self, *, fresh: bool) -> Texts:
        batch, beams, device = len(self.prompt_BT), self.settings.num_beams, self.prompt_BT.device
        history = torch.full((batch, beams, 2, self.settings.max_length), -1, device=device)
        history[:, :, 0] = self._filling
        history[:, :, 0, : self.start] = self.prompt_BT[:, None]
        scores = torch.full((batch, beams), LOWEST, device=device)
        if not fresh:
            scores[:, 0] = 0.0  # all beams are equal at first: one is enough
        ended = torch.zeros((batch, beams), dtype=torch.bool, device=device)
        return Texts(history, scores, ended)

    @property
    def _filling(self) -> int:
        """Token that fills a text after its end; as in transformers the end token where padding is token 0."""
        if not self.settings.eos_token_ids:
            return -1
        return self.settings.pad_token_id or self.settings.eos_token_ids[0]

    def run(self) -> GenerateOutput:
        """Search until no result can improve."""
        tokens_RT = self.running.history[:, 0, 0, : self.start]
        expand: Callable[[Tensor], Tensor] = lambda x: x.repeat_interleave(self.settings.num_beams, 0)  # noqa: E731
        logits_RV = expand(self.decoding(tokens_RT))
        self.decoding.expand(self.settings.num_beams)
        while True:
            if not self._advance(self._candidates(logits_RV)):
                break
            self._drop_decided()
            logits_RV = self.decoding(self.running.history[:, :, 0, self.length - 1].reshape(-1, 1))
        self._keep_results(self.rows_B, self.finished)
        return self._output()

    def _candidates(self, logits_RV: Tensor) -> Texts:
        """Return the best, or sampled, continuations of the beams of each row, from the best down."""
        scores_RV, offsets_R = self._scored(logits_RV)
        beams, size = self.settings.num_beams, logits_RV.shape[1]
        # The log-softmax of a row is a constant: subtracted from K scores instead of from V times as many.
        before_BK = self.running.scores - offsets_R.view(-1, beams)
        if self.settings.do_sample:
            all_BN = (scores_RV.view(-1, beams, size) + before_BK[..., None]).flatten(1)
            places_BC = draw(all_BN.softmax(-1), self.num_candidates, self.generators)
            scores_BC, order_BC = all_BN.gather(1, places_BC).sort(-1, descending=True)
            places_BC = places_BC.gather(1, order_BC)
            from_BC, ids_BC = places_BC // size, places_BC % size
        else:
            values, ids = best(scores_RV, self.num_candidates)
            all_BN = (values.view(len(before_BK), beams, -1) + before_BK[..., None]).flatten(1)
            scores_BC, places_BC = all_BN.topk(self.num_candidates)
            from_BC, ids_BC = places_BC // values.shape[1], ids.view(len(before_BK), -1).gather(1, places_BC)
        return self._continued(scores_BC, from_BC, ids_BC)

    def _scored(self, logits_RV: Tensor) -> tuple[Tensor, Tensor]:
        """Return changed scores, and per row the offset to subtract to get log-probabilities."""
        offsets_R = logits_RV.logsumexp(-1)
        changes = [change for change in self.changes if change.applies(self.length)]
        if self.keeps_scores or any(change.needs_log_probs for change in changes):
            logits_RV = logits_RV - offsets_R[:, None]
            offsets_R = torch.zeros_like(offsets_R)
        tokens_RT = self.running.history[:, :, 0, : self.length].flatten(0, 1)
        for change in changes:
            logits_RV = change.compute(tokens_RT, logits_RV)
        if self.keeps_scores:
            self.all_scores.append(logits_RV.clone())
        return logits_RV, offsets_R

    def _continued(self, scores_BC: Tensor, from_BC: Tensor, ids_BC: Tensor) -> Texts:
        texts = self.running.chosen(from_BC)
        batch = torch.arange(len(from_BC), device=from_BC.device)[:, None]
        texts.history[:, :, 0, self.length] = ids_BC
        texts.history[:, :, 1, self.length - self.start] = from_BC + batch * self.settings.num_beams
        ended = torch.isin(ids_BC, self.eos) | (self.length + 1 >= self.settings.max_length)
        return texts._replace(scores=scores_BC, ended=ended)

    def _advance(self, candidates: Texts) -> bool:
        """Make the best open candidates beams, and the best ended candidates results; return whether to continue."""
        beams = self.settings.num_beams
        # Added, not replaced: if all have ended, the order of their scores still decides.
        going_on_BC = candidates.scores + candidates.ended * LOWEST
        places_BK = going_on_BC.topk(beams).indices
        self.finished = self._finished_with(candidates)
        sources = candidates.history[:, :, 1, self.length - self.start].gather(1, places_BK)
        self.running = candidates.chosen(places_BK)._replace(scores=going_on_BC.gather(1, places_BK))
        self.length += 1
        self.open_B = self.open_B & self._can_improve()
        goes_on = bool(number(~candidates.ended.all() & self._undecided().any()))
        if goes_on:  # nothing is decoded after the last step, so its cache is not put in order
            self.decoding.select(sources.flatten())
        return goes_on

    def _finished_with(self, candidates: Texts) -> Texts:
        """Return the best of the finished texts and of the candidates that end now."""
        beams = self.settings.num_beams
        first_C = torch.arange(self.num_candidates, device=candidates.scores.device) < beams
        ended_BC = candidates.ended & first_C  # further candidates only replace ended ones
        scores_BC = candidates.scores / (self.length + 1 - self.start) ** self.settings.length_penalty
        scores_BC = scores_BC + ~self._undecided()[:, None] * LOWEST + ~ended_BC * LOWEST
        merged = self.finished.joined(candidates._replace(scores=scores_BC, ended=ended_BC))
        return merged.chosen(merged.scores.topk(beams).indices)

    def _can_improve(self) -> Tensor:
        """Return, for each row, whether its best beam can still beat its worst result."""
        settings = self.settings
        never = settings.early_stopping == "never" and settings.length_penalty > 0.0
        hoped_for = (settings.max_length if never else self.length) - self.start
        possible_B1 = self.running.scores[:, :1] / hoped_for**settings.length_penalty
        worst_B1 = self.finished.scores.amin(-1, keepdim=True)
        worst_BK = torch.where(self.finished.ended, worst_B1, LOWEST)
        improvable_B: Tensor = (possible_B1 > worst_BK).any(-1)
        return improvable_B

    def _undecided(self) -> Tensor:
        full_B = self.finished.ended.all(-1) & (self.settings.early_stopping is True)
        return self.open_B & ~full_B

    def _drop_decided(self) -> None:
        """Keep only the undecided rows, once they are at most half."""
        undecided_B = self._undecided()
        if self.keeps_all(undecided_B):
            return
        self._keep_results(self.rows_B, self.finished)
        kept = undecided_B.nonzero()[:, 0]
        self.decoding.keep(kept)
        self.generators = of_rows(self.generators, kept)
        self.rows_B, self.open_B = self.rows_B[kept], self.open_B[kept]
        self.running, self.finished = self.running.rows(kept), self.finished.rows(kept)

    def _keep_results(self, rows: Tensor, texts: Texts) -> None:
        self.results.history[rows], self.results.scores[rows] = texts.history, texts.scores

    def _output(self) -> GenerateOutput:
        count = self.settings.num_return_sequences
        history = self.results.history[:, :count].flatten(0, 1)
        num_new = int(number((history[:, 1] >= 0).sum(-1).max()))
        output_scores = self.settings.output_scores
        return GenerateOutput(
            sequences=history[:, 0, : self.start + num_new],
            sequences_scores=self.results.scores[:, :count].flatten() if output_scores else None,
            scores=tuple(self.all_scores) if output_scores else None,
            beam_indices=history[:, 1, :num_new],
        )
