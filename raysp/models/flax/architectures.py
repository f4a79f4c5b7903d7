"""Modules of Flax by `model_type`; a new architecture is one module and one line."""

from collections.abc import Callable

from flax import linen as nn

from raysp.models.flax.bart import BartModule, MBartModule
from raysp.models.flax.bert import BertModule
from raysp.models.flax.gpt2 import GPT2Module
from raysp.models.flax.hubert import HubertModule
from raysp.models.flax.transformer import TransformerModule
from raysp.models.flax.wav2vec2 import Wav2Vec2Module

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "hubert": HubertModule,
    "unispeech": TransformerModule,
    "wav2vec2": Wav2Vec2Module,
}
DECODERS: dict[str, Callable[..., nn.Module]] = {
    "bart": BartModule,
    "bert": BertModule,
    "gpt2": GPT2Module,
    "mbart": MBartModule,
}
