"""Bases of Flax encoders of speech: without a head, and with one for CTC.

Legend: B batch, S samples or frames of features, T frames, V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from raysp.models.base.modeling import asked
from raysp.models.base.outputs import ModelOutput
from raysp.models.encoder.heads import NOT_BLANK
from raysp.models.encoder.speech_model import SpeechModel
from raysp.models.flax.grid import Batch, batch_of, cut, cut_all, keep_shape
from raysp.models.flax.layers import Pass, dropout
from raysp.models.flax.modeling import FlaxModel, rngs_of
from raysp.models.flax.outputs import FlaxBaseModelOutput, FlaxCausalLMOutput, FlaxWav2Vec2BaseModelOutput
from raysp.models.flax.transformer import Encoded

SWITCHES = ("train", "with_states", "with_weights", "freezes_features")
"""Arguments of a pass that select a program."""


class Collected(NamedTuple):
    """Result of an encoder's pass on the grid."""

    encoded: Any
    states: tuple[Array, ...]
    attentions: tuple[Array, ...]


class Frames(NamedTuple):
    """Numbers of frames of a batch as it was given."""

    last: int
    """Number of frames of `last_hidden_state`."""
    hidden: int
    """Number of frames of `hidden_states`, which precede an adapter."""


class CTCModule(nn.Module):
    """An encoder with a linear head over the vocabulary."""

    encoder_module: Callable[..., nn.Module]
    prefix: str
    config: Any

    @nn.compact
    def __call__(self, inputs: Array, mask_BS: Array, run: Pass) -> Array:
        """Return logits_BTV; after a row's end the blank has the probability 1."""
        config = self.config
        encoded: Encoded = self.encoder_module(config, name=self.prefix)(inputs, mask_BS, run)
        hidden_BTH = dropout(encoded.hidden_BTH, config.final_dropout, run)
        logits_BTV = nn.Dense(config.vocab_size, name="lm_head")(hidden_BTH)
        blank_V = jnp.where(jnp.arange(config.vocab_size) == config.pad_token_id, 0.0, NOT_BLANK)
        labelled_BT = encoded.valid_BT if encoded.labelled_BT is None else encoded.labelled_BT
        return jnp.where(labelled_BT[:, :, None], logits_BTV, blank_V.astype(logits_BTV.dtype))


class FlaxSpeechModel(FlaxModel):
    """An encoder of speech, or one with a head."""

    encoder_module: ClassVar[Callable[..., nn.Module]]

    @property
    def torch_sister(self) -> SpeechModel:
        """The PyTorch model without weights, which knows lengths."""
        assert isinstance(self._sister, SpeechModel)
        return self._sister

    def _compile(self) -> None:
        self._program = jax.jit(self._collect, static_argnames=SWITCHES)

    def _collect(self, params: Any, inputs: Array, mask_BS: Array, rngs: Any, **switches: Any) -> Collected:  # noqa: ANN401
        run = Pass(**switches)
        encoded = self._apply(self._variables(params), inputs.astype(self.dtype), mask_BS != 0, run, rngs=rngs)
        return Collected(encoded, tuple(run.states), tuple(run.attentions))

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
        """Encode speech: return frames, or logits (B, T, V) of which those after a row's end have the blank.

        Args:
            input_values: (B, S) normalised samples, or (B, S, F) features.
            attention_mask: (B, S), nonzero for samples or feature frames of the row, which come first; None: all.
            params: Parameters in place of the model's.
            dropout_rng: Key of dropout, needed with `train`.
            train: Turn dropout on.
            output_attentions: Return `attentions`; None: as configured.
            output_hidden_states: Return `hidden_states`; None: as configured.
            freeze_feature_encoder: Stop gradients at the front end.
            return_dict: False returns a plain tuple.
        """
        fixed = keep_shape(input_values, attention_mask)
        batch = speech_batch(self.torch_sister, input_values, attention_mask, fixed)
        encoded, states, attentions = self._program(
            self._given(params),
            batch.inputs,
            batch.mask,
            rngs_of(dropout_rng, train),
            train=train,
            with_states=asked(output_hidden_states, self.config.output_hidden_states),
            with_weights=asked(output_attentions, self.config.output_attentions),
            freezes_features=freeze_feature_encoder,
        )
        frames = frames_of(self.torch_sister, batch)
        noted: Any = {
            "hidden_states": cut_all(states, batch.rows, frames.hidden) or None,
            "attentions": cut_all(attentions, batch.rows, None, frames.hidden, frames.hidden) or None,
        }
        return self._returned(self._output(encoded, batch.rows, frames, noted), return_dict)

    def _output(self, encoded: Any, rows: int, frames: Frames, noted: Any) -> ModelOutput:  # noqa: ANN401
        """Return the output of these rows and frames, with states and weights."""
        raise NotImplementedError


class FlaxEncoderModel(FlaxSpeechModel):
    """An encoder without a head."""

    def build_module(self) -> nn.Module:
        """Return the Linen module."""
        return type(self).encoder_module(self.config)

    def _output(self, encoded: Encoded, rows: int, frames: Frames, noted: Any) -> ModelOutput:  # noqa: ANN401
        last = cut(encoded.hidden_BTH, rows, frames.last)
        if not getattr(self.torch_class, "gives_features", False):
            return FlaxBaseModelOutput(last_hidden_state=last, **noted)
        features = cut(encoded.features_BTC, rows, frames.hidden)
        return FlaxWav2Vec2BaseModelOutput(last_hidden_state=last, extract_features=features, **noted)


class FlaxEncoderForCTC(FlaxSpeechModel):
    """An encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    def build_module(self) -> nn.Module:
        """Return the Linen module."""
        return CTCModule(type(self).encoder_module, self.torch_class.base_model_prefix, self.config)

    def _output(self, encoded: Array, rows: int, frames: Frames, noted: Any) -> ModelOutput:  # noqa: ANN401
        return FlaxCausalLMOutput(logits=cut(encoded, rows, frames.last), **noted)


def takes_features(sister: SpeechModel) -> bool:
    """Return whether the inputs are features and not samples."""
    return sister.input_axes.count(",") == 2


def speech_batch(sister: SpeechModel, inputs: Any, mask: Any, is_fixed: bool) -> Batch:  # noqa: ANN401 - arrays
    """Return inputs on the grid, checked; a size of it is a number of hidden frames."""
    check_axes(sister, inputs)
    return batch_of(inputs, mask, 1 if takes_features(sister) else sister.hidden_stride, is_fixed=is_fixed)


def frames_of(sister: SpeechModel, batch: Batch) -> Frames:
    """Return the numbers of frames for the inputs that were given."""
    last = sister._get_feat_extract_output_lengths(batch.length)
    return Frames(last, batch.length if takes_features(sister) else sister.num_hidden_frames(batch.length))


def check_axes(sister: SpeechModel, inputs: Any) -> None:  # noqa: ANN401 - an array of either kind
    """Raise ValueError unless an input has the encoder's axes and is long enough for one frame."""
    expected = sister.input_axes.count(",") + 1
    if inputs.ndim != expected:
        raise ValueError(
            f"{type(sister).__name__} was given an input of shape {tuple(inputs.shape)!r}, expected "
            f"{sister.input_axes}: add the batch axis, or choose the other kind of input"
        )
    if not takes_features(sister) and inputs.shape[1] < sister.min_samples:
        raise ValueError(f"input has {inputs.shape[1]} samples, the model needs at least {sister.min_samples}")
