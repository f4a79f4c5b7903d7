"""Small random models in PyTorch, and their Flax sisters loaded from the same folder."""

from typing import Any

import numpy as np
import torch

import raysp.models
from raysp.models import (
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
)

WAVES = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 12),
    "conv_stride": (5, 6),
    "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
STABLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
ENCODERS: dict[str, dict[str, Any]] = {
    "wav2vec2": {},
    "wav2vec2 adapters": {**STABLE, "adapter_attn_dim": 6, "add_adapter": True, "output_hidden_size": 20},
}
VOCAB = 40
TEXT = {"vocab_size": VOCAB, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 16, "max_position_embeddings": 32}
BART = {"vocab_size": VOCAB, "d_model": 12, "encoder_layers": 1, "decoder_layers": 1, "decoder_attention_heads": 2}
BART |= {"decoder_ffn_dim": 16, "max_position_embeddings": 32}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", TEXT),
    "gpt2": ("GPT2", {"vocab_size": VOCAB, "n_embd": 12, "n_layer": 1, "n_head": 2, "n_positions": 32}),
    "bart": ("Bart", {**BART, "scale_embedding": True}),
}
LENGTHS = (900, 700, 333)


def perturbed(model):
    """Make weights large enough that mistakes show; running variances stay positive."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value += 0.2 * (torch.rand_like(value) if bool((value == 1).all()) else torch.randn_like(value))
    return model.eval()


def speech_encoder_decoder(encoder: str, decoder: str, **flags: Any) -> SpeechEncoderDecoderModel:
    """Return a random encoder with a random decoder."""
    torch.manual_seed(0)
    name, values = DECODERS[decoder]
    of_encoder, of_decoder = (
        Wav2Vec2Config(**WAVES, **ENCODERS[encoder]),
        getattr(raysp.models, f"{name}Config")(**values),
    )
    tokens = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, **flags}
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(of_encoder, of_decoder, **tokens)
    return perturbed(SpeechEncoderDecoderModel(config))


def waves_and_mask(lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(mask.shape, generator=generator) * mask, mask.long()


def token_ids(rows=3, length=7):
    return torch.randint(4, VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


def assert_close(ours, theirs, tolerance=1e-4):
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), atol=tolerance, rtol=tolerance)
