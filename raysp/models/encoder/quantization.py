"""Contrastive pre-training: product quantisation of features, negatives and the two losses (Baevski et al. 2020, 3).

Legend: B batch, T frames, C channels of the front end, G groups of codes, V codes of a group, D of a code, F frames of
the whole batch, M masked frames of one row, K negatives, H hidden.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.crossing import sent
from raysp.errors import CheckpointError


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
        sum over groups, at most `num_groups * num_codes`; in training that of the soft distribution.
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
