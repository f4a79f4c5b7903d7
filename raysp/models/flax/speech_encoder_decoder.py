"""A speech encoder and a text decoder that attends to its frames, in JAX: see models/speech_encoder_decoder.py.

Any encoder and decoder of this package can be combined.

Legend: B rows, S samples or frames of features, T frames of the encoder, L tokens, M room for tokens, H hidden,
V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn
from jax import Array

from raysp.models.base.modeling import asked
from raysp.models.decoder.generation_config import GenerationConfig, Settings
from raysp.models.encoder.speech_model import SpeechModel
from raysp.models.flax.beams import beam_search
from raysp.models.flax.decoding import DecoderPass, FlaxCache, Noted, token_mask
from raysp.models.flax.encoders import SWITCHES, frames_of, speech_batch
from raysp.models.flax.generation import Start, Texts, keys_of, token_by_token
from raysp.models.flax.grid import LEAST_TOKENS, Batch, cut, cut_all, keep_shape, padded, rounded
from raysp.models.flax.joint import SpeechEncoderDecoderModule
from raysp.models.flax.layers import Pass, attended_keys, is_before
from raysp.models.flax.logits import Processor, changes_of
from raysp.models.flax.modeling import FlaxModel, rngs_of
from raysp.models.flax.outputs import (
    FlaxBaseModelOutput,
    FlaxCausalLMOutputWithCrossAttentions,
    FlaxGenerateOutput,
    FlaxSeq2SeqLMOutput,
)
from raysp.models.flax.transformer import Encoded
from raysp.models.speech_encoder_decoder import SpeechEncoderDecoderModel

Params = Mapping[str, Any] | None


class Part(NamedTuple):
    """One of the two parts: its configuration and its parameters."""

    config: Any
    params: Any


class FlaxSpeechEncoderDecoderModel(FlaxModel):
    """An encoder of speech and a decoder of text."""

    torch_class = SpeechEncoderDecoderModel
    _sister: SpeechEncoderDecoderModel

    def build_module(self) -> nn.Module:
        """Return the Linen module."""
        return SpeechEncoderDecoderModule(self.config)

    def _compile(self) -> None:
        self._forward_program = jax.jit(self._forward, static_argnames=SWITCHES)
        self._encode_program = jax.jit(self._encode, static_argnames=SWITCHES)
        self._decode_program = jax.jit(self._decode, static_argnames=SWITCHES)
        self._generate_program = jax.jit(self._generate, static_argnames=("settings", "processors"))

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | Path | None = None,
        decoder_pretrained_model_name_or_path: str | Path | None = None,
        *model_args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Self:
        """Combine two pretrained checkpoints; missing weights, such as cross-attention, are randomly initialised.

        Arguments as for the PyTorch class, and `dtype` and `seed` as for `from_pretrained`. `encoder_from_pt` and
        `decoder_from_pt` have no effect.
        """
        dtype, seed = kwargs.pop("dtype", jnp.float32), kwargs.pop("seed", 0)
        for name in ("input_shape", "from_pt", "encoder_from_pt", "decoder_from_pt"):
            kwargs.pop(name, None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls.torch_class.from_encoder_decoder_pretrained(
                encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path, *model_args, **kwargs
            )
        return cls._of_torch(model, dtype)

    @property
    def encoder(self) -> Part:
        """Configuration and parameters of the encoder."""
        return Part(self.config.encoder, self.params["encoder"])

    @property
    def decoder(self) -> Part:
        """Configuration and parameters of the decoder."""
        return Part(self.config.decoder, self.params["decoder"])

    @property
    def generation_config(self) -> GenerationConfig:
        """Default options of `generate`; assignable."""
        return self._sister.generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        self._sister.generation_config = value

    @property
    def _speech(self) -> SpeechModel:
        speech = self._sister.speech_encoder
        assert isinstance(speech, SpeechModel)
        return speech

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> Array:  # noqa: ANN401 - an array of either kind
        """Return labels (B, L) one place to the right after `decoder_start_token_id`, with padding in place of -100."""
        start, padding = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None or padding is None:
            raise ValueError(
                f"config.decoder_start_token_id is {start!r} and config.pad_token_id {padding!r}, expected tokens: "
                "set both"
            )
        labels = jnp.asarray(labels)
        shifted_BL = jnp.concatenate([jnp.full_like(labels[:, :1], start), labels[:, :-1]], 1)
        return jnp.where(shifted_BL == -100, padding, shifted_BL)

    # Forward

    def __call__(
        self,
        inputs: Any,  # noqa: ANN401 - an array of either kind
        attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        decoder_input_ids: Any = None,  # noqa: ANN401 - an array of either kind
        decoder_attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        decoder_position_ids: Any = None,  # noqa: ANN401 - an array of either kind
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        train: bool = False,
        freeze_feature_encoder: bool = False,
        params: Params = None,
        dropout_rng: Any = None,  # noqa: ANN401 - a key
    ) -> Any:  # noqa: ANN401 - the output, or a tuple
        """Encode speech and return logits of the next tokens.

        Args:
            inputs: (B, S) normalised samples, or (B, S, F) features.
            attention_mask: (B, S), nonzero for samples or feature frames of the row, which come first; None: all.
            decoder_input_ids: (B, L) tokens; for training, those of `prepare_decoder_input_ids_from_labels`.
            decoder_attention_mask: (B, L), nonzero where a token is attended to; None: everywhere. Tokens attend to
                earlier ones only, so padding behind a text does not affect it.
            decoder_position_ids: (B, L); None: counted from 0.
            output_attentions: Return attention weights of both parts; None: as configured.
            output_hidden_states: Return hidden states of both parts; None: as configured.
            return_dict: False returns a plain tuple.
            train: Turn dropout on. Layers and frames are never dropped.
            freeze_feature_encoder: Stop gradients at the front end.
            params: Parameters in place of the model's.
            dropout_rng: Key of dropout, needed with `train`.

        Raises:
            ValueError: `decoder_input_ids` is missing, or an input has the wrong shape.
        """
        if decoder_input_ids is None:
            raise ValueError(
                "decoder_input_ids is None, expected tokens (B, L): shift labels to the right by "
                "prepare_decoder_input_ids_from_labels"
            )
        is_fixed = keep_shape(inputs, attention_mask, decoder_input_ids)
        batch = speech_batch(self._speech, inputs, attention_mask, is_fixed)
        num_tokens = decoder_input_ids.shape[1]
        self._check_length(num_tokens)
        length = num_tokens if is_fixed else rounded(num_tokens, LEAST_TOKENS)
        with_states = asked(output_hidden_states, self.config.output_hidden_states)
        (frames_BTH, logits_BLV), run, of_decoder = self._forward_program(
            self._given(params),
            batch.inputs,
            batch.mask,
            *(
                None if x is None else padded(x, batch.padded_rows, length)
                for x in (decoder_input_ids, decoder_attention_mask, decoder_position_ids)
            ),
            rngs_of(dropout_rng, train),
            train=train,
            with_states=with_states,
            with_weights=asked(output_attentions, self.config.output_attentions),
            freezes_features=freeze_feature_encoder,
        )
        rows, frames = batch.rows, frames_of(self._speech, batch)
        output = FlaxSeq2SeqLMOutput(
            logits=cut(logits_BLV, rows, num_tokens),
            decoder_hidden_states=cut_all(of_decoder.states, rows, num_tokens) or None,
            decoder_attentions=cut_all(of_decoder.attentions, rows, None, num_tokens, num_tokens) or None,
            cross_attentions=cut_all(of_decoder.cross_attentions, rows, None, num_tokens, frames.last) or None,
            encoder_last_hidden_state=cut(frames_BTH, rows, frames.last),
            encoder_hidden_states=cut_all(run.states, rows, frames.hidden) or None,
            encoder_attentions=cut_all(run.attentions, rows, None, frames.hidden, frames.hidden) or None,
        )
        return self._returned(output, return_dict)

    def _forward(
        self,
        params: Any,  # noqa: ANN401 - a tree
        inputs: Array,
        mask_BS: Array,
        ids_BL: Array,
        mask_BL: Array | None,
        positions: Array | None,
        rngs: Any,  # noqa: ANN401 - keys
        **switches: Any,  # noqa: ANN401 - bools
    ) -> tuple[tuple[Array, Array], Noted, Noted]:
        num_tokens = ids_BL.shape[1]
        run = Pass(**switches)
        of_decoder = DecoderPass(**switches, allowed=token_mask(mask_BL, num_tokens, 0, num_tokens))
        result: tuple[Array, Array] = self._apply(
            self._variables(params),
            inputs.astype(self.dtype),
            mask_BS != 0,
            ids_BL,
            self._positions(num_tokens) if positions is None else positions,
            run,
            of_decoder,
            rngs=rngs,
        )
        return result, Noted.of(run), Noted.of(of_decoder)

    def _positions(self, num_tokens: int, start: Any = 0) -> Array:  # noqa: ANN401 - an int or array
        """Return positions (L,); those of padding beyond the last position are the last."""
        # An index beyond a table reads NaN in JAX, and padding on the grid can have one.
        return jnp.minimum(start + jnp.arange(num_tokens), self._num_positions - 1)

    @property
    def _num_positions(self) -> int:
        return int(self.config.decoder.max_position_embeddings)

    def _check_length(self, num_tokens: int) -> None:
        if num_tokens > self._num_positions:
            raise ValueError(
                f"found {num_tokens} tokens, expected at most max_position_embeddings {self._num_positions}: for "
                "generate, pass max_new_tokens"
            )

    # Parts

    def encode(
        self,
        inputs: Any,  # noqa: ANN401 - an array of either kind
        attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        train: bool = False,
        freeze_feature_encoder: bool = False,
        params: Params = None,
        dropout_rng: Any = None,  # noqa: ANN401 - a key
    ) -> Any:  # noqa: ANN401 - the output, or a tuple
        """Return the encoder's output, whose frames `decode` takes; arguments as for a call."""
        batch = speech_batch(self._speech, inputs, attention_mask, keep_shape(inputs, attention_mask))
        encoded, run = self._encode_program(
            self._given(params),
            batch.inputs,
            batch.mask,
            rngs_of(dropout_rng, train),
            train=train,
            with_states=asked(output_hidden_states, self.config.output_hidden_states),
            with_weights=asked(output_attentions, self.config.output_attentions),
            freezes_features=freeze_feature_encoder,
        )
        frames = frames_of(self._speech, batch)
        output = FlaxBaseModelOutput(
            last_hidden_state=cut(encoded.hidden_BTH, batch.rows, frames.last),
            hidden_states=cut_all(run.states, batch.rows, frames.hidden) or None,
            attentions=cut_all(run.attentions, batch.rows, None, frames.hidden, frames.hidden) or None,
        )
        return self._returned(output, return_dict)

    def _encode(
        self,
        params: Any,  # noqa: ANN401 - a tree
        inputs: Array,
        mask_BS: Array,
        rngs: Any,  # noqa: ANN401 - keys
        **switches: Any,  # noqa: ANN401 - bools
    ) -> tuple[Encoded, Noted]:
        run = Pass(**switches)
        variables = self._variables(params)
        encoded: Encoded = self._apply(
            variables, inputs.astype(self.dtype), mask_BS != 0, run, rngs=rngs, method="encode"
        )
        return encoded, Noted.of(run)

    def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any = None) -> FlaxCache:  # noqa: ANN401
        """Return an empty cache for `decode`.

        Args:
            batch_size: Rows of the decoder.
            max_length: Tokens of the longest text.
            encoder_outputs: Without effect; the first call of `decode` projects the frames.
        """
        self._check_length(max_length)
        return self._empty_cache(batch_size, max_length)

    def _empty_cache(self, rows: int, room: int) -> FlaxCache:
        decoder = self.config.decoder
        num_layers = getattr(decoder, "decoder_layers", None) or decoder.num_hidden_layers
        num_heads = getattr(decoder, "decoder_attention_heads", None) or decoder.num_attention_heads
        return FlaxCache.empty(num_layers, rows, num_heads, room, decoder.hidden_size // num_heads, self.dtype)

    def decode(
        self,
        decoder_input_ids: Any,  # noqa: ANN401 - an array of either kind
        encoder_outputs: Any,  # noqa: ANN401 - an output, or a tuple
        encoder_attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        decoder_attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        decoder_position_ids: Any = None,  # noqa: ANN401 - an array of either kind
        past_key_values: FlaxCache | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        train: bool = False,
        params: Params = None,
        dropout_rng: Any = None,  # noqa: ANN401 - a key
    ) -> Any:  # noqa: ANN401 - the output, or a tuple
        """Return logits of the next tokens for frames of `encode`. A program is compiled for each shape.

        Args:
            decoder_input_ids: (B, L) tokens; with a cache the new ones.
            encoder_outputs: Output of `encode`, or a tuple that begins with its `last_hidden_state`.
            encoder_attention_mask: (B, S) of samples or features as given to `encode`, or (B, T) of frames.
            decoder_attention_mask: (B, up to M), nonzero where a token is attended to, cached tokens included.
            decoder_position_ids: (B, L); None: counted on from the cache.
            past_key_values: A cache of `init_cache` or of an earlier call. It is not changed.
            output_attentions: Return attention weights.
            output_hidden_states: Return hidden states.
            return_dict: False returns a plain tuple.
            train: Turn dropout on.
            params: Parameters in place of the model's.
            dropout_rng: Key of dropout, needed with `train`.
        """
        hidden_BTH, num_new = encoder_outputs[0], decoder_input_ids.shape[1]
        self._check_length(num_new)
        room = num_new if past_key_values is None else past_key_values.room
        mask_BM = decoder_attention_mask
        if mask_BM is not None and mask_BM.shape[1] < room:
            mask_BM = jnp.pad(jnp.asarray(mask_BM), ((0, 0), (0, room - mask_BM.shape[1])), constant_values=1)
        logits_BLV, run, cache = self._decode_program(
            self._given(params),
            decoder_input_ids,
            hidden_BTH,
            self._frame_mask(encoder_attention_mask, hidden_BTH.shape[1]),
            mask_BM,
            decoder_position_ids,
            past_key_values,
            rngs_of(dropout_rng, train),
            train=train,
            with_states=asked(output_hidden_states, self.config.output_hidden_states),
            with_weights=asked(output_attentions, self.config.output_attentions),
            freezes_features=False,
        )
        output = FlaxCausalLMOutputWithCrossAttentions(
            logits=logits_BLV,
            past_key_values=cache,
            hidden_states=run.states or None,
            attentions=run.attentions or None,
            cross_attentions=run.cross_attentions or None,
        )
        return self._returned(output, return_dict)

    def _frame_mask(self, mask: Any, num_frames: int) -> Any:  # noqa: ANN401 - an array of either kind, or None
        """Return the mask of frames (B, T) for one of frames, or of samples or features."""
        if mask is None or mask.shape[1] == num_frames:
            return mask
        lengths: Any = (jnp.asarray(mask) != 0).sum(-1)
        return is_before(self._speech._get_feat_extract_output_lengths(lengths), num_frames)

    def _decode(
        self,
        params: Any,  # noqa: ANN401 - a tree
        ids_BL: Array,
        hidden_BTH: Array,
        valid_BT: Array | None,
        mask_BM: Array | None,
        positions: Array | None,
        cache: FlaxCache | None,
        rngs: Any,  # noqa: ANN401 - keys
        **switches: Any,  # noqa: ANN401 - bools
    ) -> tuple[Array, Noted, FlaxCache | None]:
        num_new, variables = ids_BL.shape[1], self._variables(params)
        start, room = (0, num_new) if cache is None else (cache.num_tokens, cache.room)
        run = DecoderPass(
            **switches,
            allowed=token_mask(mask_BM, num_new, start, room),
            frames_BSH=self._apply(variables, hidden_BTH.astype(self.dtype), method="project"),
            frames_allowed=None if valid_BT is None else attended_keys(valid_BT != 0),
            cache=cache,
        )
        places = self._positions(num_new, start) if positions is None else positions
        logits_BLV = self._apply(variables, ids_BL, places, run, rngs=rngs, method="decode")
        return logits_BLV, Noted.of(run), run.new_cache(num_new)

    # Generation

    def generate(
        self,
        inputs: Any = None,  # noqa: ANN401 - an array of either kind
        attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        *,
        input_values: Any = None,  # noqa: ANN401 - an array of either kind
        input_features: Any = None,  # noqa: ANN401 - an array of either kind
        decoder_input_ids: Any = None,  # noqa: ANN401 - an array of either kind
        decoder_attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        generation_config: GenerationConfig | None = None,
        prng_key: Any = None,  # noqa: ANN401 - a key, or one per row
        logits_processor: Processor | Sequence[Processor] | None = None,
        params: Params = None,
        **options: Any,  # noqa: ANN401 - fields of GenerationConfig
    ) -> FlaxGenerateOutput:
        """Generate a text for each row of speech, by one program for each size of batch.

        Args:
            inputs: (B, S) normalised samples, or (B, S, F) features; or one of the two names below.
            attention_mask: (B, S), nonzero for samples or feature frames of the row.
            input_values: The same as `inputs`.
            input_features: The same as `inputs`.
            decoder_input_ids: (B, T) tokens to start from; a missing start token is added.
            decoder_attention_mask: (B, T), nonzero where such a token is attended to.
            generation_config: Options, in place of the model's.
            prng_key: Key for sampling; or (B,) keys, so that samples do not depend on the places of rows.
            logits_processor: Functions of (input_ids, scores, cur_len) that return scores, traced by JAX. Pass the same
                objects again: other ones are compiled again.
            params: Parameters in place of the model's.
            options: Options by name, in place of either; see `GenerationConfig`.

        Returns:
            `sequences` (B * num_return_sequences, T) with the start token; rows are padded after their end; and the
            log-probability of each token. Beam search returns their scores too.
        """
        given = [value for value in (inputs, input_values, input_features) if value is not None]
        if len(given) != 1:
            raise ValueError(f"{len(given)} of inputs, input_values and input_features given, expected one")
        merged = self._sister._options(generation_config, options)
        batch = speech_batch(self._speech, given[0], attention_mask, keep_shape(given[0], attention_mask))
        prompt_BT, prompt_mask_BT = self._prompt(merged, batch, decoder_input_ids, decoder_attention_mask)
        settings = self._settings(merged, prompt_BT.shape[1])
        texts = self._generate_program(
            self._given(params),
            batch.inputs,
            batch.mask,
            prompt_BT,
            prompt_mask_BT,
            batch.is_given(),
            _padded_keys(jax.random.key(0) if prng_key is None else prng_key, batch),
            settings=settings,
            processors=_listed(logits_processor),
        )
        return _output(texts, batch.rows, settings.num_beams > 1)

    def _settings(self, options: GenerationConfig, prompt_length: int) -> Settings:
        settings = Settings.of(options, prompt_length, None)
        settings.check_tokens(self.config.decoder.vocab_size)
        if settings.output_scores and settings.num_beams == 1:
            raise ValueError(
                "output_scores is True without beams, expected False: Flax models return no scores of tokens"
            )
        self._check_length(settings.max_length - 1)  # the last token is not an input
        return settings

    def _prompt(self, options: GenerationConfig, batch: Batch, ids: Any, mask: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Return the tokens to start from on the grid, with the start token first, and their mask."""
        start = options.first_token(self.config)
        if start is None:
            raise ValueError(
                "decoder_start_token_id and bos_token_id are None, expected the start token of texts: set one of them"
            )
        first_B1 = np.broadcast_to(np.asarray(start, np.int32).reshape(-1, 1), (batch.rows, 1))
        if ids is None:
            return padded(first_B1, batch.padded_rows), None
        ids_BT = np.asarray(ids, np.int32)
        mask_BT = np.ones_like(ids_BT) if mask is None else np.asarray(mask)
        if (ids_BT[:, :1] != first_B1).all():
            ids_BT, mask_BT = (
                np.concatenate([first_B1, ids_BT], 1),
                np.pad(mask_BT, ((0, 0), (1, 0)), constant_values=1),
            )
        return padded(ids_BT, batch.padded_rows), None if mask is None else padded(mask_BT, batch.padded_rows)

    def _generate(
        self,
        params: Any,  # noqa: ANN401 - a tree
        inputs: Array,
        mask_BS: Array,
        prompt_BT: Array,
        prompt_mask_BT: Array | None,
        open_B: Array,
        keys: Array,
        settings: Settings,
        processors: tuple[Processor, ...],
    ) -> Texts:
        variables, (rows, prompt_length) = self._variables(params), prompt_BT.shape
        room = settings.max_length - 1
        encoded: Encoded = self._apply(variables, inputs.astype(self.dtype), mask_BS != 0, Pass(), method="encode")
        frames_BTH = self._apply(variables, encoded.hidden_BTH, method="project")
        mask_BM, num_padding_B = None, None
        if prompt_mask_BT is not None:
            mask_BM = jnp.pad(prompt_mask_BT != 0, ((0, 0), (0, room - prompt_length)), constant_values=True)
            num_padding_B = (prompt_mask_BT != 0).argmax(-1)

        def step(ids_RL: Array, cache: FlaxCache) -> tuple[Array, FlaxCache]:
            num_new = ids_RL.shape[1]
            mask_RM = None if mask_BM is None else jnp.repeat(mask_BM, ids_RL.shape[0] // rows, axis=0)
            run = DecoderPass(
                allowed=token_mask(mask_RM, num_new, cache.num_tokens, room),
                frames_BSH=frames_BTH,
                frames_allowed=attended_keys(encoded.valid_BT),
                cache=cache,
                is_last_only=True,
            )
            positions = self._positions(num_new, cache.num_tokens)
            logits_R1V = self._apply(variables, ids_RL, positions, run, method="decode")
            after = run.new_cache(num_new)
            assert after is not None
            return logits_R1V.astype(jnp.float32), after

        start = Start(
            settings=settings,
            step=step,
            changes=changes_of(settings, prompt_length, num_padding_B, processors),
            prompt_BT=prompt_BT,
            cache=self._empty_cache(rows, room),
            open_B=open_B,
            keys_B=keys_of(keys, rows),
        )
        return beam_search(start) if settings.num_beams > 1 else token_by_token(start)


def _listed(processors: Processor | Sequence[Processor] | None) -> tuple[Processor, ...]:
    if processors is None:
        return ()
    return (processors,) if callable(processors) else tuple(processors)


def _padded_keys(key: Any, batch: Batch) -> Any:  # noqa: ANN401 - a key, or one per row
    """Return a key for the call, or keys for the rows on the grid."""
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key.ndim == (0 if is_typed else 1):
        return key
    if len(key) != batch.rows:
        raise ValueError(f"prng_key has {len(key)} keys, expected one, or one for each of the {batch.rows} rows")
    data = padded(np.asarray(jax.random.key_data(key) if is_typed else key), batch.padded_rows)
    return jax.random.wrap_key_data(data)


def _output(texts: Texts, rows: int, has_scores: bool) -> FlaxGenerateOutput:
    """Return the texts of the rows that were given, cut after the longest."""
    longest = int(np.asarray(texts.num_tokens)[:rows].max())
    sequences, log_probs = (
        jax.device_put(np.asarray(x)[:rows, :, :longest].reshape(-1, longest))
        for x in (texts.sequences, texts.log_probs)
    )
    scores = jax.device_put(np.asarray(texts.scores)[:rows].reshape(-1)) if has_scores else None
    return FlaxGenerateOutput(sequences=sequences, sequences_scores=scores, log_probs=log_probs)
