"""The Linen module of a speech encoder and a text decoder, and the modules of both by `model_type`.

Legend: B rows, S samples or frames of features, T frames of the encoder, L tokens, H hidden, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jax import Array

from raysp.models.flax.bart import BartModule, MBartModule
from raysp.models.flax.bert import BertModule
from raysp.models.flax.decoding import DecoderPass
from raysp.models.flax.gpt2 import GPT2Module
from raysp.models.flax.hubert import HubertModule
from raysp.models.flax.layers import Pass, attended_keys
from raysp.models.flax.sew_d import SEWDModule
from raysp.models.flax.transformer import Encoded, TransformerModule
from raysp.models.flax.wav2vec2 import Wav2Vec2Module
from raysp.models.flax.wav2vec2_bert import Wav2Vec2BertModule

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "hubert": HubertModule,
    "sew-d": SEWDModule,
    "unispeech": TransformerModule,
    "wav2vec2": Wav2Vec2Module,
    "wav2vec2-bert": Wav2Vec2BertModule,
}
DECODERS: dict[str, Callable[..., nn.Module]] = {
    "bart": BartModule,
    "bert": BertModule,
    "gpt2": GPT2Module,
    "mbart": MBartModule,
}


class SpeechEncoderDecoderModule(nn.Module):
    """Encoder, projection and decoder."""

    config: Any

    def setup(self) -> None:
        """Create encoder, projection and decoder."""
        config = self.config
        self.encoder = ENCODERS[config.encoder.model_type](config.encoder)
        self.decoder = DECODERS[config.decoder.model_type](config.decoder)
        if config.has_projection:
            self.enc_to_dec_proj = nn.Dense(config.decoder.hidden_size)

    def encode(self, inputs: Array, mask_BS: Array, run: Pass) -> Encoded:
        """Return the encoder's frames."""
        encoded: Encoded = self.encoder(inputs, mask_BS, run)
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
        self, inputs: Array, mask_BS: Array, ids_BL: Array, positions: Array, run: Pass, of_decoder: DecoderPass
    ) -> tuple[Array, Array]:
        """Return the projected frames and logits_BLV."""
        encoded = self.encode(inputs, mask_BS, run)
        of_decoder.frames_BSH = self.project(encoded.hidden_BTH)
        of_decoder.frames_allowed = attended_keys(encoded.valid_BT)
        return of_decoder.frames_BSH, self.decode(ids_BL, positions, of_decoder)
