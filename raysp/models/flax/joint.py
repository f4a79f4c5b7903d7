"""The Linen module of a speech encoder and a text decoder.

Legend: B rows, S samples, T frames of the encoder, L tokens, H hidden, V vocabulary.
"""

from functools import partial
from typing import Any

from flax import linen as nn
from jax import Array

from raysp.errors import CheckpointError
from raysp.models.flax.decoding import DecoderPass
from raysp.models.flax.layers import Part, Pass, attended_keys
from raysp.models.flax.text_decoder import DECODERS
from raysp.models.flax.wav2vec2 import Encoded, wav2vec2

ENCODERS = {"wav2vec2": wav2vec2}


def check_parts(config: Any) -> None:  # noqa: ANN401 - of a speech-encoder-decoder
    """Raise CheckpointError if a part has no Flax module."""
    for name, part, modules in (("encoder", config.encoder, ENCODERS), ("decoder", config.decoder, DECODERS)):
        if part.model_type not in modules:
            raise CheckpointError(
                f"{name} has model_type {part.model_type!r}, expected {' or '.join(modules)} in JAX: use "
                "SpeechEncoderDecoderModel, which has the others"
            )


class SpeechEncoderDecoderModule(nn.Module):
    """Encoder, projection and decoder."""

    config: Any

    def setup(self) -> None:
        """Create encoder, projection and decoder."""
        config = self.config
        self.encoder = Part(partial(ENCODERS[config.encoder.model_type], config.encoder))
        self.decoder = Part(partial(DECODERS[config.decoder.model_type], config.decoder))
        if config.has_projection:
            self.enc_to_dec_proj = nn.Dense(config.decoder.hidden_size)

    def encode(self, waves_BS: Array, mask_BS: Array, run: Pass) -> Encoded:
        """Return the encoder's frames."""
        encoded: Encoded = self.encoder(waves_BS, mask_BS, run)
        return encoded

    def project(self, hidden_BTH: Array) -> Array:
        """Return frames of the decoder's width."""
        frames_BTH: Array = self.enc_to_dec_proj(hidden_BTH) if self.config.has_projection else hidden_BTH
        return frames_BTH

    def decode(self, ids_BL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return logits_BLV."""
        logits_BLV: Array = self.decoder(ids_BL, positions, run)
        return logits_BLV

    def __call__(
        self, waves_BS: Array, mask_BS: Array, ids_BL: Array, positions: Array, run: Pass, of_decoder: DecoderPass
    ) -> tuple[Array, Array]:
        """Return the projected frames and logits_BLV."""
        encoded = self.encode(waves_BS, mask_BS, run)
        of_decoder.frames_BSH = self.project(encoded.hidden_BTH)
        of_decoder.frames_allowed = attended_keys(encoded.valid_BT)
        return of_decoder.frames_BSH, self.decode(ids_BL, positions, of_decoder)
