"""Parts of heads shared by architectures: layer sums, pooling, x-vectors, losses, and parts of pre-training.

Legend: B batch, T frames, H hidden, C channels of a TDNN layer or of the front end, K layers or negatives, V vocabulary
or codes of a group, L labels of a row, N classes, E speaker embedding, G groups of codes, D of a code, F frames of the
whole batch, M masked frames of one row.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.crossing import sent
from raysp.devices import is_accelerator
from raysp.errors import CheckpointError
from raysp.models.base.placing import without_cudnn
from raysp.models.base.row_layout import Count

IGNORED_LABEL = -100  # label of positions excluded from losses
AM_SCALE, AM_MARGIN = 30.0, 0.4  # Wang et al. 2018, "Additive margin softmax", with the margin of speaker verification
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


class States(Protocol):
    """Receiver of an encoder's hidden states in order: a list keeps them, `LayerSum` does not."""

    def append(self, hidden_BTH: Tensor, /) -> None:
        """Receive the input of the first layer, then each layer's output."""


class LayerSum:
    """Sum of hidden states weighted by the softmax of learned weights; holds one state at a time."""

    def __init__(self, layer_weights_K: Tensor) -> None:
        self._shares_K = layer_weights_K.softmax(-1)
        self._count = 0
        self._total_BTH: Tensor | None = None

    def append(self, hidden_BTH: Tensor, /) -> None:
        """Add the next state with its weight."""
        if self._count == len(self._shares_K):
            raise RuntimeError(f"state {self._count + 1} given, expected {len(self._shares_K)}: one per layer weight")
        share = self._shares_K[self._count].to(hidden_BTH.dtype)
        self._count += 1
        if self._total_BTH is None:
            self._total_BTH = hidden_BTH * share
        elif torch.is_grad_enabled():
            self._total_BTH = self._total_BTH + hidden_BTH * share
        else:
            # In place: the first total is a new tensor, never a layer's output.
            self._total_BTH.addcmul_(hidden_BTH, share)

    @property
    def total(self) -> Tensor:
        """The sum (B, T, H) over all layers."""
        if self._total_BTH is None or self._count != len(self._shares_K):
            raise RuntimeError(f"{self._count} states given, expected {len(self._shares_K)}: one per layer weight")
        return self._total_BTH


def layer_weights_of(model: nn.Module) -> nn.Parameter | None:
    """Return the learned weights of a head that reads a sum of hidden states; None: it reads the last state."""
    return getattr(model, "layer_weights", None)


def masked_mean(frames_BTH: Tensor, valid_BT: Tensor | None) -> Tensor:
    """Return the mean (B, H) over valid frames, zero for a row without any; None: all are valid."""
    if valid_BT is None:
        return frames_BTH.mean(1)
    # Filled, not multiplied by the mask: padding may hold anything, and NaN times 0 is NaN.
    sum_BH = frames_BTH.masked_fill(~valid_BT[:, :, None], 0.0).sum(1)
    return sum_BH / valid_BT.sum(1).clamp(min=1)[:, None]


