"""A speech encoder and a text decoder that attends to its frames, in JAX: see models/speech_encoder_decoder.py.

Legend: B rows, S samples, T frames of the encoder, L tokens, M room for tokens, H hidden, V vocabulary.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from raysp.models.decoder.generation_config import GenerationConfig, Settings
from raysp.models.encoder.speech_model import SpeechModel
from raysp.models.flax.beams import beam_search
from raysp.models.flax.decoding import DecoderPass, FlaxCache, Noted, token_mask
from raysp.models.flax.generation import Start, Texts, token_by_token
from raysp.models.flax.joint import SpeechEncoderDecoderModule, check_parts
from raysp.models.flax.layers import Pass, attended_keys, is_before
from raysp.models.flax.logits import changes_of, check_settings
from raysp.models.flax.modeling import IGNORED, SWITCHES, FlaxModel, Keys, Switches, rngs_of, seeded
from raysp.models.flax.outputs import (
    FlaxBaseModelOutput,
    FlaxCausalLMOutputWithCrossAttentions,
    FlaxGenerateOutput,
    FlaxSeq2SeqLMOutput,
)
from raysp.models.flax.text_decoder import check_length
from raysp.models.flax.wav2vec2 import Encoded, mask_of
from raysp.models.flax.weights import Tree
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
        """Return the Linen module.

        Raises:
            CheckpointError: There is no Flax module for the encoder, or for the decoder.
        """
        check_parts(self.config)
        return SpeechEncoderDecoderModule(self.config)

    def _compile(self) -> None:
        self._forward_program = jax.jit(self._forward, static_argnames=SWITCHES)
        self._encode_program = jax.jit(self._encode, static_argnames=SWITCHES)
        self._decode_program = jax.jit(self._decode, static_argnames=SWITCHES)
        self._generate_program = jax.jit(self._generate, static_argnames="settings")

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
        for name in (*IGNORED, "encoder_from_pt", "decoder_from_pt"):
            kwargs.pop(name, None)
        names = (encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path)
        model = seeded(seed, cls.torch_class.from_encoder_decoder_pretrained, *names, *model_args, **kwargs)
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
            inputs: (B, S) normalised samples.
            attention_mask: (B, S), nonzero for samples of the row, which come first; None: all.
            decoder_input_ids: (B, L) tokens; for training, from `prepare_decoder_input_ids_from_labels`.
            decoder_attention_mask: (B, L), nonzero where a token is attended to; None: everywhere. Tokens attend to
                earlier ones only, so padding after a text does not affect it.
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
        check_length(decoder_input_ids.shape[1], self.config.decoder)
        (frames_BTH, logits_BLV), run, of_decoder = self._forward_program(
            self._params_or_own(params),
            inputs,
            mask_of(self._speech, inputs, attention_mask),
            decoder_input_ids,
            decoder_attention_mask,
            decoder_position_ids,
            rngs_of(dropout_rng, train),
            **self._switches(train, output_attentions, output_hidden_states, freeze_feature_encoder),
        )
        output = FlaxSeq2SeqLMOutput(
            logits=logits_BLV,
            decoder_hidden_states=of_decoder.hidden_states,
            decoder_attentions=of_decoder.attentions,
            cross_attentions=of_decoder.cross_attentions,
            encoder_last_hidden_state=frames_BTH,
            encoder_hidden_states=run.hidden_states,
            encoder_attentions=run.attentions,
        )
        return self._sister.returned(output, return_dict)

    def _forward(
        self,
        params: Tree,
        waves_BS: Array,
        mask_BS: Array,
        ids_BL: Array,
        mask_BL: Array | None,
        positions: Array | None,
        rngs: Keys,
        **switches: Unpack[Switches],
    ) -> tuple[tuple[Array, Array], Noted, Noted]:
        num_tokens = ids_BL.shape[1]
        run = Pass(**switches)
        of_decoder = DecoderPass(**switches, allowed=token_mask(mask_BL, num_tokens, 0, num_tokens))
        result: tuple[Array, Array] = self._apply(
            self._variables(params),
            waves_BS.astype(self.dtype),
            mask_BS != 0,
            ids_BL,
            jnp.arange(num_tokens) if positions is None else positions,
            run,
            of_decoder,
            rngs=rngs,
        )
        return result, Noted.of(run), Noted.of(of_decoder)

    # Parts

    def encode(
        self,
        inputs: Any,  # noqa: ANN401 - an array of either kind
        attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        params: Params = None,
    ) -> Any:  # noqa: ANN401 - the output, or a tuple
        """Return the encoder's output, whose frames `decode` takes; arguments as for a call."""
        mask_BS = mask_of(self._speech, inputs, attention_mask)
        switches = self._switches(False, output_attentions, output_hidden_states, False)
        encoded, run = self._encode_program(self._params_or_own(params), inputs, mask_BS, **switches)
        output = FlaxBaseModelOutput(
            last_hidden_state=encoded.hidden_BTH,
            hidden_states=run.hidden_states,
            attentions=run.attentions,
        )
        return self._sister.returned(output, return_dict)

    def _encode(
        self, params: Tree, waves_BS: Array, mask_BS: Array, **switches: Unpack[Switches]
    ) -> tuple[Encoded, Noted]:
        run, variables = Pass(**switches), self._variables(params)
        encoded: Encoded = self._apply(variables, waves_BS.astype(self.dtype), mask_BS != 0, run, method="encode")
        return encoded, Noted.of(run)

    def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any = None) -> FlaxCache:  # noqa: ANN401
        """Return an empty cache for `decode`.

        Args:
            batch_size: Rows of the decoder.
            max_length: Tokens of the longest text.
            encoder_outputs: Without effect; the first call of `decode` projects the frames.
        """
        check_length(max_length, self.config.decoder)
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
        params: Params = None,
    ) -> Any:  # noqa: ANN401 - the output, or a tuple
        """Return logits of the next tokens for frames of `encode`.

        Args:
            decoder_input_ids: (B, L) tokens; with a cache the new tokens.
            encoder_outputs: Output of `encode`, or a tuple that begins with its `last_hidden_state`.
            encoder_attention_mask: (B, S) of samples as for `encode`, or (B, T) of frames.
            decoder_attention_mask: (B, up to M), nonzero where a token is attended to, cached tokens included.
            decoder_position_ids: (B, L); None: counted on from the cache.
            past_key_values: A cache of `init_cache` or of an earlier call. It is not changed.
            output_attentions: Return attention weights.
            output_hidden_states: Return hidden states.
            return_dict: False returns a plain tuple.
            params: Parameters in place of the model's.
        """
        hidden_BTH, num_new = encoder_outputs[0], decoder_input_ids.shape[1]
        check_length(num_new, self.config.decoder)
        room = num_new if past_key_values is None else past_key_values.room
        mask_BM = decoder_attention_mask
        if mask_BM is not None and mask_BM.shape[1] < room:
            mask_BM = jnp.pad(jnp.asarray(mask_BM), ((0, 0), (0, room - mask_BM.shape[1])), constant_values=1)
        logits_BLV, run, cache = self._decode_program(
            self._params_or_own(params),
            decoder_input_ids,
            hidden_BTH,
            self._frame_mask(encoder_attention_mask, hidden_BTH.shape[1]),
            mask_BM,
            decoder_position_ids,
            past_key_values,
            **self._switches(False, output_attentions, output_hidden_states, False),
        )
        output = FlaxCausalLMOutputWithCrossAttentions(logits=logits_BLV, past_key_values=cache, **run._asdict())
        return self._sister.returned(output, return_dict)

    def _frame_mask(self, mask: Any, num_frames: int) -> Any:  # noqa: ANN401 - an array of either kind, or None
        """Return the mask of frames (B, T) for a mask of frames or samples."""
        if mask is None or mask.shape[1] == num_frames:
            return mask
        lengths: Any = (jnp.asarray(mask) != 0).sum(-1)
        return is_before(self._speech._get_feat_extract_output_lengths(lengths), num_frames)

    def _decode(
        self,
        params: Tree,
        ids_BL: Array,
        hidden_BTH: Array,
        valid_BT: Array | None,
        mask_BM: Array | None,
        positions: Array | None,
        cache: FlaxCache | None,
        **switches: Unpack[Switches],
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
        places = start + jnp.arange(num_new) if positions is None else positions
        logits_BLV = self._apply(variables, ids_BL, places, run, method="decode")
        return logits_BLV, Noted.of(run), run.new_cache(num_new)

    # Generation

    def generate(
        self,
        inputs: Any = None,  # noqa: ANN401 - an array of either kind
        attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        *,
        input_values: Any = None,  # noqa: ANN401 - an array of either kind
        generation_config: GenerationConfig | None = None,
        prng_key: Any = None,  # noqa: ANN401 - a key
        params: Params = None,
        **options: Any,  # noqa: ANN401 - fields of GenerationConfig
    ) -> FlaxGenerateOutput:
        """Generate a text for each row of speech, by one program: greedy, by beam search or by sampling.

        Args:
            inputs: (B, S) normalised samples.
            attention_mask: (B, S), nonzero for samples of the row.
            input_values: The same as `inputs`.
            generation_config: Options, in place of the model's.
            prng_key: Key for sampling.
            params: Parameters in place of the model's.
            options: Options by name, in place of either; see `GenerationConfig`.

        Returns:
            `sequences` (B * num_return_sequences, T) with the start token; rows are padded after their end. Beam search
            returns the scores of the texts too.

        Raises:
            ValueError: An option is unknown, or one that Flax models do not have.
        """
        arrays = [value for value in (inputs, input_values) if value is not None]
        if len(arrays) != 1:
            raise ValueError(f"{len(arrays)} of inputs and input_values given, expected one")
        waves, merged = arrays[0], self._sister._options(generation_config, options)
        settings = Settings.of(merged, 1, None)
        settings.check_tokens(self.config.decoder.vocab_size)
        check_settings(settings)
        check_length(settings.max_length - 1, self.config.decoder)  # the last token is not an input
        texts = self._generate_program(
            self._params_or_own(params),
            waves,
            mask_of(self._speech, waves, attention_mask),
            self._first_tokens(merged, len(waves)),
            jax.random.key(0) if prng_key is None else prng_key,
            settings=settings,
        )
        longest = int(texts.num_tokens.max())
        sequences = texts.sequences.reshape(-1, settings.max_length)[:, :longest]
        scores = texts.scores.reshape(-1) if settings.num_beams > 1 else None
        return FlaxGenerateOutput(sequences=sequences, sequences_scores=scores)

    def _first_tokens(self, options: GenerationConfig, rows: int) -> Any:  # noqa: ANN401 - an array of NumPy
        """Return the token (B, 1) that each text begins with."""
        return np.broadcast_to(np.asarray(options.start_tokens(self.config), np.int32).reshape(-1, 1), (rows, 1))

    def _generate(
        self, params: Tree, waves_BS: Array, mask_BS: Array, first_B1: Array, key: Array, settings: Settings
    ) -> Texts:
        encoded, _ = self._encode(params, waves_BS, mask_BS)
        variables, room = self._variables(params), settings.max_length - 1
        frames_BTH = self._apply(variables, encoded.hidden_BTH, method="project")

        def step(ids_RL: Array, cache: FlaxCache) -> tuple[Array, FlaxCache]:
            num_new = ids_RL.shape[1]
            run = DecoderPass(
                allowed=token_mask(None, num_new, cache.num_tokens, room),
                frames_BSH=frames_BTH,
                frames_allowed=attended_keys(encoded.valid_BT),
                cache=cache,
            )
            places = cache.num_tokens + jnp.arange(num_new)
            logits_RLV = self._apply(variables, ids_RL, places, run, method="decode")
            after = run.new_cache(num_new)
            assert after is not None
            return logits_RLV.astype(jnp.float32), after

        cache = self._empty_cache(len(first_B1), room)
        start = Start(settings, step, changes_of(settings), first_B1, cache, key)
        return beam_search(start) if settings.num_beams > 1 else token_by_token(start)
