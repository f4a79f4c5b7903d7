"""wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477) in Flax: front end, layers and adapter.

Legend: B batch, S samples, T frames, C channels of the front end, H hidden.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from raysp.models.encoder.adapters import adapted_frames
from raysp.models.encoder.speech_model import SpeechModel
from raysp.models.flax.decoding import Noted
from raysp.models.flax.layers import Part, Pass, dense, is_before, norm, numbered, part, without_padding
from raysp.models.flax.modeling import SWITCHES, FlaxModel, Keys, Switches, rngs_of
from raysp.models.flax.outputs import FlaxWav2Vec2BaseModelOutput
from raysp.models.flax.transformer import encoder, feature_projection
from raysp.models.flax.waveform import feature_extractor, num_frames_of
from raysp.models.flax.weights import Tree
from raysp.models.wav2vec2 import Wav2Vec2Config, Wav2Vec2Model


class Encoded(NamedTuple):
    """Output of the encoder's module."""

    hidden_BTH: Array
    features_BTC: Array
    valid_BT: Array
    """True where a frame of `hidden_BTH` is part of its row."""


def adapter_layer(config: Wav2Vec2Config, index: int, x: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return about one frame per `adapter_stride` frames, by a convolution with a gate, and the numbers of frames."""
    hidden_BTH, num_frames_B = x
    hidden_BTH = without_padding(hidden_BTH, is_before(num_frames_B, hidden_BTH.shape[1]))
    padding, width = [(config.adapter_padding, config.adapter_padding)], 2 * hidden_BTH.shape[-1]
    conv = nn.Conv(width, (config.adapter_kernel_size,), (config.adapter_stride,), padding, name="conv")
    counts: Any = num_frames_B
    gated_BTH: Array = jax.nn.glu(conv(hidden_BTH))
    return gated_BTH, adapted_frames(counts, config)


def adapter(config: Wav2Vec2Config, hidden_BTH: Array, num_frames_B: Array) -> tuple[Array, Array]:
    """Return fewer frames of a text decoder's width, at about the rate of text, and their numbers."""
    width = config.adapter_size
    if width != config.hidden_size:
        hidden_BTH = norm("proj_layer_norm", dense("proj", width, hidden_BTH))
    return numbered("layers", config.num_adapter_layers, partial(adapter_layer, config), (hidden_BTH, num_frames_B))


def wav2vec2(config: Wav2Vec2Config, waves_BS: Array, mask_BS: Array, run: Pass) -> Encoded:
    """Return the output for waveforms (B, S) and the mask of their samples."""
    num_samples_B = mask_BS.sum(-1)
    features_BTC = part("feature_extractor", feature_extractor, config, waves_BS, num_samples_B, run)
    num_frames_B = num_frames_of(num_samples_B, config.conv_kernel, config.conv_stride)
    hidden_BTH, features_BTC = part("feature_projection", feature_projection, config, features_BTC, run)
    hidden_BTH = part("encoder", encoder, config, hidden_BTH, is_before(num_frames_B, hidden_BTH.shape[1]), run)
    if config.add_adapter:
        hidden_BTH, num_frames_B = part("adapter", adapter, config, hidden_BTH, num_frames_B)
    return Encoded(hidden_BTH, features_BTC, is_before(num_frames_B, hidden_BTH.shape[1]))


class FlaxWav2Vec2Model(FlaxModel):
    """The encoder without a head."""

    torch_class = Wav2Vec2Model
    _sister: Wav2Vec2Model

    def build_module(self) -> nn.Module:
        """Return the Linen module."""
        return Part(partial(wav2vec2, self.config))

    def _compile(self) -> None:
        self._program = jax.jit(self._encode, static_argnames=SWITCHES)

    def __call__(
        self,
        input_values: Any,  # noqa: ANN401 - an array of either kind
        attention_mask: Any = None,  # noqa: ANN401 - an array of either kind
        *,
        params: Mapping[str, Any] | None = None,
        dropout_rng: Any = None,  # noqa: ANN401 - a key
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        freeze_feature_encoder: bool = False,
        return_dict: bool | None = None,
    ) -> Any:  # noqa: ANN401 - the output, or a tuple
        """Encode speech.

        Args:
            input_values: (B, S) normalised samples.
            attention_mask: (B, S), nonzero for samples of the row, which come first; None: all.
            params: Parameters in place of the model's.
            dropout_rng: Key of dropout, needed with `train`.
            train: Turn dropout on.
            output_attentions: Return `attentions`; None: as configured.
            output_hidden_states: Return `hidden_states`; None: as configured.
            freeze_feature_encoder: Stop gradients at the front end.
            return_dict: False returns a plain tuple.
        """
        mask_BS = mask_of(self._sister, input_values, attention_mask)
        encoded, run = self._program(
            self._params_or_own(params),
            input_values,
            mask_BS,
            rngs_of(dropout_rng, train),
            **self._switches(train, output_attentions, output_hidden_states, freeze_feature_encoder),
        )
        output = FlaxWav2Vec2BaseModelOutput(
            last_hidden_state=encoded.hidden_BTH,
            extract_features=encoded.features_BTC,
            hidden_states=run.hidden_states,
            attentions=run.attentions,
        )
        return self._sister.returned(output, return_dict)

    def _encode(
        self, params: Tree, waves_BS: Array, mask_BS: Array, rngs: Keys, **switches: Unpack[Switches]
    ) -> tuple[Encoded, Noted]:
        """Return the encoder's frames, with states and weights."""
        run, variables = Pass(**switches), self._variables(params)
        encoded: Encoded = self._apply(variables, waves_BS.astype(self.dtype), mask_BS != 0, run, rngs=rngs)
        return encoded, Noted.of(run)


def mask_of(sister: SpeechModel, waves: Any, mask: Any) -> Any:  # noqa: ANN401 - arrays of either kind
    """Return the mask (B, S) of samples, which may be None, once shapes are checked.

    Raises:
        ValueError: The input is not (B, S), too short for one frame, or has a mask of another shape.
    """
    shape = tuple(waves.shape)
    if len(shape) != 2:
        raise ValueError(f"{type(sister).__name__} was given an input of shape {shape!r}, expected (B, S) samples")
    if shape[1] < sister.min_samples:
        raise ValueError(f"input has {shape[1]} samples, the model needs at least {sister.min_samples}")
    if mask is None:
        return jnp.ones(shape, bool)
    if tuple(mask.shape) != shape:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)!r}, expected {shape!r} like the input")
    return mask
