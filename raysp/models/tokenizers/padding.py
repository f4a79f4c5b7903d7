"""Padding of token ids, shared by the tokenizers of CTC models and of text decoders."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from raysp.models.base.batches import BatchFeature, padded_length, tensors_of

Rows = list[list[int]]
PADDED_WITH_0 = ("token_type_ids", "attention_mask")


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
        *,
        padding_side: str | None = None,
        verbose: bool = True,
    ) -> BatchFeature:
        """Pad lists of ids, their token types and masks to one length; `attention_mask` is 0 at padding.

        Other values, such as labels of rows, stay as they are. `verbose` has no effect.
        """
        given = encoded_inputs if isinstance(encoded_inputs, Mapping) else _columns(encoded_inputs)
        if "input_ids" not in given:
            raise ValueError(f"rows have {', '.join(given) or 'no values'}, expected input_ids, which a tokenizer pads")
        if is_one := len(given["input_ids"]) > 0 and not _is_row(given["input_ids"][0]):
            given = {name: [value] for name, value in given.items()}
        rows = _rows(given["input_ids"])
        target = padded_length(list(map(len, rows)), padding, max_length, pad_to_multiple_of)
        missing = [max(0, (target or 0) - len(row)) for row in rows]
        left = _is_left(self.padding_side if padding_side is None else padding_side)
        padded: dict[str, Any] = dict(given)
        padded["input_ids"] = _filled(rows, missing, self._padding_id() if any(missing) else 0, left)
        padded |= {name: _filled(_rows(given[name]), missing, 0, left) for name in PADDED_WITH_0 if name in given}
        if not return_attention_mask:
            padded.pop("attention_mask", None)
        elif "attention_mask" not in given:
            padded["attention_mask"] = _filled([[1] * len(row) for row in rows], missing, 0, left)
        if is_one:
            padded = {name: values[0] for name, values in padded.items()}
        return tensors_of(padded, return_tensors)


def _is_left(side: str) -> bool:
    if side not in ("left", "right"):
        raise ValueError(f"padding_side is {side!r}, expected 'left' or 'right'")
    return side == "left"


def _filled(rows: Rows, missing: list[int], value: int, left: bool) -> Rows:
    return [[value] * n + row if left else row + [value] * n for row, n in zip(rows, missing, strict=True)]


def _is_row(value: Any) -> bool:  # noqa: ANN401 - a row, or one id
    """Return whether a value is a list, array or tensor of ids; an id of an array or tensor has no axes."""
    return hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of rows by their names, those that every row has."""
    if not rows:
        return {"input_ids": []}
    return {name: [row[name] for row in rows] for name in rows[0] if all(name in row for row in rows)}


def _rows(values: Any) -> Rows:  # noqa: ANN401 - rows as lists, arrays or tensors
    return [list(map(int, row)) for row in values]
