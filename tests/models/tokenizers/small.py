"""Fields of small configurations; importable without transformers and pytest."""

OF_ALL = {"vocab_size": 20, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
TINY = {
    **OF_ALL,
    **POSITIONS,
    "num_hidden_layers": 2,
    "conv_dim": (16, 24, 24),
    "conv_stride": (5, 2, 3),
    "conv_kernel": (10, 3, 3),
}
TINY_PARAKEET = {
    **OF_ALL,
    "num_hidden_layers": 2,
    "pad_token_id": 19,
    "subsampling_conv_channels": 8,
    "num_mel_bins": 16,
}
TINY_SEW_D = {
    **OF_ALL,
    **POSITIONS,
    "num_hidden_layers": 3,
    "position_buckets": 16,
    "max_position_embeddings": 40,
    "conv_dim": (8, 16, 24),
    "conv_stride": (5, 2, 1),
    "conv_kernel": (10, 3, 1),
    "classifier_proj_size": 12,
}
TINY_WAV2VEC2_BERT = {
    **OF_ALL,
    "num_hidden_layers": 3,
    "feature_projection_input_dim": 10,
    "conv_depthwise_kernel_size": 7,
    "left_max_position_embeddings": 12,
    "right_max_position_embeddings": 3,
    "classifier_proj_size": 12,
    "tdnn_dim": (16, 16, 16, 16, 24),
    "xvector_output_dim": 14,
}
OF_CTC_HEAD = ("vocab_size", "pad_token_id", "ctc_loss_reduction", "ctc_zero_infinity")
TINY_TRANSDUCER = {"pad_token_id": 2, "blank_token_id": 19, "decoder_hidden_size": 24, "num_decoder_layers": 2}
OF_TRANSDUCER = ("vocab_size", *TINY_TRANSDUCER, "hidden_act", "max_symbols_per_step", "durations")


def fields_of(name: str, flags):
    """Return the fields of a small configuration, nested where the architecture's are."""
    if name.startswith("SEWD"):
        return {**TINY_SEW_D, **flags}
    if name.startswith("Wav2Vec2Bert"):
        return {**TINY_WAV2VEC2_BERT, **flags}
    if not name.startswith("Parakeet"):
        return {**TINY, **flags}
    if name.endswith(("RNNT", "TDT")):
        given = {**TINY_PARAKEET, **TINY_TRANSDUCER, **flags}
        own = {key: given.pop(key) for key in OF_TRANSDUCER if key in given}
        return {**own, "encoder_config": given.pop("encoder_config", {}) | given}
    flags = {**TINY_PARAKEET, **flags}
    of_head = {key: flags.pop(key) for key in OF_CTC_HEAD if key in flags}
    return flags if name == "ParakeetEncoder" else {**of_head, "encoder_config": flags}
