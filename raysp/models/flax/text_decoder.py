"""Text decoders in Flax as models of their own.

Legend: B rows, L tokens, S frames, H hidden, V vocabulary.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from raysp.models.bart import BartForCausalLM
from raysp.models.bert import BertLMHeadModel
from raysp.models.flax.bart import bart
from raysp.models.flax.bert import bert
from raysp.models.flax.decoding import DecoderPass, Noted, token_mask
from raysp.models.flax.gpt2 import gpt2
from raysp.models.flax.layers import Part, attended_keys
from raysp.models.flax.modeling import SWITCHES, FlaxModel, Keys, Switches, rngs_of
from raysp.models.flax.outputs import FlaxCausalLMOutputWithCrossAttentions
from raysp.models.flax.weights import Tree
from raysp.models.gpt2 import GPT2LMHeadModel

DECODERS: dict[str, Callable[..., Array]] = {"bart": bart, "bert": bert, "gpt2": gpt2}


class FlaxTextDecoder(FlaxModel):
    """A text decoder, which attends to the frames of an encoder where they are passed."""

    def build_module(self) -> nn.Module:
        """Return the Linen module."""
        return Part(partial(DECODERS[self.config.model_type], self.config))

    def _compile(self) -> None:
        self._program = jax.jit(self._forward, static_argnames=SWITCHES)

    def __call__(
        self,
        input_ids: Any,  # noqa: ANN401 - an array of either kind
        attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        position_ids: Any = None,  # noqa: ANN401 - an array of either kind
        encoder_hidden_states: Any = None,  # noqa: ANN401 - an array of either kind
        encoder_attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        *,
        params: Mapping[str, Any] | None = None,
        dropout_rng: Any = None,  # noqa: ANN401 - a key
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:  # noqa: ANN401 - the output, or a tuple
        """Return logits of the next tokens.

        Args:
            input_ids: (B, L) tokens.
            attention_mask: (B, L), nonzero where a token is attended to; None: everywhere.
            position_ids: (B, L); None: counted from 0.
            encoder_hidden_states: (B, S, H) frames of an encoder.
            encoder_attention_mask: (B, S), nonzero where a frame is attended to; None: everywhere.
            params: Parameters in place of the model's.
            dropout_rng: Key of dropout, needed with `train`.
            train: Turn dropout on.
            output_attentions: Return attention weights; None: as configured.
            output_hidden_states: Return hidden states; None: as configured.
            return_dict: False returns a plain tuple.
        """
        check_length(input_ids.shape[1], self.config)
        logits_BLV, run = self._program(
            self._params_or_own(params),
            input_ids,
            attention_mask,
            position_ids,
            encoder_hidden_states,
            encoder_attention_mask,
            rngs_of(dropout_rng, train),
            **self._switches(train, output_attentions, output_hidden_states, False),
        )
        output = FlaxCausalLMOutputWithCrossAttentions(logits=logits_BLV, **run._asdict())
        return self._sister.returned(output, return_dict)

    def _forward(
        self,
        params: Tree,
        ids_BL: Array,
        mask_BL: Array | None,
        positions: Array | None,
        frames_BSH: Array | None,
        mask_BS: Array | None,
        rngs: Keys,
        **switches: Unpack[Switches],
    ) -> tuple[Array, Noted]:
        num_tokens = ids_BL.shape[1]
        run = DecoderPass(
            **switches,
            allowed=token_mask(mask_BL, num_tokens, 0, num_tokens),
            frames_BSH=None if frames_BSH is None else frames_BSH.astype(self.dtype),
            frames_allowed=None if mask_BS is None else attended_keys(mask_BS != 0),
        )
        positions = jnp.arange(num_tokens) if positions is None else positions
        logits_BLV: Array = self._apply(self._variables(params), ids_BL, positions, run, rngs=rngs)
        return logits_BLV, Noted.of(run)


class FlaxBartForCausalLM(FlaxTextDecoder):
    """The decoder of BART."""

    torch_class = BartForCausalLM


class FlaxBertForCausalLM(FlaxTextDecoder):
    """BERT as a causal language model."""

    torch_class = BertLMHeadModel


class FlaxGPT2LMHeadModel(FlaxTextDecoder):
    """GPT-2."""

    torch_class = GPT2LMHeadModel


def check_length(num_tokens: int, config: Any) -> None:  # noqa: ANN401 - of any decoder
    """Raise ValueError where there are more tokens than positions."""
    # An index beyond a table reads NaN in JAX.
    if num_tokens > config.max_position_embeddings:
        raise ValueError(
            f"found {num_tokens} tokens, expected at most max_position_embeddings {config.max_position_embeddings}: "
            "for generate, pass max_new_tokens"
        )
