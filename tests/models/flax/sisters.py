"""Small random models in PyTorch, and their Flax sisters loaded from the same folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import raysp.models
from raysp.models import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel

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
FEATURES = {**{name: WAVES[name] for name in list(WAVES)[:5]}, "feature_projection_input_dim": 6}
FEATURES |= {"conv_depthwise_kernel_size": 5, "left_max_position_embeddings": 4, "right_max_position_embeddings": 2}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", {}),
    "wav2vec2 adapters": ("Wav2Vec2", {**STABLE, "adapter_attn_dim": 6, "add_adapter": True, "output_hidden_size": 20}),
    "hubert": ("Hubert", {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
    "sew-d": ("SEWD", {"position_buckets": 8, "max_position_embeddings": 32}),
    "sew-d conv": (
        "SEWD",
        {"share_att_key": False, "pos_att_type": ("c2p",), "position_buckets": -1, "max_position_embeddings": 9}
        | {"squeeze_factor": 3, "conv_kernel_size": 3, "norm_rel_ebd": "none"},
    ),
    "wav2vec2-bert": ("Wav2Vec2Bert", {}),
    "wav2vec2-bert relative": (
        "Wav2Vec2Bert",
        {"position_embeddings_type": "relative", "add_adapter": True, "output_hidden_size": 20}
        | {"use_intermediate_ffn_before_adapter": True},
    ),
    "wav2vec2-bert rotary": ("Wav2Vec2Bert", {"position_embeddings_type": "rotary"}),
    "unispeech": ("UniSpeech", {"do_stable_layer_norm": True, "num_conv_pos_embeddings": 7}),
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
    "mbart": ("MBart", BART),
}
LENGTHS = (900, 700, 333)


def perturbed(model):
    """Make weights large enough that mistakes show; running variances stay positive."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value += 0.2 * (torch.rand_like(value) if bool((value == 1).all()) else torch.randn_like(value))
    return model.eval()


def save_encoder(folder: Path, kind: str, head: str = "Model"):
    """Save a random encoder and return it."""
    torch.manual_seed(0)
    prefix, flags = ENCODERS[kind]
    cls = getattr(raysp.models, prefix + head)
    base = FEATURES if prefix == "Wav2Vec2Bert" else WAVES
    model = perturbed(cls(cls.config_class(**{**base, **flags})))
    model.save_pretrained(folder)
    return model


def speech_encoder_decoder(encoder: str, decoder: str, **flags: Any) -> SpeechEncoderDecoderModel:
    """Return a random encoder with a random decoder."""
    torch.manual_seed(0)
    (encoder_prefix, encoder_flags), (decoder_prefix, decoder_flags) = ENCODERS[encoder], DECODERS[decoder]
    base = FEATURES if encoder_prefix == "Wav2Vec2Bert" else WAVES
    of_encoder = getattr(raysp.models, f"{encoder_prefix}Config")(**{**base, **encoder_flags})
    of_decoder = getattr(raysp.models, f"{decoder_prefix}Config")(**decoder_flags)
    tokens = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, **flags}
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(of_encoder, of_decoder, **tokens)
    return perturbed(SpeechEncoderDecoderModel(config))


def waves_and_mask(lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(mask.shape, generator=generator) * mask, mask.long()


def features_and_mask(lengths=(30, 17, 9), width=6):
    waves, mask = waves_and_mask(lengths)
    return waves[:, :, None] * torch.linspace(-1, 1, width), mask


def token_ids(rows=3, length=7):
    return torch.randint(4, VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


def assert_close(ours, theirs, tolerance=1e-4):
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), atol=tolerance, rtol=tolerance)


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module):
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name, value in mine.items() if not torch.equal(value, theirs[name])] == []
