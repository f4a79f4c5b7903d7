"""Padding of token ids, shared by the tokenizers of CTC models and of text decoders."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from raysp.models.base.batches import BatchFeature, padded_length, tensors_of

Rows = list[list[int]]


class PaddingTokenizer(ABC):
    """A tokenizer whose lists of ids can be padded to one length."""

    padding_side: str = "right"

    @abstractmethod
    def _padding_id(self) -> int:
        """Return the id of the padding token; raise where there is no such token."""

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Pad lists of ids, and their token types, to one length; `attention_mask` is 0 at padding."""
        rows = _rows(encoded_inputs, "input_ids") or []
        types = _rows(encoded_inputs, "token_type_ids")
        target = padded_length(list(map(len, rows)), padding, max_length, pad_to_multiple_of)
        missing = [max(0, (target or 0) - len(row)) for row in rows]
        padded = {"input_ids": self._filled(rows, missing, self._padding_id() if any(missing) else 0)}
        if types is not None:
            padded["token_type_ids"] = self._filled(types, missing, 0)
        if return_attention_mask:
            padded["attention_mask"] = self._filled([[1] * len(row) for row in rows], missing, 0)
        return tensors_of(padded, return_tensors)

    def _filled(self, rows: Rows, missing: list[int], value: int) -> Rows:
        left = self.padding_side == "left"
        return [[value] * n + row if left else row + [value] * n for row, n in zip(rows, missing, strict=True)]


def _rows(encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]], name: str) -> Rows | None:
    """Return the lists of ints of one name, from columns or from one mapping per row; None where it is absent."""
    if isinstance(encoded_inputs, Mapping):
        found = encoded_inputs.get(name)
    else:
        found = [row[name] for row in encoded_inputs if name in row] or None
    return None if found is None else [list(map(int, row)) for row in found]