class TDNNLayer(nn.Module):
    """A dilated convolution over frames with ReLU (Snyder et al. 2018); its weight has the shape of a dense layer's."""

    def __init__(self, in_channels: int, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.taps, self.dilation = kernel, dilation
        self.kernel = nn.Linear(in_channels * kernel, channels)

    def forward(self, frames_BTC: Tensor) -> Tensor:
        """Return the frames with full context, `(kernel - 1) * dilation` fewer."""
        if self.taps == 1:
            return F.relu(self.kernel(frames_BTC))
        # A row of the weight is the taps end to end, as the original unfolds frames; a convolution wants taps last.
        weight = self.kernel.weight.view(self.kernel.out_features, self.taps, -1).transpose(1, 2)
        frames_BCT = F.conv1d(frames_BTC.transpose(1, 2), weight, self.kernel.bias, dilation=self.dilation)
        return F.relu(frames_BCT).transpose(1, 2)


def tdnn_layers(dims: Sequence[int], kernels: Sequence[int], dilations: Sequence[int]) -> nn.ModuleList:
    """Return the TDNN layers of an x-vector head; the first has equal input and output width."""
    widths = zip([dims[0], *dims], dims, kernels, dilations, strict=False)
    return nn.ModuleList(TDNNLayer(*width) for width in widths)


def tdnn_output_frames(num_frames: Count, kernels: Sequence[int], dilations: Sequence[int]) -> Count:
    """Return the number of frames after TDNN layers; below 1 for too few."""
    for kernel, dilation in zip(kernels, dilations, strict=True):
        num_frames = num_frames - (kernel - 1) * dilation
    return num_frames


def pooled_statistics(frames_BTC: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
    """Return mean and standard deviation (divided by n - 1) over each row's first frames, side by side (B, 2C).

    A negative number excludes that many frames at the end, as in a slice. The deviation of a row of fewer than two
    frames is NaN, as in torch.
    """
    num_frames = frames_BTC.shape[1]
    if num_frames_B is None:
        num_frames_B = torch.full(frames_BTC.shape[:1], num_frames, device=frames_BTC.device)
    count_B = torch.where(num_frames_B < 0, num_frames_B + num_frames, num_frames_B).clamp(0, num_frames)
    out_BT1 = (torch.arange(num_frames, device=frames_BTC.device) >= count_B[:, None])[:, :, None]
    # In two passes: the sum of squares less the squared mean cancels in float32.
    mean_BC = frames_BTC.masked_fill(out_BT1, 0.0).sum(1) / count_B[:, None]
    squares_BTC = (frames_BTC - mean_BC[:, None]).square().masked_fill(out_BT1, 0.0)
    variance_BC = squares_BTC.sum(1) / (count_B[:, None] - 1)
    return torch.cat([mean_BC, _deviation(variance_BC)], dim=-1)


def _deviation(variance_BC: Tensor) -> Tensor:
    """Return the square root with gradient 0 at 0, as `torch.std`; an infinite gradient times 0 would be NaN."""
    is_constant_BC = variance_BC == 0
    return variance_BC.masked_fill(is_constant_BC, 1.0).sqrt().masked_fill(is_constant_BC, 0.0)


class AMSoftmaxLoss(nn.Module):
    """Cross entropy over cosines, with the right class's lowered by a margin (Wang et al. 2018, section 3)."""

    def __init__(self, embedding_dim: int, num_labels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(embedding_dim, num_labels))

    def forward(self, embeddings_BE: Tensor, labels_B: Tensor) -> Tensor:
        """Return the mean loss of a batch; `labels_B` are class numbers."""
        return am_softmax_losses(embeddings_BE, self.weight, labels_B.flatten(), AM_MARGIN).mean()


def am_softmax_losses(embeddings_BE: Tensor, weight_EN: Tensor, labels_B: Tensor, margin: float) -> Tensor:
    """Return the loss of each row (B,) over the cosines of embeddings and classes, as `AMSoftmaxLoss` does."""
    num_labels = weight_EN.shape[1]
    check_classes(labels_B, num_labels)
    labels_B = sent(labels_B, embeddings_BE.device)
    cosines_BN = F.normalize(embeddings_BE, dim=1) @ F.normalize(weight_EN, dim=0)
    margin_BN = F.one_hot(labels_B, num_labels) * margin
    return F.cross_entropy(AM_SCALE * (cosines_BN - margin_BN), labels_B, reduction="none")


def check_labels(labels_BL: Tensor, vocab_size: int) -> None:
    """Raise ValueError for a label that is neither a token nor -100; called before the costly forward pass."""
    highest = int(labels_BL.max()) if labels_BL.numel() else 0
    if highest >= vocab_size:
        raise ValueError(f"label {highest} found, expected below vocab_size {vocab_size}")
    if bool(((labels_BL < 0) & (labels_BL != IGNORED_LABEL)).any()):
        raise ValueError(f"label {int(labels_BL.min())} found, expected tokens or {IGNORED_LABEL}")


def ctc_loss(
    logits_BTV: Tensor,
    num_frames_B: Tensor,
    labels_BL: Tensor,
    *,
    blank: int | None,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Return the CTC loss (Graves et al. 2006), computed in float32.

    Args:
        logits_BTV: Before softmax.
        num_frames_B: Valid frames of each row.
        labels_BL: Tokens; -100 and the blank are ignored at any place. If these and `num_frames_B` are on the CPU, the
            host does not wait for the device of the logits.
        blank: Blank token, which is the padding token; None is 0.
        reduction: "mean" first divides each row by its number of labels, "sum" does not; "none" returns (B,).
        zero_infinity: Count rows with more labels than their frames allow as 0 instead of infinity.
    """
    blank = blank or 0
    kept_BL = (labels_BL != IGNORED_LABEL) & (labels_BL != blank)
    # In float32, as in the original: half precision cannot hold sums over thousands of frames.
    log_probs_TBV = logits_BTV.log_softmax(-1, dtype=torch.float32).transpose(0, 1)
    labels_N, num_labels_B = labels_BL[kept_BL], kept_BL.sum(-1)
    if is_accelerator(logits_BTV.device) and torch.are_deterministic_algorithms_enabled():
        # The kernel of GPUs adds gradients in any order.
        log_probs_TBV, num_frames_B, labels_N, num_labels_B = (
            tensor.cpu() for tensor in (log_probs_TBV, num_frames_B, labels_N, num_labels_B)
        )
    device = log_probs_TBV.device
    lengths: list[Any] = [num_frames_B, num_labels_B]
    if is_accelerator(device) and not any(is_accelerator(tensor.device) for tensor in lengths):
        lengths = [tensor.tolist() for tensor in lengths]
    # cuDNN's CTC serves only some batches, by the lengths in them, and sums in another order.
    with without_cudnn():
        loss = F.ctc_loss(
            log_probs_TBV,
            sent(labels_N, device),
            lengths[0],
            lengths[1],
            blank=blank,
            reduction=reduction,
            zero_infinity=zero_infinity,
        )
    return loss.to(logits_BTV.device)


def classification_loss(logits_BN: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
    """Return the classification loss of whole rows.

    Args:
        logits_BN: Before softmax.
        labels: Numbers (B,) for "regression", class numbers (B,) for "single_label_classification", zeros and ones
            (B, N) for "multi_label_classification".
        problem_type: None infers it: regression for one output, multi-label for floating-point labels.
    """
    labels = labels.to(logits_BN.device)
    num_labels = logits_BN.shape[-1]
    match problem_type or _problem_type(num_labels, labels):
        case "regression":
            return F.mse_loss(logits_BN.flatten(), labels.to(logits_BN.dtype).flatten())
        case "multi_label_classification":
            if labels.shape != logits_BN.shape:
                raise ValueError(f"labels have shape {tuple(labels.shape)!r}, expected {tuple(logits_BN.shape)!r}")
            return F.binary_cross_entropy_with_logits(logits_BN, labels.to(logits_BN.dtype))
        case "single_label_classification":
            check_classes(labels, num_labels)
            return F.cross_entropy(logits_BN.view(-1, num_labels), labels.flatten())
        case unknown:
            raise ValueError(f"problem_type is {unknown!r}, expected one of {', '.join(PROBLEM_TYPES)}")


def _problem_type(num_labels: int, labels: Tensor) -> str:
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def frame_classification_loss(logits_BTN: Tensor, labels_BTN: Tensor, valid_BT: Tensor | None = None) -> Tensor:
    """Return the cross entropy over frames with one-hot labels, excluding frames that are not valid."""
    if labels_BTN.shape != logits_BTN.shape:
        raise ValueError(f"labels have shape {tuple(labels_BTN.shape)!r}, expected one-hot {tuple(logits_BTN.shape)!r}")
    classes_BT = labels_BTN.to(logits_BTN.device).argmax(-1)
    if valid_BT is not None:
        classes_BT = classes_BT.masked_fill(~valid_BT, IGNORED_LABEL)
    return F.cross_entropy(logits_BTN.flatten(0, 1), classes_BT.flatten(), ignore_index=IGNORED_LABEL)


def check_classes(labels: Tensor, num_labels: int) -> None:
    """Raise ValueError for a class number beyond the head's classes."""
    wrong = labels[((labels < 0) & (labels != IGNORED_LABEL)) | (labels >= num_labels)]
    if wrong.numel():
        raise ValueError(f"label {wrong.flatten()[0].item()} found, expected below num_labels {num_labels}")


# Contrastive pre-training: product quantisation of features, negatives and the two losses (Baevski et al. 2020, 3).
class GumbelVectorQuantizer(nn.Module):
    """Quantiser of frames to one code of each group: the likeliest, or in training one sampled with Gumbel noise."""

    def __init__(self, in_channels: int, *, num_groups: int, num_codes: int, dim: int) -> None:
        super().__init__()
        if num_groups < 1 or dim % num_groups:
            raise CheckpointError(f"codevector_dim is {dim}, expected a multiple of num_codevector_groups {num_groups}")
        self.num_groups, self.num_codes = num_groups, num_codes
        self.codevectors = nn.Parameter(torch.rand(1, num_groups * num_codes, dim // num_groups))
        self.weight_proj = nn.Linear(in_channels, num_groups * num_codes)
        self.temperature: float = 2.0

    def forward(self, features_BTC: Tensor, counted_BT: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return quantised frames (B, T, D of all groups), the perplexity of the codes, and code numbers (B, T, G).

        `counted_BT`, best on the CPU, selects the frames for the perplexity; None: all of them. The perplexity is the
        sum over groups, at most `num_groups * num_codes`; in training the perplexity of the soft distribution.
        """
        scores_BTGV = self.weight_proj(features_BTC).unflatten(-1, (self.num_groups, self.num_codes))
        codes_GVD = self.codevectors.view(self.num_groups, self.num_codes, -1)
        counted_FGV = scores_BTGV.flatten(0, 1) if counted_BT is None else _chosen(scores_BTGV, counted_BT)
        if not self.training:
            ids_BTG = scores_BTGV.argmax(-1)
            chosen_BTGD = codes_GVD[torch.arange(self.num_groups, device=ids_BTG.device), ids_BTG]
            used_FGV = F.one_hot(counted_FGV.argmax(-1), self.num_codes).to(scores_BTGV.dtype)
            return chosen_BTGD.flatten(2), perplexity(used_FGV), ids_BTG
        # Of all frames, padding included, and in float32: the same seed draws the codes of the original.
        sampled = F.gumbel_softmax(scores_BTGV.float().flatten(0, 2), tau=self.temperature, hard=True)
        sampled_BTGV = sampled.view_as(scores_BTGV).type_as(scores_BTGV)
        chosen_BTGD = torch.einsum("btgv,gvd->btgd", sampled_BTGV, codes_GVD)
        return chosen_BTGD.flatten(2), perplexity(counted_FGV.float().softmax(-1)), sampled_BTGV.argmax(-1)


def _chosen(frames_BTGV: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the frames (F, G, V) at which a mask is true."""
    rows_F, places_F = (sent(index, frames_BTGV.device) for index in mask_BT.cpu().nonzero(as_tuple=True))
    return frames_BTGV[rows_F, places_F]


def perplexity(shares_FGV: Tensor) -> Tensor:
    """Return the effective number of codes in use, summed over groups."""
    mean_GV = shares_FGV.mean(0)
    # xlogy is 0 for a code that is never used; 0 times log 0 would be NaN.
    return torch.exp(-torch.xlogy(mean_GV, mean_GV).sum(-1)).sum()


def sample_negative_indices(
    features_shape: tuple[int, int], num_negatives: int, mask_time_indices: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int32]:
    """Sample for each masked frame other masked frames of its row, uniformly; (B, T, K) indices into the B * T frames.

    numpy's global generator is used in the order of the original. Rows with fewer than two masked frames have no
    negatives: their indices refer to the row's first frame, and `contrastive_loss` excludes them.
    """
    batch, num_frames = features_shape
    masked_BT = np.ones(features_shape, np.bool_) if mask_time_indices is None else mask_time_indices.astype(np.bool_)
    negatives_BTK = np.zeros((batch, num_frames, num_negatives), np.int32)
    for row in range(batch):
        (masked_M,) = np.nonzero(masked_BT[row])
        if len(masked_M) > 1:
            sampled_MK = np.random.randint(0, len(masked_M) - 1, size=(len(masked_M), num_negatives))
            sampled_MK += sampled_MK >= np.arange(len(masked_M))[:, None]  # skips the frame itself
            negatives_BTK[row, masked_M] = masked_M[sampled_MK]
        negatives_BTK[row] += row * num_frames
    return negatives_BTK


def contrastive_losses(
    predicted_BTH: Tensor,
    quantized_BTH: Tensor,
    codes_BTG: Tensor,
    masked_BT: Tensor,
    negatives_BTK: Tensor,
    temperature: float,
) -> Tensor:
    """Return the sum (B,) over the masked frames of each row: cross entropy of the right quantised frame and negatives.

    Only products of masked frames of one row are computed, never (K, B, T, H), and in float32. Negatives with the same
    codes as the right frame are excluded. `masked_BT` on the CPU is not waited for.
    """
    num_frames = masked_BT.shape[1]
    losses = []
    for row, masked_T in enumerate(masked_BT.cpu()):
        at_M = sent(masked_T.nonzero()[:, 0], predicted_BTH.device)
        if len(at_M) < 2:
            losses.append(quantized_BTH[row].float().sum() * 0.0)  # part of the graph even without masked frames
            continue
        predicted_MH = F.normalize(predicted_BTH[row, at_M].float(), dim=-1)
        quantized_TH = F.normalize(quantized_BTH[row].float(), dim=-1)
        # Under autocast the product would be in half precision, and the temperature would multiply its error by ten.
        with torch.autocast(predicted_MH.device.type, enabled=False):
            cosines_MT = predicted_MH @ quantized_TH.T
        negatives_MK = negatives_BTK[row, at_M].long() - row * num_frames
        candidates_MK = torch.cat([at_M[:, None], negatives_MK], 1)
        logits_MK = cosines_MT.gather(1, candidates_MK) / temperature
        same_MK = (codes_BTG[row][negatives_MK] == codes_BTG[row, at_M][:, None]).all(-1)
        logits_MK = torch.cat([logits_MK[:, :1], logits_MK[:, 1:].masked_fill(same_MK, -torch.inf)], 1)
        losses.append(F.cross_entropy(logits_MK, torch.zeros_like(at_M), reduction="sum"))
    return torch.stack(losses)


def diversity_loss(code_perplexity: Tensor, num_codes: int) -> Tensor:
    """Return the share of unused codes, which counts for each masked frame."""
    return (num_codes - code_perplexity) / num_codes
