"""Changes of the scores of the next token, as options of generation set them.

The arithmetic of a change takes its option, earlier tokens (R, T) and scores (R, V), and returns scores. It may modify
its inputs.

Legend: R rows (beams included), T earlier tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.crossing import constant
from raysp.models.decoder.generation_config import Settings

NEVER = float("-inf")


@dataclass(frozen=True)
class Change:
    """A change of scores, for texts of at least `start` and fewer than `stop` tokens."""

    compute: Callable[[Tensor, Tensor], Tensor]
    needs_log_probs: bool = False
    """Whether the change expects log-probabilities, which beam search scores by; a ban of tokens does not."""
    start: int = 0
    stop: int | None = None

    def applies(self, length: int) -> bool:
        """Return whether it has an effect after this number of tokens."""
        return self.start <= length and (self.stop is None or length < self.stop)


def penalise_repetition(penalty: float, num_padding_B: Tensor | None, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Make earlier tokens less likely (Keskar et al. 2019, section 4.1), except padding to the left of prompts."""
    vocab_size = scores_RV.shape[1]
    if num_padding_B is not None:
        places_T = torch.arange(tokens_RT.shape[1], device=tokens_RT.device)
        padding_R = num_padding_B.repeat_interleave(len(tokens_RT) // len(num_padding_B))
        # Padding counts as a token beyond the vocabulary, whose column is dropped.
        tokens_RT = tokens_RT.masked_fill(places_T < padding_R[:, None], vocab_size)
        scores_RV = F.pad(scores_RV, (0, 1))
    own_RT = scores_RV.gather(1, tokens_RT)
    changed_RT = torch.where(own_RT < 0, own_RT * penalty, own_RT / penalty)
    return scores_RV.scatter(1, tokens_RT, changed_RT)[:, :vocab_size]


def ban_repeated_ngrams(size: int, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Ban tokens that would repeat a sequence of `size` tokens."""
    windows_RWN = tokens_RT.unfold(1, size, 1)
    last_RN = tokens_RT[:, tokens_RT.shape[1] + 1 - size :]
    matches_RW = (windows_RWN[..., :-1] == last_RN[:, None]).all(-1)
    rows, places = matches_RW.nonzero(as_tuple=True)
    scores_RV[rows, windows_RWN[rows, places, -1]] = NEVER
    return scores_RV


def ban_words(words: Sequence[Sequence[int]], tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Ban the last token of each word whose other tokens end the text."""
    for *before, last in words:
        if not before:
            scores_RV[:, last] = NEVER
        elif len(before) <= tokens_RT.shape[1]:
            prefix = constant(tuple(before), tokens_RT.device)
            scores_RV[(tokens_RT[:, -len(before) :] == prefix).all(-1), last] = NEVER
    return scores_RV


def suppress(ids: Tensor, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Ban these tokens."""
    return scores_RV.index_fill_(1, ids, NEVER)


def force(ids: Tensor, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Ban all tokens but these."""
    return scores_RV.fill_(NEVER).index_fill_(1, ids, 0.0)


def divide(temperature: float, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Sharpen the distribution by a temperature below 1, flatten it above."""
    return scores_RV.div_(temperature)


def keep_best(count: int, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Keep the best tokens (Fan et al. 2018): ban those that score below the last of them."""
    worst_R1 = scores_RV.topk(min(count, scores_RV.shape[1])).values[:, -1:]
    return scores_RV.masked_fill_(scores_RV < worst_R1, NEVER)


def keep_share(share: float, at_least: int, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Keep the best tokens up to this total probability (Holtzman et al. 2020), and at least `at_least`."""
    ordered_RV, places_RV = scores_RV.sort(descending=False)
    # From the least likely up, as in transformers: from the top down the sums round to another last token.
    banned_RV = ordered_RV.softmax(-1).cumsum(-1) <= 1 - share
    banned_RV[:, -at_least:] = False
    return scores_RV.masked_fill_(banned_RV.scatter(1, places_RV, banned_RV), NEVER)


def keep_likely(share: float, at_least: int, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
    """Keep tokens of at least this share of the best one's probability (Nguyen et al. 2024), and `at_least`."""
    probs_RV = scores_RV.softmax(-1)
    banned_RV = probs_RV < share * probs_RV.amax(-1, keepdim=True)
    best_RN = scores_RV.topk(min(at_least, scores_RV.shape[1])).indices
    return scores_RV.masked_fill_(banned_RV.scatter(1, best_RN, False), NEVER)


def changes_of(
    settings: Settings,
    prompt_length: int,
    device: torch.device,
    padding_B: Tensor | None = None,
) -> Sequence[Change]:
    """Return the changes set by options, in the order of transformers."""

    def ids(values: Sequence[int]) -> Tensor:
        return constant(tuple(values), device)

    def suppressing(tokens: Sequence[int], start: int = 0, stop: int | None = None) -> Change:
        return Change(partial(suppress, ids(tokens)), start=start, stop=stop)

    makers: dict[str, Callable[..., Change]] = {
        "repetition_penalty": lambda penalty: Change(partial(penalise_repetition, penalty, padding_B), True),
        "no_repeated_ngrams": lambda size: Change(partial(ban_repeated_ngrams, size), start=size),
        "no_bad_words": lambda words: Change(partial(ban_words, words)),
        "suppress": suppressing,
        "force": lambda tokens, length: Change(partial(force, ids(tokens)), True, length, length + 1),
        "temperature": lambda temperature: Change(partial(divide, temperature), True),
        "top_k": lambda count: Change(partial(keep_best, count)),
        "top_p": lambda share, at_least: Change(partial(keep_share, share, at_least)),
        "min_p": lambda share, at_least: Change(partial(keep_likely, share, at_least)),
    }
    return [makers[name](*arguments) for name, arguments in settings.changes(prompt_length)]
