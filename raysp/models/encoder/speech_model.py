"""The base of models on an encoder of speech: what heads ask of it, whatever the encoder.

Legend: B batch, S samples or frames of features, T frames.
"""

from typing import ClassVar

import torch
from torch import Tensor

from raysp.models.base.batches import warn_of_unknown_ends
from raysp.models.base.modeling import Count, Model
from raysp.models.base.outputs import BaseModelOutput, Wav2Vec2BaseModelOutput
from raysp.models.encoder.heads import States
from raysp.models.files.configuration import Config


class EncoderConfig(Config):
    """The fields that heads read; an architecture's configuration has them with its defaults."""

    vocab_size: int | None
    hidden_size: int
    num_hidden_layers: int
    final_dropout: float
    ctc_loss_reduction: str
    ctc_zero_infinity: bool
    use_weighted_layer_sum: bool
    classifier_proj_size: int
    pad_token_id: int | None


class SpeechModel(Model):
    """An encoder of speech, or a model with a head on one.

    Inputs are samples or frames of features, whichever the encoder takes.
    """

    config: EncoderConfig
    input_axes: ClassVar[str] = "(B, S)"
    """Shape of what the encoder takes."""

    def build_base(self) -> "SpeechModel":
        """Make the model that a head stands on."""
        raise NotImplementedError

    @property
    def base_model(self) -> "SpeechModel":
        """The model below the head, or the model itself."""
        base: SpeechModel = getattr(self, self.base_model_prefix, self)
        return base

    def check_inputs(self, inputs: Tensor, mask_BS: Tensor | None) -> None:
        """Raise ValueError for inputs or a mask of another shape; warn of padded rows without a mask, on a CPU."""
        num_axes = self.input_axes.count(",") + 1
        if inputs.dim() != num_axes:
            advice = "add the axis of the batch, x[None]" if inputs.dim() == num_axes - 1 else "reshape it"
            raise ValueError(
                f"{type(self).__name__} was given an input of shape {tuple(inputs.shape)!r}, expected "
                f"{self.input_axes}: {advice}"
            )
        if mask_BS is not None:
            if mask_BS.shape != inputs.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {tuple(mask_BS.shape)!r}, expected {tuple(inputs.shape[:2])!r} as the "
                    "input of the same call"
                )
        elif len(inputs) > 1 and inputs.device.type == "cpu" and not torch.compiler.is_compiling():
            is_padded_B = self._seems_padded(inputs)
            if bool(is_padded_B.any()) and not bool(is_padded_B.all()):
                warn_of_unknown_ends()

    def _seems_padded(self, inputs: Tensor) -> Tensor:
        """Tell which rows (B,) end in one value for as long as the shortest input."""
        end_BS = inputs[:, -self.min_samples :]
        return (end_BS == end_BS[:, -1:]).all(-1)

    def encode(
        self,
        inputs: Tensor,
        mask_BS: Tensor | None = None,
        /,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        states: States | None = None,
    ) -> BaseModelOutput | Wav2Vec2BaseModelOutput:
        """Do what `forward` does, and always return the named output; `states` takes hidden states, too."""
        raise NotImplementedError

    def _get_feat_extract_output_lengths(self, input_lengths: Count) -> Count:
        """Return the frames that inputs of these lengths give; below 0 for too short ones."""
        raise NotImplementedError

    def _get_feature_vector_attention_mask(self, feature_vector_length: int, attention_mask: Tensor) -> Tensor:
        """Return valid_BT for a mask over inputs."""
        num_frames_B = self._get_feat_extract_output_lengths(attention_mask.sum(-1))
        return self._valid_frames(num_frames_B, feature_vector_length)

    def _valid_frames(self, num_frames_B: Tensor, length: int) -> Tensor:
        return torch.arange(length, device=num_frames_B.device) < num_frames_B[:, None]

    def freeze_feature_encoder(self) -> None:
        """Do nothing: an encoder that reads log-mel features, such as Wav2Vec2-BERT, has no convolutional front end."""

    def freeze_base_model(self) -> None:
        """Train the head alone."""
        self.base_model.requires_grad_(False)
