"""SpecAugment (Park et al. 2019, section 2), with the random spans that checkpoints were trained with."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.crossing import sent

_LENGTHS: ContextVar[Sequence[int] | None] = ContextVar("lengths", default=None)


@contextlib.contextmanager
def known_lengths(num_frames: Sequence[int]) -> Iterator[None]:
    """Set the numbers of frames before the layers of the rows of passes within the block.

    Spans are then drawn without waiting for the attention mask of a device.
    """
    token = _LENGTHS.set(num_frames)
    try:
        yield
    finally:
        _LENGTHS.reset(token)


def _lengths_of(attention_mask: Tensor) -> Sequence[int]:
    """Return the lengths of rows: those that are known, else those of a mask."""
    known = _LENGTHS.get()
    return attention_mask.sum(-1).tolist() if known is None else known


def valid_on_host(valid_BT: Tensor) -> Tensor:
    """Return the valid frames of rows on the CPU: by their lengths, if these are known."""
    known = _LENGTHS.get()
    if known is None:
        return valid_BT.cpu()
    return torch.arange(valid_BT.shape[1]) < torch.tensor(known)[:, None]


def compute_mask_indices(
    shape: tuple[int, int],
    mask_prob: float,
    mask_length: int,
    attention_mask: Tensor | None = None,
    min_masks: int = 0,
) -> npt.NDArray[np.bool_]:
    """Return random spans of `mask_length` along the second axis of `shape`; True where masked.

    About `mask_prob` of an axis is covered (less where spans overlap), by at least `min_masks` spans. `attention_mask`
    limits each row to its own length. A row shorter than a span gets no span; where the whole axis is that short, the
    original raises. numpy's global generator is used in the order of the original, one number for the rounding and
    then the starts of each row, so `numpy.random.seed` repeats a training run.
    """
    if mask_length < 1:
        raise ValueError(f"mask_length is {mask_length!r}, expected at least 1")
    # A decorator would import torch's compiler, which takes seconds, in every process that imports a model.
    draw = torch.compiler.disable(_draw) if torch.compiler.is_compiling() else _draw  # type: ignore[no-untyped-call]
    return draw(shape, mask_prob, mask_length, attention_mask, min_masks)


def _draw(
    shape: tuple[int, int], mask_prob: float, mask_length: int, attention_mask: Tensor | None, min_masks: int
) -> npt.NDArray[np.bool_]:
    num_rows, num_places = shape
    # Drawn even where no span fits: later draws of the same seed would otherwise differ from the original's.
    rounding = np.random.rand(1).item()

    def num_spans(places: int) -> int:
        wanted = max(int(mask_prob * places / mask_length + rounding), min_masks)
        return max(min(wanted, num_places // mask_length, places - mask_length + 1), 0)

    masked = np.zeros(shape, dtype=np.bool_)
    if num_spans(num_places) == 0:
        return masked
    places = [num_places] * num_rows if attention_mask is None else _lengths_of(attention_mask)
    for row, available in zip(masked, places, strict=True):
        starts = np.random.choice(np.arange(available - mask_length + 1), num_spans(available), replace=False)
        for start in starts:
            row[start : start + mask_length] = True
        if len(starts) == 0:  # the original masks the last place of a row without spans, which is padding
            row[-1] = True
    return masked


class Augmentation(Protocol):
    """Fields of a configuration that control SpecAugment."""

    apply_spec_augment: bool
    mask_time_prob: float
    mask_time_length: int
    mask_time_min_masks: int
    mask_feature_prob: float
    mask_feature_length: int
    mask_feature_min_masks: int


def augmented(
    hidden_BTH: Tensor,
    config: Augmentation,
    masked_spec_embed: Tensor | None,
    mask_time_indices: Tensor | None,
    training: bool,
) -> Tensor:
    """Return frames with those of `mask_time_indices` (B, T) masked, and in training random features, too."""
    if not config.apply_spec_augment:
        return hidden_BTH
    batch, _, hidden_size = hidden_BTH.shape
    if mask_time_indices is not None:
        if masked_spec_embed is None:
            raise ValueError("mask_time_indices given to a model without masked_spec_embed: set mask_time_prob > 0")
        masked_BT1 = sent(mask_time_indices.to(torch.bool), hidden_BTH.device)[:, :, None]
        hidden_BTH = torch.where(masked_BT1, masked_spec_embed.to(hidden_BTH.dtype), hidden_BTH)
    if config.mask_feature_prob > 0 and training:
        if config.mask_feature_length > hidden_size:
            raise ValueError(
                f"mask_feature_length is {config.mask_feature_length}, expected at most hidden_size {hidden_size}: "
                "correct config.json"
            )
        shape, span, least = (batch, hidden_size), config.mask_feature_length, config.mask_feature_min_masks
        masked_BH = torch.from_numpy(compute_mask_indices(shape, config.mask_feature_prob, span, min_masks=least))
        hidden_BTH = hidden_BTH.masked_fill(sent(masked_BH, hidden_BTH.device)[:, None], 0.0)
    return hidden_BTH
