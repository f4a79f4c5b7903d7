"""Small random models in PyTorch, whose Flax sisters are loaded from the same folder."""

import torch

from raysp import models

VOCAB = 50
WAVES = {
    "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (8, 12), "conv_stride": (5, 6), "conv_kernel": (10, 8), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
STABLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
ENCODERS = {
    "wav2vec2": {},
    "wav2vec2 adapters": {**STABLE, "adapter_attn_dim": 6, "add_adapter": True, "output_hidden_size": 20},
}
TEXT = {"vocab_size": VOCAB, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
BART = {
    "vocab_size": VOCAB, "d_model": 12, "encoder_layers": 1, "decoder_layers": 1, "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16, "max_position_embeddings": 32,
}  # fmt: skip
DECODERS = {
    "bert": ("Bert", {**TEXT, "intermediate_size": 16, "max_position_embeddings": 32}),
    "gpt2": ("GPT2", {"vocab_size": VOCAB, "n_embd": 12, "n_layer": 1, "n_head": 2, "n_positions": 32}),
    "bart": ("Bart", {**BART, "scale_embedding": True}),
}


def speech_encoder_decoder(encoder: str, decoder: str) -> models.SpeechEncoderDecoderModel:
    """Return a random encoder with a random decoder, weights large enough that mistakes show."""
    torch.manual_seed(0)
    name, fields = DECODERS[decoder]
    config = models.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        models.Wav2Vec2Config(**WAVES, **ENCODERS[encoder]),
        getattr(models, f"{name}Config")(**fields),
        **{"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3},
    )
    model = models.SpeechEncoderDecoderModel(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value += 0.2 * torch.randn_like(value)
    return model
