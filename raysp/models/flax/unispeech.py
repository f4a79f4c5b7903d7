"""UniSpeech (Wang et al. 2021, arXiv:2101.07597) in Flax: the layers of transformer.py."""

from raysp.models.flax.encoders import FlaxEncoderForCTC, FlaxEncoderModel
from raysp.models.flax.transformer import TransformerModule
from raysp.models.unispeech import UniSpeechForCTC, UniSpeechModel


class FlaxUniSpeechModel(FlaxEncoderModel):
    """The encoder without a head."""

    torch_class = UniSpeechModel
    encoder_module = TransformerModule


class FlaxUniSpeechForCTC(FlaxEncoderForCTC):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    torch_class = UniSpeechForCTC
    encoder_module = TransformerModule
