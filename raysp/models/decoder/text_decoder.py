"""The base of text decoders: configuration, forward pass, tied weights.

Each architecture is one file: bert.py, gpt2.py, bart.py, mbart.py. `generate` is in generation.py.

Legend: R rows, L new tokens, P cached tokens, S frames of the encoder, H hidden, A heads, D head, V vocabulary.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.modeling import resolved
from raysp.models.base.outputs import CausalLMOutputWithCrossAttentions, GenerateOutput
from raysp.models.base.weights import Value
from raysp.models.decoder.attention import Pass, frame_mask, token_mask
from raysp.models.decoder.cache import KeyValueCache
from raysp.models.decoder.generation import GeneratingModel, generate, generators_of
from raysp.models.decoder.generation_config import GenerationConfig

logger = logging.getLogger(__name__)


class TextDecoderConfig(Config):
    """Fields common to the configurations of all text decoders.

    `cross_attention_hidden_size` is the width of the encoder's frames if they are not projected to the decoder's.
    """

    aliases: ClassVar[dict[str, str]] = {}
    """Alternative names of fields."""

    vocab_size: int = 1
    is_decoder: bool = False
    add_cross_attention: bool = False
    cross_attention_hidden_size: int | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @property
    def encoder_width(self) -> int:
        """Width of the frames that cross attention reads."""
        return int(self.cross_attention_hidden_size or self.hidden_size)

    def validate(self) -> None:
        """Raise CheckpointError unless the heads divide the width."""
        width, num_heads = self.hidden_size, getattr(self, "decoder_attention_heads", None) or self.num_attention_heads
        if num_heads < 1 or width % num_heads:
            raise CheckpointError(f"attention has {num_heads} heads, expected a divisor of the width {width}")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the field of this alias
        alias = type(self).aliases.get(name)
        if alias is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, alias)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(type(self).aliases.get(name, name), value)


class TextDecoder(GeneratingModel):
    """A causal language model that can attend to an encoder's frames."""

    layers_name: ClassVar[str]
    """Name of the list of layers; each takes (hidden_RLH, run, index)."""
    norm_name: ClassVar[str] = ""
    """Name of the norm after the layers, if there is one."""
    embeddings_name: ClassVar[str]
    """Name of the embeddings of tokens."""
    head_name: ClassVar[str] = "lm_head"
    """Name of the module that returns logits."""
    output_name: ClassVar[str] = "lm_head"
    """Name of its last layer."""
    new_parts: ClassVar[tuple[str, ...]] = ()
    """Parts of names of weights that checkpoints of other models lack: cross attention, the head."""
    tied_pairs: ClassVar[dict[str, str]] = {}
    """Names of tied weights, each with the name of the weight it equals."""
    positions_follow_mask: ClassVar[bool] = False
    """Whether tokens of a padded prompt are counted without the padding."""
    shifts_labels: ClassVar[bool] = True
    """Whether the logits of a token predict the label of the next one; BART expects shifted labels."""
    caches_with_labels: ClassVar[bool] = True
    """Whether a call with labels can return its cache."""
    config: Any

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.gradient_checkpointing = False

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers, in order."""
        return [*self.get_submodule(self.layers_name).children()]

    @property
    def above_layers(self) -> Sequence[nn.Module]:
        """Modules that take the output of the last layer, and those after them."""
        return [self.get_submodule(name) for name in (self.norm_name, self.head_name) if name]

    @abstractmethod
    def embed(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        positions: Tensor,
        token_type_ids: Tensor | None,
    ) -> Tensor:
        """Return the first hidden_RLH of tokens at these positions."""

    def head(self, hidden_RLH: Tensor) -> Tensor:
        """Return logits_RLV."""
        logits_RLV: Tensor = self.get_submodule(self.head_name)(hidden_RLH)
        return logits_RLV

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of tokens."""
        return cast(nn.Embedding, self.get_submodule(self.embeddings_name))

    def get_output_embeddings(self) -> nn.Linear:
        """Return the layer that computes logits."""
        return cast(nn.Linear, self.get_submodule(self.output_name))

    @property
    def num_positions(self) -> int:
        """Tokens of the longest text."""
        return int(self.config.max_position_embeddings)

    def check_length(self, num_tokens: int) -> None:
        """Raise ValueError for a text of more tokens than the model has positions."""
        if num_tokens > self.num_positions:
            actual = f"found {num_tokens} tokens"
            raise ValueError(f"{actual}, expected at most max_position_embeddings {self.num_positions}")

    def decode(
        self,
        run: Pass,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        positions: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Run new tokens through all layers; return the last hidden_RLH and fill `run`."""
        inputs = input_ids if input_ids is not None else inputs_embeds
        if inputs is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("expected either input_ids or inputs_embeds, found both or neither")
        start = 0 if run.cache is None else run.cache.num_tokens
        end = start + inputs.shape[1]
        if positions is None:
            self.check_length(end)
            positions = torch.arange(start, end, device=inputs.device)
        if run.encoder_BSH is not None and not self.config.add_cross_attention:
            raise ValueError(
                "encoder_hidden_states given to a decoder without cross attention: set add_cross_attention=True"
            )
        hidden_RLH = self.embed(input_ids, inputs_embeds, positions, token_type_ids)
        for index, layer in enumerate(self.layers):
            if run.with_states:
                run.states.append(hidden_RLH)
            if self.training and self.layerdrop > 0.0 and torch.rand([]) < self.layerdrop:
                continue
            hidden_RLH = self._through(layer, hidden_RLH, run, index)
        if self.norm_name:
            hidden_RLH = self.get_submodule(self.norm_name)(hidden_RLH)
        if run.with_states:
            run.states.append(hidden_RLH)
        return hidden_RLH

    def _through(self, layer: nn.Module, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return a layer's output; with gradient checkpointing, recomputation leaves `run` unchanged."""
        if not self._recomputes:
            output_RLH: Tensor = layer(hidden_RLH, run, index)
            return output_RLH

        def noted_apart(hidden_RLH: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            apart = replace(run, attentions=[], cross_attentions=[])
            return layer(hidden_RLH, apart, index), apart.attentions, apart.cross_attentions

        hidden_RLH, attentions, cross_attentions = checkpoint(noted_apart, hidden_RLH, use_reentrant=False)
        run.attentions += attentions
        run.cross_attentions += cross_attentions
        return hidden_RLH

    @property
    def _recomputes(self) -> bool:
        return self.gradient_checkpointing and self.training and torch.is_grad_enabled()

    @property
    def layerdrop(self) -> float:
        """Probability of skipping a layer in training."""
        return 0.0

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,  # noqa: ANN401 - a cache, or tuples
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Return logits_RLV, and the mean cross entropy if there are labels.

        Args:
            input_ids: (R, L) new tokens.
            attention_mask: (R, P + L), nonzero where an earlier or new token is attended to; None: everywhere.
            token_type_ids: (R, L), for architectures that have token types.
            position_ids: (R, L); None: counted on from the P cached tokens.
            inputs_embeds: (R, L, H) in place of `input_ids`.
            encoder_hidden_states: (B, S, H) frames to attend to; R is B, or B times the beams.
            encoder_attention_mask: (B, S), nonzero where a frame is attended to; None: everywhere.
            labels: (R, L) ids; -100 is ignored by the loss. They are shifted where `shifts_labels` is true.
            past_key_values: The cache that an earlier call returned, or N tuples of 2 or 4 tensors. It is not changed.
            use_cache: Return `past_key_values`. None: the value of the configuration. Always False in training with
                gradient checkpointing, where recomputation would append to it again.
            output_attentions: Return weights, (R, A, L, P + L) and (R, A, L, S), one of each per layer.
            output_hidden_states: Return (R, L, H) before the first layer and after each; the last is normalised.
            return_dict: False returns a plain tuple.

        Raises:
            ValueError: Inputs are missing, contradict each other, or exceed the positions of the model.
        """
        config, inputs = self.config, input_ids if input_ids is not None else inputs_embeds
        cache, returns_cache = self._cache(past_key_values, use_cache, has_labels=labels is not None)
        num_new = 0 if inputs is None else inputs.shape[1]
        run = Pass(
            tokens=token_mask(attention_mask, num_new, cache.num_tokens if cache else 0, self.device),
            encoder_BSH=encoder_hidden_states,
            frames=frame_mask(encoder_attention_mask),
            cache=cache,
            with_weights=resolved(output_attentions, config.output_attentions),
            with_states=resolved(output_hidden_states, config.output_hidden_states),
        )
        logits_RLV = self.head(self.decode(run, input_ids, inputs_embeds, position_ids, token_type_ids))
        output = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else causal_lm_loss(logits_RLV, labels, shift=self.shifts_labels),
            logits=logits_RLV,
            past_key_values=cache if returns_cache else None,
            hidden_states=tuple(run.states) if run.with_states else None,
            attentions=tuple(run.attentions) if run.with_weights else None,
            cross_attentions=tuple(run.cross_attentions) if run.with_weights and run.has_encoder else None,
        )
        return self.returned(output, return_dict)

    def _cache(
        self,
        past_key_values: Any,  # noqa: ANN401 - a cache, or tuples
        use_cache: bool | None,
        *,
        has_labels: bool,
    ) -> tuple[KeyValueCache | None, bool]:
        """Return the cache of a call, if any, and whether the output includes it."""
        returns_cache = resolved(use_cache, self.config.use_cache) and (self.caches_with_labels or not has_labels)
        if self._recomputes:
            if past_key_values is not None:
                raise ValueError(
                    "past_key_values given in training with gradient checkpointing, which uses no cache: pass all "
                    "tokens at once, or call gradient_checkpointing_disable() or eval()"
                )
            if use_cache:
                logger.warning(
                    "use_cache=True has no effect in training with gradient checkpointing: no cache is returned"
                )
            returns_cache = False
        if past_key_values is not None:
            return KeyValueCache.of(past_key_values, len(self.layers)), returns_cache
        return KeyValueCache(len(self.layers)) if returns_cache else None, returns_cache

    def generate(
        self,
        input_ids: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        generator: torch.Generator | None = None,
        generators: Sequence[torch.Generator] | None = None,
        **options: Any,  # noqa: ANN401 - fields of GenerationConfig
    ) -> Tensor | GenerateOutput:
        """Continue texts; without a prompt, generate one text from `bos_token_id`.

        Args:
            input_ids: (B, T) tokens to start from.
            attention_mask: (B, T), nonzero where a token is attended to (padding is on the left); None: not padding.
            encoder_hidden_states: (B, S, H) frames to attend to.
            encoder_attention_mask: (B, S), nonzero where a frame is attended to.
            generation_config: Options, in place of the model's.
            generator: Random generator for sampling.
            generators: One per row, so that samples do not depend on the batch.
            options: Options by name, in place of either.

        Returns:
            Tokens (B * num_return_sequences, T), or `GenerateOutput` with `return_dict_in_generate=True`.
        """
        merged = self._options(generation_config, options)
        if input_ids is None:
            if merged.bos_token_id is None:
                raise ValueError("neither input_ids nor bos_token_id given, expected tokens to start from")
            input_ids = torch.full((1, 1), merged.bos_token_id, device=self.device)
        if attention_mask is None and merged.pad_token_id is not None and merged.pad_token_id != merged.eos_token_id:
            attention_mask = input_ids != merged.pad_token_id
        return generate(
            self,
            merged,
            input_ids,
            encoder_BSH=encoder_hidden_states,
            encoder_mask_BS=encoder_attention_mask,
            prompt_mask_BT=attention_mask,
            num_positions=self.num_positions,
            generators=generators_of(generator, generators),
        )

    # Weights

    def current_names(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the weights of a checkpoint that this model uses, by its names."""
        return dict(values)

    def _fit_names(self, values: Mapping[str, Value]) -> tuple[dict[str, Value], list[str]]:
        return self.current_names(values), []

    def _may_differ(self, name: str, strict: bool) -> bool:
        """Return whether a weight may be missing: cross attention and head, unless `strict`."""
        return not strict and any(part in name for part in self.new_parts)

    def tied_weights(self) -> dict[str, str]:
        """Return {name: name of the weight that it equals}."""
        return self.tied_pairs if self.config.tie_word_embeddings else {}

    def resize_token_embeddings(
        self, num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Module:
        """Change the vocabulary size and return the input embeddings; new tokens start as the mean of the old."""
        embeddings, output = self.get_input_embeddings(), self.get_output_embeddings()
        size = embeddings.num_embeddings if num_tokens is None else num_tokens
        size = math.ceil(size / (pad_to_multiple_of or 1)) * (pad_to_multiple_of or 1)
        embeddings.weight = _resized(embeddings.weight, size)
        embeddings.num_embeddings = output.out_features = self.config.vocab_size = size
        output.weight = _resized(output.weight, size)
        if output.bias is not None:
            output.bias = nn.Parameter(F.pad(output.bias.detach(), (0, max(0, size - len(output.bias))))[:size].clone())
        self.tie_weights()
        return embeddings


def causal_lm_loss(logits_RLV: Tensor, labels_RL: Tensor, *, shift: bool) -> Tensor:
    """Return the mean cross entropy over labels other than -100; `shift`: a token predicts the next label."""
    if shift:
        labels_RL = F.pad(labels_RL, (0, 1), value=-100)[:, 1:]
    labels = labels_RL.reshape(-1).to(logits_RLV.device)
    # In float32, as in transformers: sums over a vocabulary lose digits in half precision.
    return F.cross_entropy(logits_RLV.float().flatten(0, 1), labels, ignore_index=-100)


def _resized(weight_VH: Tensor, size: int) -> nn.Parameter:
    old = weight_VH.detach()
    # In float32: a mean over 50,000 rows is wrong in half precision.
    mean_H = old.float().mean(0).to(old.dtype)
    new = mean_H.expand(max(0, size - len(old)), -1)
    return nn.Parameter(torch.cat([old[:size], new]), requires_grad=weight_VH.requires_grad)
