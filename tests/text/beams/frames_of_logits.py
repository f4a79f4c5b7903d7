"""The best tokens of frames of logits, as a search on the host gets them."""

from torch import Tensor

from raysp.crossing import fetch
from raysp.text.beams.search import TopFrames
from raysp.text.beams.top_frames import KEPT_TOKENS, top_tokens


def top_frames(logits: Tensor, *, blank: int, kept: int = KEPT_TOKENS) -> TopFrames:
    """Return the best tokens of frames on the host; see `top_tokens`."""
    return TopFrames(*fetch(*top_tokens(logits, blank=blank, kept=kept)))
