"""Tiny random recognisers of models that also read images, follow streams or find speakers, a folder for each."""

from pathlib import Path

from tests.backends.recognisers.tiny import CHAT, saved, tokenizer
from tests.models.oracles import transformers as T

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def nemo_speechlm(folder: Path) -> Path:
    made = tokenizer(["<spk:0>", "<spk:1>", "<|audio|>"], padding_side="left")
    audio = made.convert_tokens_to_ids("<|audio|>")  # the last token, without a row of embeddings
    thinking = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    processor = T.Nemotron3_5TranscribeProcessor(
        T.NemotronAsrStreamingFeatureExtractor(feature_size=128), made, tokenizer([]),
        chat_template=CHAT.replace("AUDIO", "<|audio|>") + thinking,
    )  # fmt: skip
    speakers = {
        "model_type": "nemotron3_diarization", "audio_config": SIZES, "chunk_length": 500, "chunk_left_context": 50,
        "head_config": {"hidden_size": 16, "audio_hidden_size": 32}, "chunk_right_context": 50,
        "streaming_config": {"speaker_cache_length": 188},
    }  # fmt: skip
    text = {
        "model_type": "nemotron_h", "vocab_size": audio, "hybrid_override_pattern": "M*E-", "hidden_size": 32,
        "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1, "chunk_size": 16,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 32,
    }  # fmt: skip
    config = T.Nemotron3_5TranscribeConfig(
        audio_config={"asr_config": SIZES, "diarization_config": speakers, "speaker_activity_threshold": 0.487},
        text_config=text, word_timestamp_config={**SIZES, "vocab_size": 20, "blank_token_id": 19}, audio_token_id=audio,
    )  # fmt: skip
    return saved(folder, "Nemotron3_5TranscribeForConditionalGeneration", config, processor)


OMNI_BUILDERS = {
    "nemo_speechlm": nemo_speechlm,
}
