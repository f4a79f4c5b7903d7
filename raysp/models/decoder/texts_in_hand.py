"""Texts in hand: a step of a decoder has a fixed number of texts, and one that ends makes room for the next row.

So the products of each step have one shape, and attention has that of one row: in half precision on a CPU the text of a
row has the same bits whatever the other rows, their order and their number
(docs/decisions/070-texts-in-hand.md). Each row is searched as if it were alone; prompts are read token by token.

Legend: R texts of a step, K texts of a row (beams), L new tokens, V vocabulary, S frames, H hidden.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from raysp.models.decoder.attention import Pass, TextsOfRow
from raysp.models.decoder.cache import KeyValueCache
from raysp.models.decoder.sampling import Result, Steps, TextsInPlace, TokenDecoder

PADDING = 0
"""Token and position of a place without a text."""


@dataclass(frozen=True)
class RowToWrite(Generic[Result]):
    """A row, and how its texts are searched for."""

    frames_1SH: Tensor
    search: Callable[[TextsInPlace], Steps[Result]]


class _Place(Generic[Result]):
    """A place of a step, in which one row follows the other: the texts of a row, and the tokens that they go on with.

    The room of a row's tokens stays for the next row.
    """

    def __init__(self, decoder: TokenDecoder, room: int, texts: int) -> None:
        self.decoder = decoder
        self.cache = KeyValueCache(len(decoder.layers), room, texts)
        self.texts = texts
        self.row = -1
        self.attended: TextsOfRow | None = None
        """None while the place is free."""

    def begin(self, row: int, given: RowToWrite[Result]) -> None:
        """Let the next row have the place."""
        self.cache.clear()
        self.row, self.attended = row, TextsOfRow(self.cache, given.frames_1SH)
        self.steps = given.search(self)
        self._ask(next(self.steps))

    def _ask(self, tokens_RL: Tensor) -> None:
        self.tokens_LR = [*tokens_RL.T]
        """Tokens that are to be read one after the other; all texts begin with those of the first one."""

    @property
    def next_tokens(self) -> Tensor:
        """The tokens (K,) that are read next."""
        next_R: Tensor = self.tokens_LR[0]
        return next_R.expand(self.texts)

    @property
    def position(self) -> int:
        """The number of tokens before them."""
        self.decoder.check_length(self.cache.num_tokens + 1)
        return self.cache.num_tokens

    def go_on(self, logits_KV: Tensor) -> Result | None:
        """Search on with the logits of the tokens that were read; return the result of a row that ends."""
        read, *self.tokens_LR = self.tokens_LR
        if self.tokens_LR:
            return None
        try:
            # Memory of its own, as a library may read what begins elsewhere in another order.
            self._ask(self.steps.send(logits_KV[: len(read)].float().clone()))
        except StopIteration as end:
            self.attended = None
            result: Result = end.value
            return result
        return None

    def expand(self, beams: int) -> None:
        """Do nothing: all beams are there since the start."""

    def select(self, rows: Tensor) -> None:
        """Keep these texts, in this order."""
        self.cache.select(rows)

    def keep(self, rows: Tensor) -> None:
        """Do nothing: the only row stays until it ends."""


@torch.no_grad()
def write_rows(
    decoder: TokenDecoder, rows: Sequence[RowToWrite[Result]], *, rows_a_step: int, texts: int, room: int
) -> list[Result]:
    """Return the result of the search of each row, in their order.

    Args:
        decoder: computes logits.
        rows: rows to write.
        rows_a_step: rows of which texts are written at a time, whatever the number of rows.
        texts: texts of each row.
        room: tokens of the longest text.
    """
    places: list[_Place[Result]] = [_Place(decoder, room, texts) for _ in range(rows_a_step)]
    # Rows with many frames mostly have long texts: the last ones to end are short.
    waiting = deque(sorted(range(len(rows)), key=lambda row: -rows[row].frames_1SH.shape[1]))
    found: dict[int, Result] = {}
    while True:
        for place in places:
            if place.attended is None and waiting:
                place.begin(row := waiting.popleft(), rows[row])
        if not any(place.attended for place in places):
            return [found[row] for row in range(len(rows))]
        logits_RV = _step(decoder, places)
        for place, logits_KV in zip(places, torch.split(logits_RV, texts), strict=True):
            if place.attended is not None:
                result = place.go_on(logits_KV)
                if place.attended is None:
                    found[place.row] = result


def _step(decoder: TokenDecoder, places: Sequence[_Place[Result]]) -> Tensor:
    """Let the texts of all places read a token; return logits_RV."""
    none = torch.full((places[0].texts,), PADDING)
    tokens_R = torch.cat([none if one.attended is None else one.next_tokens for one in places])
    positions_R = torch.cat([none if one.attended is None else torch.full_like(none, one.position) for one in places])
    run = Pass(texts_apart=[one.attended for one in places])
    return decoder.head(decoder.decode(run, tokens_R[:, None], positions=positions_R[:, None])[:, -1])
