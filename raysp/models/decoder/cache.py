"""Cache of keys and values of a text decoder, per layer.

Legend: B rows of the encoder, R rows of the decoder (B, or B times the beams), A heads, P cached tokens, S frames,
D head.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

KeysAndValues: TypeAlias = tuple[Tensor, Tensor] | Tensor
"""Keys and values, (R, A, L, D) each, or both in one tensor (2, R, A, L, D)."""
MANY_TEXTS = 4  # texts per row of the encoder from which keys are stored transposed


class LayerCache:
    """Keys and values of one layer: of the cached tokens, and of the frames of the encoder."""

    def __init__(self, room: int = 0, texts: int = 1) -> None:
        self.room = room
        self.texts = texts
        self.num_tokens = 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.cross_keys: Tensor | None = None
        self.cross_values: Tensor | None = None

    def append(self, new: KeysAndValues) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens; return all, (R, A, P, D)."""
        keys_RALD, values_RALD = new
        end = self.num_tokens + keys_RALD.shape[2]
        if self.keys is None or self.values is None:
            self.keys, self.values = self._with_room(keys_RALD), self._with_room(values_RALD)
        elif end > self.keys.shape[2]:  # a new tensor: the old one may belong to an autograd graph or to the caller
            keys, values = self.keys[:, :, : self.num_tokens], self.values[:, :, : self.num_tokens]
            self.keys = self._with_room(torch.cat([keys, keys_RALD], 2))
            self.values = self._with_room(torch.cat([values, values_RALD], 2))
        else:
            self.keys[:, :, self.num_tokens : end] = keys_RALD
            self.values[:, :, self.num_tokens : end] = values_RALD
        self.num_tokens = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _with_room(self, x: Tensor) -> Tensor:
        """Return (R, A, L, D) within memory for further tokens."""
        rows, heads, length, width = x.shape
        if self.room <= length:
            return x
        # Empty, not zeros: places after `num_tokens` are never read.
        roomy = x.new_empty(rows, heads, self.room, width)
        roomy[:, :, :length] = x
        return roomy

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the decoder, in this order; rows may repeat."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self._selected(self.keys, rows), self._selected(self.values, rows)

    def _selected(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return some rows of (R, A, P, D)."""
        count = self.num_tokens
        if self.room <= count:
            return x[:, :, :count].index_select(0, rows)
        chosen = x.new_empty(len(rows), *x.shape[1:])
        torch.index_select(x[:, :, :count], 0, rows, out=chosen[:, :, :count])
        return chosen

    def keep_frames(self, keys_BASD: Tensor, values_BASD: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of frames in the layout that is fastest to read at every token, and return them.

        Contiguous per head. For several queries per head the frames are the innermost axis of the keys (1.1 to 1.2
        times faster with four).
        """
        turns = self.texts >= MANY_TEXTS
        self.cross_keys = keys_BASD.mT.contiguous().mT if turns else keys_BASD.contiguous()
        self.cross_values = values_BASD.contiguous()
        return self.cross_keys, self.cross_values

    def select_encoder(self, rows: Tensor) -> None:
        """Keep these rows of the encoder."""
        if self.cross_keys is not None and self.cross_values is not None:
            self.keep_frames(self.cross_keys.index_select(0, rows), self.cross_values.index_select(0, rows))

    def to_tuple(self) -> tuple[Tensor, ...]:
        """Return keys and values of the tokens, then of the frames if there are any."""
        own = (self.keys, self.values)
        tensors = [x[:, :, : self.num_tokens] for x in own if x is not None]
        return (*tensors, *(x for x in (self.cross_keys, self.cross_values) if x is not None))


class KeyValueCache:
    """Cache of all layers; iterates as (keys, values, cross keys, cross values) per layer.

    Keys and values of frames are stored once per row of the encoder, shared by its beams.

    Args:
        num_layers: Layers of the decoder.
        room: Tokens to allocate at once, so that appending copies nothing. With 0, every call leaves the tensors of
            earlier calls unchanged.
        texts: Texts decoded together for each row of the encoder.
    """

    def __init__(self, num_layers: int, room: int = 0, texts: int = 1) -> None:
        self.layers = [LayerCache(room, texts) for _ in range(num_layers)]

    @classmethod
    def of(cls, past: Any, num_layers: int) -> Self:  # noqa: ANN401 - a cache, or the tuples that it stands for
        """Make a cache from another one or from tuples of 2 or 4 tensors per layer, which do not change."""
        if len(past) != num_layers:
            raise ValueError(f"past_key_values has {len(past)} layers, expected {num_layers}, one per layer")
        cache = cls(num_layers)
        for layer, tensors in zip(cache.layers, past, strict=True):
            if len(tensors) not in (0, 2, 4):
                raise ValueError(
                    f"past_key_values has {len(tensors)} tensors per layer, expected 2, or 4 with an encoder"
                )
            if tensors:
                layer.keys, layer.values = tensors[:2]
                layer.num_tokens = tensors[0].shape[2]
            if len(tensors) == 4:
                layer.cross_keys, layer.cross_values = tensors[2:]
        return cache

    @property
    def num_tokens(self) -> int:
        """Number of cached tokens."""
        return self.layers[0].num_tokens if self.layers else 0

    @property
    def knows_encoder(self) -> bool:
        """Whether keys and values of frames are cached."""
        return bool(self.layers) and self.layers[0].cross_keys is not None

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the decoder, all rows of the encoder."""
        for layer in self.layers:
            layer.select(rows)

    def select_encoder(self, rows: Tensor) -> None:
        """Keep these rows of the encoder."""
        for layer in self.layers:
            layer.select_encoder(rows)

    def to_tuple(self) -> tuple[tuple[Tensor, ...], ...]:
        """Return a tuple of tensors per layer."""
        return tuple(layer.to_tuple() for layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return iter(self.to_tuple())

    def __getitem__(self, index: int) -> Sequence[Tensor]:
        return self.layers[index].to_tuple()
