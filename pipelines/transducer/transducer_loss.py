"""Losses of transducers: RNN-T (Graves 2012, arXiv:1211.3711) and TDT (Xu et al. 2023, arXiv:2304.06795).

A path leads from frame 0 without labels past the last frame with all labels, by moves: a blank advances by frames, a
label advances by a label and, in TDT, by the frames of its duration. The loss is the negative logarithm of the sum over
all paths. Probabilities of moves are computed for some frames at a time, so that logits of all frames and labels never
exist together; the sums go over the diagonals of the lattice, where no place depends on another.

Legend: B batch, T frames, U labels of the longest row, J width of the joint network, V vocabulary, D durations, M kinds
of moves, N diagonals (T + U + 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from raysp.models import ParakeetForRNNT

IMPOSSIBLE = -1e30
"""Logarithm of the probability of a move that does not exist: finite, so that differences of two stay numbers."""
CHUNK_BYTES = 64e6
"""Bytes of the logits of a chunk in float32."""
RECOMPUTED: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
"""Options of a chunk that is computed again in the backward pass; nothing in it is random."""
Joint = Callable[[Tensor, Tensor], Tensor]
"""Returns logits (..., V + D) for predictions and frames (..., J)."""


class Move(NamedTuple):
    """A kind of move through the lattice of frames and labels."""

    frames: int
    """Frames by which the move advances."""
    labels: int
    """1 for a label, 0 for a blank."""
    duration: int | None
    """Place of its duration; None: RNN-T."""


@dataclass(frozen=True)
class Moves:
    """Kinds of moves of a transducer.

    Attributes:
        blank: id of the blank.
        vocab_size: tokens before the durations.
        durations: frames of each duration; none for RNN-T.
    """

    blank: int
    vocab_size: int
    durations: tuple[int, ...] = ()

    @property
    def kinds(self) -> tuple[Move, ...]:
        """The kinds: blanks, which go on by at least a frame, then labels."""
        if not self.durations:
            return Move(1, 0, None), Move(0, 1, None)
        blanks = (Move(frames, 0, place) for place, frames in enumerate(self.durations) if frames)
        return (*blanks, *(Move(frames, 1, place) for place, frames in enumerate(self.durations)))


def moves_of(model: ParakeetForRNNT) -> Moves:
    """Return the kinds of moves of a model; those of TDT have durations."""
    return Moves(model.blank, model.config.vocab_size, model.durations)


def row_losses(
    model: ParakeetForRNNT, frames_BTJ: Tensor, num_frames_B: Tensor, labels_BU: Tensor, num_labels_B: Tensor
) -> Tensor:
    """Return the loss of each row (B,) of a model; see `transducer_loss`.

    Args:
        model: a transducer, RNN-T or TDT.
        frames_BTJ: `pooler_output` of the model: frames of the encoder, projected.
        num_frames_B: frames of each row.
        labels_BU: tokens of each text, at least one column; values after its end are ignored.
        num_labels_B: tokens of each text.
    """
    labels_BU = labels_BU.to(frames_BTJ.device).clamp(0, model.config.vocab_size - 1)
    predicted_BUJ = model.decoder(F.pad(labels_BU, (1, 0), value=model.blank))
    return transducer_loss(
        model.joint, frames_BTJ, predicted_BUJ, labels_BU, num_frames_B, num_labels_B, moves_of(model)
    )


def transducer_loss(
    joint: Joint,
    frames_BTJ: Tensor,
    predicted_BUJ: Tensor,
    labels_BU: Tensor,
    num_frames_B: Tensor,
    num_labels_B: Tensor,
    moves: Moves,
    *,
    chunk_bytes: float = CHUNK_BYTES,
) -> Tensor:
    """Return the loss of each row (B,), in float32 or wider; 0, without gradients, for a row that has no path.

    Args:
        joint: joint network.
        frames_BTJ: projected frames of the encoder.
        predicted_BUJ: predictions (B, U + 1, J) after the blank and after each label.
        labels_BU: ids of the labels, on the device of the frames; labels after a row's end are ignored.
        num_frames_B: frames of each row, on the CPU.
        num_labels_B: labels of each row, on the CPU.
        moves: kinds of moves.
        chunk_bytes: most bytes of the logits in float32 that exist at once, unless one frame takes more.
    """
    labels_BU = labels_BU.clamp(min=0)
    scores_MBTU = move_scores(joint, frames_BTJ, predicted_BUJ, labels_BU, moves, chunk_bytes=chunk_bytes)
    sizes = Sizes.of(num_frames_B, num_labels_B, scores_MBTU, moves)
    loss_B: Tensor = _PathSum.apply(scores_MBTU, sizes)  # type: ignore[no-untyped-call]
    return loss_B


def move_scores(
    joint: Joint, frames_BTJ: Tensor, predicted_BUJ: Tensor, labels_BU: Tensor, moves: Moves, *, chunk_bytes: float
) -> Tensor:
    """Return the log-probabilities of all moves from each place (M, B, T, U + 1), in float32 or wider.

    Arguments as for `transducer_loss`. Several chunks are computed again in the backward pass.
    """
    after_BU = F.pad(labels_BU, (0, 1), value=0 if moves.blank else 1)  # no label: its move is unused
    if labels_BU.shape[1] != predicted_BUJ.shape[1] - 1:
        raise ValueError(
            f"predictions {tuple(predicted_BUJ.shape)} and labels {tuple(labels_BU.shape)} found, expected one "
            "prediction more than labels"
        )

    def of(frames_BCJ: Tensor, predicted_BUJ: Tensor, after_BU: Tensor) -> Tensor:
        logits_BCUV = joint(predicted_BUJ[:, None], frames_BCJ[:, :, None])
        return _scores_of(logits_BCUV, after_BU, moves)

    rows_at_once, frames_at_once = _chunk(frames_BTJ.shape[1], predicted_BUJ.shape[1], moves, chunk_bytes)
    if rows_at_once >= len(frames_BTJ) and frames_at_once >= frames_BTJ.shape[1]:
        return of(frames_BTJ, predicted_BUJ, after_BU)
    batches = zip(*(torch.split(tensor, rows_at_once) for tensor in (frames_BTJ, predicted_BUJ, after_BU)), strict=True)
    of_rows = []
    for rows_RTJ, *rest in batches:
        parts = (checkpoint(of, part, *rest, **RECOMPUTED) for part in torch.split(rows_RTJ, frames_at_once, dim=1))
        of_rows.append(torch.cat([*parts], dim=2))
    return torch.cat(of_rows, dim=1)


def _chunk(num_frames: int, num_places: int, moves: Moves, chunk_bytes: float) -> tuple[int, int]:
    """Return the rows and the frames of a chunk: several rows with all of their frames, else some frames of a row."""
    of_frame = 4 * num_places * (moves.vocab_size + len(moves.durations))
    return max(1, int(chunk_bytes / (of_frame * max(1, num_frames)))), max(1, int(chunk_bytes / of_frame))


def _scores_of(logits_BCUV: Tensor, after_BU: Tensor, moves: Moves) -> Tensor:
    """Return the log-probabilities of moves (M, B, C, U) from logits (B, C, U, V + D) and the labels that follow."""
    wide = torch.promote_types(logits_BCUV.dtype, torch.float32)
    tokens_BCUV = logits_BCUV[..., : moves.vocab_size].to(wide)
    total_BCU = tokens_BCUV.logsumexp(-1)
    index_BCU1 = after_BU[:, None, :, None].expand(-1, tokens_BCUV.shape[1], -1, -1)
    of_blank_BCU = tokens_BCUV[..., moves.blank] - total_BCU
    of_label_BCU = tokens_BCUV.gather(-1, index_BCU1)[..., 0] - total_BCU
    if not moves.durations:
        return torch.stack([of_blank_BCU, of_label_BCU])
    of_span_BCUD = logits_BCUV[..., moves.vocab_size :].to(wide).log_softmax(-1)
    of_token = (of_blank_BCU, of_label_BCU)
    return torch.stack([of_token[kind.labels] + of_span_BCUD[..., kind.duration] for kind in moves.kinds])


class Sizes(NamedTuple):
    """Sizes of the lattices of a batch, on its device, and the places between which moves exist."""

    num_frames_B: Tensor
    num_labels_B: Tensor
    kinds: tuple[Move, ...]
    exists_MBTU: Tensor

    @classmethod
    def of(cls, num_frames_B: Tensor, num_labels_B: Tensor, scores_MBTU: Tensor, moves: Moves) -> "Sizes":
        """Return the sizes: a move begins within its row and ends there, or, for a blank, after its end."""
        device, (_, _, num_frames, num_places) = scores_MBTU.device, scores_MBTU.shape
        num_frames_B, num_labels_B = num_frames_B.to(device), num_labels_B.to(device)
        frame_T1, place_U = torch.arange(num_frames, device=device)[:, None], torch.arange(num_places, device=device)
        end_B11, last_B11 = num_frames_B[:, None, None], num_labels_B[:, None, None]
        begins_BTU = (frame_T1 < end_B11) & (place_U <= last_B11)
        exists = []
        for kind in moves.kinds:
            to_T1, to_U = frame_T1 + kind.frames, place_U + kind.labels
            ends_BTU = (to_T1 < end_B11) & (to_U <= last_B11)
            if not kind.labels:
                ends_BTU = ends_BTU | ((to_T1 == end_B11) & (to_U == last_B11))
            exists.append(begins_BTU & ends_BTU)
        return cls(num_frames_B, num_labels_B, moves.kinds, torch.stack(exists))


class _PathSum(torch.autograd.Function):
    """Negative log of the sum over all paths; its gradient is the negative expected number of each move.

    Sums over all paths to a place (alpha) and from it (beta) are kept by diagonals: A[n, b, u] belongs to frame
    n - u, so that a move of f frames and l labels leads from A[n, :, u] to A[n + f + l, :, u + l].
    """

    @staticmethod
    def forward(ctx: Any, scores_MBTU: Tensor, sizes: Sizes) -> Tensor:  # noqa: ANN401 - torch's context
        scores_MBTU = scores_MBTU.detach().masked_fill(~sizes.exists_MBTU, IMPOSSIBLE)
        scores_NMBU = _by_diagonals(scores_MBTU)
        alpha_NBU = _alphas(scores_NMBU, sizes.kinds)
        ends_B = sizes.num_frames_B + sizes.num_labels_B
        rows_B = torch.arange(len(ends_B), device=ends_B.device)
        total_B = alpha_NBU[ends_B, rows_B, sizes.num_labels_B]
        has_path_B = total_B > IMPOSSIBLE / 2
        if ctx.needs_input_grad[0]:
            beta_NBU = _betas(scores_NMBU, sizes)
            ctx.save_for_backward(_expected(scores_NMBU, alpha_NBU, beta_NBU, total_B, has_path_B, sizes))
        return torch.where(has_path_B, -total_B, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient_B: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's context
        (expected_MBTU,) = ctx.saved_tensors
        return -expected_MBTU * gradient_B[:, None, None], None


def _by_diagonals(scores_MBTU: Tensor) -> Tensor:
    """Return scores (N, M, B, U + 1), at n and u of frame n - u, impossible outside."""
    num_kinds, batch, num_frames, num_places = scores_MBTU.shape
    frames_NU = _frames(num_frames + num_places, num_places, scores_MBTU.device)
    is_inside_NU = (frames_NU >= 0) & (frames_NU < num_frames)
    if not num_frames:
        return scores_MBTU.new_full((num_places, num_kinds, batch, num_places), IMPOSSIBLE)
    index_NU = frames_NU.clamp(0, num_frames - 1).expand(num_kinds, batch, -1, -1)
    scores_MBNU = scores_MBTU.gather(2, index_NU).masked_fill(~is_inside_NU, IMPOSSIBLE)
    return scores_MBNU.permute(2, 0, 1, 3).contiguous()


def _frames(num_diagonals: int, num_places: int, device: torch.device) -> Tensor:
    """Return the frame of each place (N, U + 1) of the diagonals."""
    return torch.arange(num_diagonals, device=device)[:, None] - torch.arange(num_places, device=device)


def _alphas(scores_NMBU: Tensor, kinds: Sequence[Move]) -> Tensor:
    """Return the logarithms of the sums over all paths to each place (N, B, U + 1).

    Moves of a diagonal lead to later diagonals: partial sums are kept for each kind, and added when complete.
    """
    num_diagonals, num_kinds, batch, num_places = scores_NMBU.shape
    reach = max(kind.frames + kind.labels for kind in kinds)
    alpha_NBU = scores_NMBU.new_full((num_diagonals, batch, num_places), IMPOSSIBLE)
    arriving_NMBU = scores_NMBU.new_full((num_diagonals + reach, num_kinds, batch, num_places), IMPOSSIBLE)
    alpha_NBU[0, :, 0] = 0.0
    for n in range(num_diagonals):
        if n:
            torch.logsumexp(arriving_NMBU[n], 0, out=alpha_NBU[n])
        leaving_MBU = alpha_NBU[n] + scores_NMBU[n]
        for number, (frames, labels, _) in enumerate(kinds):
            arriving_NMBU[n + frames + labels, number, :, labels:] = leaving_MBU[number, :, : num_places - labels]
    return alpha_NBU


def _betas(scores_NMBU: Tensor, sizes: Sizes) -> Tensor:
    """Return the logarithms of the sums over all paths from each place to its row's end (N, B, U + 1)."""
    num_diagonals, num_kinds, batch, num_places = scores_NMBU.shape
    reach = max(kind.frames + kind.labels for kind in sizes.kinds)
    beta_NBU = scores_NMBU.new_full((num_diagonals + reach, batch, num_places), IMPOSSIBLE)
    rows_B = torch.arange(batch, device=scores_NMBU.device)
    ends_B = sizes.num_frames_B + sizes.num_labels_B
    is_end_NBU = torch.zeros_like(beta_NBU, dtype=torch.bool)
    is_end_NBU[ends_B, rows_B, sizes.num_labels_B] = True
    beta_NBU.masked_fill_(is_end_NBU, 0.0)
    leading_MBU = scores_NMBU.new_full((num_kinds, batch, num_places), IMPOSSIBLE)
    for n in range(num_diagonals - 1, -1, -1):
        for number, (frames, labels, _) in enumerate(sizes.kinds):
            leading_MBU[number, :, : num_places - labels] = beta_NBU[n + frames + labels, :, labels:]
        sums_BU = torch.logsumexp(leading_MBU + scores_NMBU[n], 0)
        beta_NBU[n] = torch.where(is_end_NBU[n], 0.0, sums_BU)
    return beta_NBU


def _expected(
    scores_NMBU: Tensor, alpha_NBU: Tensor, beta_NBU: Tensor, total_B: Tensor, has_path_B: Tensor, sizes: Sizes
) -> Tensor:
    """Return the expected number of each move over the paths of a row (M, B, T, U + 1)."""
    num_diagonals, num_kinds, batch, num_places = scores_NMBU.shape
    log_probs_NMBU = scores_NMBU + alpha_NBU[:, None] - total_B[:, None]
    for number, (frames, labels, _) in enumerate(sizes.kinds):
        after_NBU = beta_NBU[frames + labels : frames + labels + num_diagonals]
        log_probs_NMBU[:, number, :, : num_places - labels] += after_NBU[:, :, labels:]
        if labels:
            log_probs_NMBU[:, number, :, num_places - 1] = IMPOSSIBLE
    expected_NMBU = torch.where(has_path_B[:, None], log_probs_NMBU.exp(), 0.0)
    num_frames = num_diagonals - num_places
    device = log_probs_NMBU.device
    index_TU = torch.arange(num_frames, device=device)[:, None] + torch.arange(num_places, device=device)
    return expected_NMBU.permute(1, 2, 0, 3).gather(2, index_TU.expand(num_kinds, batch, -1, -1))
