"""Self- and cross-attention shared by the text decoders.

Legend: B rows of the encoder, R rows of the decoder (B, or B times the beams), L new tokens, P cached tokens, T both,
S frames or other keys, H hidden, A heads, D head.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.base.configuration import Config
from raysp.models.base.folded import JoinedProduct
from raysp.models.base.kernels import dropped, is_known_to_be_full
from raysp.models.decoder.cache import KeysAndValues, KeyValueCache

FEW_QUERIES = 8
"""Up to this many, two products and a softmax beat the fused kernel on a CPU: 1.5 times at 1, 1.2 times at 4."""


@dataclass(kw_only=True)
class Pass:
    """Inputs shared by all layers in one forward pass, and the states and weights collected for the output."""

    tokens: Tensor | None = None
    """(R, 1, L, P + L), true where a new token attends to a token; None: causal attention to all."""
    encoder_BSH: Tensor | None = None
    frames: Tensor | None = None
    """(B, 1, 1, S), true where a frame is attended to; None: everywhere."""
    cache: KeyValueCache | None = None
    with_weights: bool = False
    with_states: bool = False
    states: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)
    cross_attentions: list[Tensor] = field(default_factory=list)

    @property
    def has_encoder(self) -> bool:
        """Whether there are frames to attend to."""
        return self.encoder_BSH is not None or (self.cache is not None and self.cache.knows_encoder)


def split_heads(x_RLH: Tensor, num_heads: int) -> Tensor:
    """Return (R, A, L, D)."""
    rows, length, width = x_RLH.shape
    return x_RLH.reshape(rows, length, num_heads, width // num_heads).transpose(1, 2)


def split_joined(x_RLN: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Return q_RALD, and keys and values (2, R, A, L, D), which are end to end on the last axis."""
    rows, length, width = x_RLN.shape
    heads_3RALD = x_RLN.reshape(rows, length, 3, num_heads, width // (3 * num_heads)).permute(2, 0, 3, 1, 4)
    return heads_3RALD[0], heads_3RALD[1:]


def attend(
    q_RALD: Tensor,
    k_RASD: Tensor,
    v_RASD: Tensor,
    allowed: Tensor | None,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    with_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the attention output (R, L, H), and the weights if `with_weights`.

    `causal` without `allowed` expects queries that start at the first key.
    """
    is_faster = q_RALD.is_cpu and q_RALD.dtype == torch.float32 and (q_RALD.shape[2] <= FEW_QUERIES or dropout > 0.0)
    if _is_slow(q_RALD, with_weights):
        q, k, v = (x.float() for x in (q_RALD, k_RASD, v_RASD))
        mixed_RLH, _ = attend(q, k, v, allowed, causal=causal, scale=scale)
        return mixed_RLH.to(q_RALD.dtype), None
    if not (with_weights or is_faster):
        mixed_RALD = F.scaled_dot_product_attention(
            q_RALD, k_RASD, v_RASD, allowed, dropout, causal and allowed is None, scale=scale
        )
        return mixed_RALD.transpose(1, 2).flatten(2), None
    weights_NLS = _weights(q_RALD, k_RASD, allowed, causal, scale)  # N: heads of all rows
    weights_NLS = dropped(weights_NLS, dropout)
    mixed_NLD = torch.bmm(weights_NLS, v_RASD.flatten(0, 1))
    shape = q_RALD.shape[:3]
    mixed_RLH = mixed_NLD.view(*shape, -1).transpose(1, 2).reshape(shape[0], shape[2], -1)
    return mixed_RLH, weights_NLS.view(*shape, -1) if with_weights else None


def _is_slow(q_RALD: Tensor, with_weights: bool) -> bool:
    """Return whether few queries are in half precision on a CPU, whose fused kernel takes four times as long."""
    is_half = q_RALD.is_cpu and q_RALD.dtype in (torch.bfloat16, torch.float16)
    is_plain = not (with_weights or torch.is_grad_enabled())
    return is_half and is_plain and q_RALD.shape[2] <= FEW_QUERIES


def _weights(q_RALD: Tensor, k_RASD: Tensor, allowed: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """Return the attention weights, (R * A, L, S)."""
    *shape, width = q_RALD.shape
    scaled_RALD = q_RALD * (width**-0.5 if scale is None else scale)
    scores_NLS = torch.bmm(scaled_RALD.flatten(0, 1), k_RASD.flatten(0, 1).mT)
    if causal and allowed is None and shape[-1] > 1:
        allowed = torch.ones(scores_NLS.shape[1:], dtype=torch.bool, device=scores_NLS.device).tril()
    if allowed is not None:
        # The least number and not -inf: a row without any key would be NaN.
        scores_NLS = scores_NLS.view(*shape, -1).masked_fill(~allowed, torch.finfo(scores_NLS.dtype).min).flatten(0, 1)
    return scores_NLS.softmax(-1)


def attend_to_tokens(
    q_RALD: Tensor, new: KeysAndValues, run: Pass, layer: int, dropout: float, scale: float | None = None
) -> Tensor:
    """Return the attention of new tokens to cached tokens and to themselves, (R, L, H)."""
    k_RALD, v_RALD = new
    if run.cache is not None:
        k_RALD, v_RALD = run.cache.layers[layer].append(new)
    causal = q_RALD.shape[2] > 1
    mixed_RLH, weights = attend(
        q_RALD, k_RALD, v_RALD, run.tokens, causal=causal, scale=scale, dropout=dropout, with_weights=run.with_weights
    )
    if weights is not None:
        run.attentions.append(weights)
    return mixed_RLH


def attend_to_encoder(
    q_RALD: Tensor,
    project: Callable[[Tensor], tuple[Tensor, Tensor]],
    run: Pass,
    layer: int,
    dropout: float,
    scale: float | None = None,
) -> Tensor:
    """Return the attention of tokens to the frames of the encoder, (R, L, H).

    `project` computes keys and values from frames. It is called once per cache.
    """
    cached = None if run.cache is None else run.cache.layers[layer]
    if cached is not None and cached.cross_keys is not None and cached.cross_values is not None:
        k_BASD, v_BASD = cached.cross_keys, cached.cross_values
    else:
        assert run.encoder_BSH is not None
        k_BASD, v_BASD = project(run.encoder_BSH)
        if cached is not None:
            k_BASD, v_BASD = cached.keep_frames(k_BASD, v_BASD)
    rows, heads, length, width = q_RALD.shape
    beams = rows // k_BASD.shape[0]
    if beams > 1:  # the beams of a recording are extra queries of its frames: no copies
        folded = (-1, beams, heads, length, width)
        q_RALD = q_RALD.reshape(folded).transpose(1, 2).reshape(-1, heads, beams * length, width)
    mixed, weights = attend(
        q_RALD, k_BASD, v_BASD, run.frames, scale=scale, dropout=dropout, with_weights=run.with_weights
    )
    if weights is not None:
        unfolded = (-1, heads, beams, length, weights.shape[-1])
        run.cross_attentions.append(weights.reshape(unfolded).transpose(1, 2).flatten(0, 1))
    return mixed.reshape(rows, length, heads * width)


class SplitAttention(nn.Module):
    """Attention with a layer for queries, one for keys and one for values."""

    layer_names: ClassVar[tuple[str, str, str]]
    """Names of the layers for queries, keys and values."""
    dropout_name: ClassVar[str]
    """Name of the configuration's field with the dropout of attention weights."""

    def __init__(self, config: Config, num_heads: int, *, is_cross: bool) -> None:
        super().__init__()
        self.config: Any = config
        self.num_heads, self.is_cross = num_heads, is_cross
        self._joined = JoinedProduct()

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return a mix_RLH of tokens up to and including each token, or with `is_cross` of the encoder's frames."""
        dropout = getattr(self.config, self.dropout_name) if self.training else 0.0
        if self.is_cross:
            return attend_to_encoder(self._queries(hidden_RLH), self._keys_and_values, run, index, dropout)
        layers = [self.get_submodule(name) for name in self.layer_names]
        joined_RLN = self._joined(hidden_RLH, cast(list[nn.Linear], layers))
        new: KeysAndValues
        if joined_RLN is None:
            queries, new = self._queries(hidden_RLH), self._keys_and_values(hidden_RLH)
        else:
            queries, new = split_joined(joined_RLN, self.num_heads)
        return attend_to_tokens(queries, new, run, index, dropout)

    def _queries(self, hidden_RLH: Tensor) -> Tensor:
        return split_heads(getattr(self, self.layer_names[0])(hidden_RLH), self.num_heads)

    def _keys_and_values(self, source_BSH: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = (split_heads(getattr(self, name)(source_BSH), self.num_heads) for name in self.layer_names[1:])
        return keys, values


def token_mask(mask_RT: Tensor | None, num_new: int, num_past: int, device: torch.device) -> Tensor | None:
    """Return (R, 1, L, P + L), true where a new token attends to a token; None for plain causal attention."""
    if mask_RT is not None and not isinstance(mask_RT, Tensor):
        raise TypeError(
            f"attention_mask is of {type(mask_RT).__name__}, expected a tensor: pass a cache as past_key_values=..."
        )
    if mask_RT is not None and mask_RT.shape[-1] != num_past + num_new:
        raise ValueError(f"attention_mask has {mask_RT.shape[-1]} tokens, expected {num_past} cached and {num_new} new")
    if mask_RT is not None and is_known_to_be_full(mask_RT):
        mask_RT = None
    if mask_RT is None and (num_new == 1 or num_past == 0):
        return None
    places = torch.arange(num_past + num_new, device=device)
    itself_LT = places == places[num_past:, None]
    before_LT = places <= places[num_past:, None]
    if mask_RT is None:
        return before_LT[None, None]
    allowed = before_LT & mask_RT.to(device, torch.bool)[:, None, None]
    return allowed | (itself_LT & ~allowed.any(-1, keepdim=True))  # attention to no token would be NaN


def frame_mask(mask_BS: Tensor | None) -> Tensor | None:
    """Return (B, 1, 1, S), true where a frame is attended to; None if all are."""
    if mask_BS is None:
        return None
    valid_BS = mask_BS.bool()
    if is_known_to_be_full(valid_BS):
        return None
    # A row without frames attends to its first one, since attention to none is NaN.
    first_S = torch.arange(valid_BS.shape[1], device=valid_BS.device) == 0
    return (valid_BS | (first_S & ~valid_BS.any(-1, keepdim=True)))[:, None, None]
