"""Greedy decoding and sampling, and the decoder state that beam search uses too.

Legend: B rows of the encoder, R rows of the decoder, L new tokens, T earlier tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.crossing import constant, fetch, number
from raysp.models.base.outputs import GenerateOutput
from raysp.models.decoder.attention import Pass, token_mask
from raysp.models.decoder.cache import KeyValueCache
from raysp.models.decoder.generation_config import Settings
from raysp.models.decoder.logits import Change


class TokenDecoder(Protocol):
    """Interface of a text decoder that generation needs."""

    positions_follow_mask: ClassVar[bool]

    @property
    def config(self) -> Any:  # noqa: ANN401 (each architecture has its own)
        """Configuration of the decoder."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers, in order."""

    def decode(self, run: Pass, input_ids: Tensor | None = None, *, positions: Tensor | None = None) -> Tensor:
        """Run new tokens through all layers; return the last hidden_RLH."""

    def head(self, hidden_RLH: Tensor) -> Tensor:
        """Return the logits."""


Generators = torch.Generator | list[torch.Generator] | None
"""Sources of random numbers: the default of torch, one generator, or one per row."""


@dataclass(eq=False)
class Decoding:
    """Decoder and cache during the generation of a batch.

    Args:
        decoder: Computes logits.
        encoder_BSH: Frames to attend to.
        frames: (B, 1, 1, S), true where a frame is attended to; None: everywhere.
        room: Tokens of the longest text.
        prompt_mask: (B, T), nonzero where a token of the prompt is attended to; None: everywhere.
        texts: Texts per row after `expand`.
    """

    decoder: TokenDecoder
    encoder_BSH: Tensor | None
    frames: Tensor | None
    room: InitVar[int]
    prompt_mask: InitVar[Tensor | None]
    texts: InitVar[int]

    def __post_init__(self, room: int, prompt_mask: Tensor | None, texts: int) -> None:
        self.mask_RT = None if prompt_mask is None or number(prompt_mask.all()) else prompt_mask.bool()
        self.cache = KeyValueCache(len(self.decoder.layers), room, texts)
        self.beams = 1

    def __call__(self, tokens_RL: Tensor) -> Tensor:
        """Feed new tokens; return the float32 logits_RV of the next one."""
        past, num_new = self.cache.num_tokens, tokens_RL.shape[1]
        positions: Tensor | None = None
        if self.mask_RT is not None:
            if past:
                self.mask_RT = F.pad(self.mask_RT, (0, num_new), value=True)
            if self.decoder.positions_follow_mask and self.encoder_BSH is None and not self.cache.knows_encoder:
                positions = (self.mask_RT.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
        run = Pass(
            tokens=token_mask(self.mask_RT, num_new, past, tokens_RL.device),
            encoder_BSH=self.encoder_BSH,
            frames=self.frames,
            cache=self.cache,
        )
        hidden_RLH = self.decoder.decode(run, tokens_RL, positions=positions)
        self.encoder_BSH = None  # its keys and values are in the cache
        return self.decoder.head(hidden_RLH[:, -1]).float()

    def expand(self, beams: int) -> None:
        """Repeat each row, once per beam."""
        if beams > 1:
            rows = torch.arange(self.num_rows, device=self.decoder.device)
            self.select(rows.repeat_interleave(beams))
            self.beams *= beams

    @property
    def num_rows(self) -> int:
        """Texts in the batch."""
        keys = self.cache.layers[0].keys
        return 0 if keys is None else len(keys)

    def select(self, rows: Tensor) -> None:
        """Keep these texts, in this order; the frames stay."""
        self.cache.select(rows)
        if self.mask_RT is not None:
            self.mask_RT = self.mask_RT[rows]

    def keep(self, rows: Tensor) -> None:
        """Keep these rows, with all texts of each."""
        offsets = torch.arange(self.beams, device=rows.device)
        self.select((rows[:, None] * self.beams + offsets).flatten())
        self.cache.select_encoder(rows)
        if self.frames is not None:
            self.frames = self.frames[rows]


def draw(probs_RN: Tensor, count: int, generators: Generators) -> Tensor:
    """Sample `count` different indices per row by their probabilities.

    With a list of generators, each samples for its own, adjacent rows.
    """
    if not isinstance(generators, list):
        return torch.multinomial(probs_RN, count, generator=generators)
    parts = probs_RN.chunk(len(generators))
    return torch.cat([torch.multinomial(p, count, generator=g) for p, g in zip(parts, generators, strict=True)])


def of_rows(generators: Generators, rows: Tensor) -> Generators:
    """Return the generators of some rows."""
    return [generators[row] for row in fetch(rows)[0].tolist()] if isinstance(generators, list) else generators


@dataclass(eq=False)
class Search:
    """Generation of texts for one batch of rows, which leave it once they are decided.

    Args:
        settings: Options of the call.
        decoding: Decoder and cache of the texts.
        changes: Changes of the scores, in order.
        prompt_BT: Tokens to start from.
        generators: Random generators for sampling.
    """

    settings: Settings
    decoding: Decoding
    changes: Sequence[Change]
    prompt_BT: Tensor
    generators: Generators

    def __post_init__(self) -> None:
        self.length = self.prompt_BT.shape[1]
        self.eos = constant(tuple(self.settings.eos_token_ids), self.prompt_BT.device)
        self.all_scores: list[Tensor] = []

    @property
    def keeps_scores(self) -> bool:
        """Whether the output includes the scores of each step."""
        return self.settings.output_scores and self.settings.return_dict

    def keeps_all(self, open_B: Tensor) -> bool:
        """Return whether finished rows stay: more than half are unfinished, or the output depends on row positions."""
        draws_for_all = self.settings.do_sample and not isinstance(self.generators, list)
        needs_all = self.keeps_scores or draws_for_all
        return bool(needs_all or 2 * number(open_B.sum()) > len(open_B))


class TokenByToken(Search):
    """Greedy decoding or sampling of one batch: the best, or a sampled, token at a time.

    Ended texts are filled with padding, and leave the batch once half of all texts have ended.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = self.settings
        self.padding = settings.pad_token_id or 0
        self.texts = settings.num_return_sequences
        prompt_RT = self.prompt_BT.repeat_interleave(self.texts, 0)
        self.tokens_RT = F.pad(prompt_RT, (0, settings.max_length - self.length), value=self.padding)
        self.rows_R = torch.arange(len(prompt_RT), device=prompt_RT.device)
        """Texts of the rows still in the batch."""
        self.done_R = torch.zeros_like(self.rows_R, dtype=torch.bool)

    def run(self) -> GenerateOutput:
        """Return `sequences` (B * n, T), and the scores (B * n, V) of each token if kept."""
        logits_RV = self.decoding(self.prompt_BT).repeat_interleave(self.texts, 0)
        self.decoding.expand(self.texts)
        while True:
            self._write(self._next(logits_RV))
            num_done = number(self.done_R.sum()) if self.settings.eos_token_ids else 0
            if self.length >= self.settings.max_length or num_done == len(self.done_R):
                scores = tuple(self.all_scores) if self.settings.output_scores else None
                return GenerateOutput(sequences=self.tokens_RT[:, : self.length], scores=scores)
            if 2 * num_done >= len(self.done_R):
                self._drop_done()
            logits_RV = self.decoding(self.tokens_RT[self.rows_R, self.length - 1 : self.length])

    def _next(self, logits_RV: Tensor) -> Tensor:
        """Return the next token of each text."""
        for change in self.changes:
            if change.applies(self.length):
                logits_RV = change.compute(self.tokens_RT[self.rows_R, : self.length], logits_RV)
        if self.keeps_scores:
            self.all_scores.append(logits_RV.clone())
        if not self.settings.do_sample:
            return logits_RV.argmax(-1)
        return draw(logits_RV.softmax(-1), 1, self.generators)[:, 0]

    def _write(self, next_R: Tensor) -> None:
        if self.settings.eos_token_ids:
            next_R = next_R.masked_fill(self.done_R, self.padding)
            self.done_R = self.done_R | torch.isin(next_R, self.eos)
        self.tokens_RT[self.rows_R, self.length] = next_R
        self.length += 1

    def _drop_done(self) -> None:
        """Keep only the rows with an open text, once they are at most half."""
        open_B = ~self.done_R.view(-1, self.texts).all(-1)
        if self.keeps_all(open_B):
            return
        kept = open_B.nonzero()[:, 0]
        self.decoding.keep(kept)
        self.generators = of_rows(self.generators, kept)
        open_R = open_B.repeat_interleave(self.texts)
        self.rows_R, self.done_R = self.rows_R[open_R], self.done_R[open_R]
