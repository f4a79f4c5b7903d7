"""Fields of small configurations; importable without transformers and pytest."""

TINY = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 24, 24),
    "conv_stride": (5, 2, 3),
    "conv_kernel": (10, 3, 3),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}

TINY_PARAKEET = {
    "vocab_size": 20,
    "pad_token_id": 19,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "subsampling_conv_channels": 8,
    "num_mel_bins": 16,
}
OF_CTC_HEAD = ("vocab_size", "pad_token_id", "ctc_loss_reduction", "ctc_zero_infinity")


def fields_of(name: str, flags):
    """Return the fields of a small configuration, nested where the architecture's are."""
    if not name.startswith("Parakeet"):
        return {**TINY, **flags}
    flags = {**TINY_PARAKEET, **flags}
    of_head = {key: flags.pop(key) for key in OF_CTC_HEAD if key in flags}
    return flags if name == "ParakeetEncoder" else {**of_head, "encoder_config": flags}
