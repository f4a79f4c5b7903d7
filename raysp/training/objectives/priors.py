"""CTC with label priors: tokens last as long as their sounds.

Plain CTC learns to write each token in one frame, anywhere near its sound, and the blank elsewhere. Dividing the
probability of each token by a power of its prior, the share of frames that it has, makes paths with fewer blanks more
probable (Huang et al. 2024, "Less Peaky and More Accurate CTC Forced Alignment by Label Priors", arXiv:2406.02560).
"""

import torch
from torch import Tensor

from raysp.crossing import sent
from raysp.models.encoder.heads import ctc_loss

UNIFORM_SHARE = 0.01
"""Share of the uniform distribution in the priors, so that the prior of a token that no frame has is not 0."""


def prior_ctc_loss(
    logits_BTV: Tensor, num_frames_B: Tensor, labels_BL: Tensor, *, blank: int | None, power: float
) -> Tensor:
    """Return the CTC loss over probabilities divided by a power of the label priors, (B,), in float32.

    The priors are the mean probabilities over the valid frames of the batch, and have no gradient. The loss may be
    negative. Rows with more labels than their frames allow have the loss 0.

    Args:
        logits_BTV: Before softmax.
        num_frames_B: Valid frames of each row, on the CPU.
        labels_BL: Tokens, on the CPU; -100 and the blank are ignored at any place.
        blank: Blank token; None is 0.
        power: Power of the priors.
    """
    device, (_, num_frames, vocab_size) = logits_BTV.device, logits_BTV.shape
    log_probs_BTV = logits_BTV.log_softmax(-1, dtype=torch.float32)
    valid_BT = torch.arange(num_frames) < num_frames_B[:, None]
    rows_N, frames_N = (sent(one, device) for one in valid_BT.nonzero(as_tuple=True))
    priors_V = log_probs_BTV.detach()[rows_N, frames_N].exp().mean(0)
    priors_V = (1 - UNIFORM_SHARE) * priors_V + UNIFORM_SHARE / vocab_size
    divided_BTV = log_probs_BTV - power * priors_V.log()
    # ctc_loss normalises each frame; what this takes off is added again.
    loss_B = ctc_loss(divided_BTV, num_frames_B, labels_BL, blank=blank, reduction="none", zero_infinity=True)
    taken_off_B = (divided_BTV.logsumexp(-1) * sent(valid_BT, device)).sum(-1)
    return torch.where(loss_B == 0, loss_B, loss_B - taken_off_B)
