"""Tiny random models of more media, streams, speakers or tokens of mistral-common; and builders of all model types."""

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tests.backends.recognisers.tiny import CHAT, LLAMA, TEXT, TINY_BUILDERS, saved, tokenizer
from tests.backends.recognisers.tiny_ctc import TRANSDUCER_BUILDERS
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


QWEN = {
    "audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
    "image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>", "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}  # fmt: skip
"""Tokens of an omni processor of Qwen."""
QWEN_MEDIA = ("audio", "image", "video")
QWEN_BORDERS = {
    "audio_start_token_id": "audio_bos_token", "audio_end_token_id": "audio_eos_token",
    "vision_start_token_id": "vision_bos_token", "vision_end_token_id": "vision_eos_token",
}  # fmt: skip
ENCODER = {
    "num_mel_bins": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "d_model": 32,
    "output_dim": 32,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}


class OmniFiles:
    """Files of a processor with a part for images, as they are published; no package for images is needed."""

    def __init__(self, name: str, extractor: Any, tokenizer: Any) -> None:
        self.name, self.extractor, self.tokenizer = name, extractor, tokenizer

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        images = {"image_processor_type": "Qwen2VLImageProcessor", "merge_size": 2, "patch_size": 14}
        settings = {**self.extractor.to_dict(), **images, "processor_class": self.name}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        template = CHAT.replace("AUDIO", "<|audio_bos|><|AUDIO|><|audio_eos|>")
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def published(folder: Path, file: str, **values: Any) -> Path:
    """Write other values into a JSON file of a checkpoint; None removes a value."""
    values = {**json.loads((folder / file).read_text()), **values}
    (folder / file).write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return folder


def qwen2_5_omni(folder: Path) -> Path:
    made = tokenizer([*QWEN.values()], extra_special_tokens=QWEN, padding_side="left")
    tokens = {f"{name}_token_index": made.convert_tokens_to_ids(QWEN[f"{name}_token"]) for name in QWEN_MEDIA}
    tokens |= {name: made.convert_tokens_to_ids(QWEN[token]) for name, token in QWEN_BORDERS.items()}
    text = {**TEXT, "vocab_size": len(made), "rope_parameters": ROPE}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    thinker = {
        "text_config": text, "audio_config": ENCODER, "vision_config": vision, **tokens,
        "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id,
    }  # fmt: skip
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "head_dim": 8, "num_embeds": 64}
    widths = {f"enc_{name}": 16 for name in ("emb_dim", "dim", "attention_channels", "se_channels")}
    config = T.Qwen2_5OmniConfig(
        thinker_config=thinker, talker_config={**text, **tokens, "vocab_size": 64, "embedding_size": 32},
        token2wav_config={
            "dit_config": {**small, **widths, "emb_dim": 16, "enc_channels": [16] * 5},
            "bigvgan_config": {"upsample_initial_channel": 64},
        },
    )  # fmt: skip
    extractor = T.WhisperFeatureExtractor(feature_size=32, chunk_length=300, return_attention_mask=True)
    files = OmniFiles("Qwen2_5OmniProcessor", extractor, made)
    saved(folder, "Qwen2_5OmniForConditionalGeneration", config, files)
    torch.save({"Chelsie": {"bos_token": 1}}, folder / "spk_dict.pt")
    published(folder, "config.json", architectures=["Qwen2_5OmniModel"])
    return published(folder, "generation_config.json", eos_token_id=None, pad_token_id=None)


def qwen3_omni_moe(folder: Path) -> Path:
    made = tokenizer([*QWEN.values()], extra_special_tokens=QWEN, padding_side="left")
    tokens = {f"{name}_token_id": made.convert_tokens_to_ids(QWEN[f"{name}_token"]) for name in QWEN_MEDIA}
    tokens |= {name: made.convert_tokens_to_ids(QWEN[token]) for name, token in QWEN_BORDERS.items()}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    text = {**TEXT, **experts, "vocab_size": len(made), "rope_parameters": ROPE}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = T.Qwen3OmniMoeConfig(
        thinker_config={
            "text_config": text, "audio_config": {**ENCODER, "downsample_hidden_size": 16}, **tokens,
            "vision_config": {**vision, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        },
        talker_config={
            "text_config": {**text, "shared_expert_intermediate_size": 32}, "thinker_hidden_size": 32, **tokens,
            "code_predictor_config": {**TEXT, "num_code_groups": 4, "vocab_size": 64}, "num_code_groups": 4,
            "spatial_merge_size": 2,
        },
        code2wav_config={
            "codebook_size": 64, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4,
            "intermediate_size": 64, "num_hidden_layers": 1, "num_quantizers": 4, "decoder_dim": 64,
        },
        im_end_token_id=made.eos_token_id,
    )  # fmt: skip
    extractor = T.WhisperFeatureExtractor(feature_size=32, chunk_length=300, return_attention_mask=True)
    files = OmniFiles("Qwen3OmniMoeProcessor", extractor, made)
    saved(folder, "Qwen3OmniMoeForConditionalGeneration", config, files)
    return published(folder, "generation_config.json", eos_token_id=None, pad_token_id=None)


def phi4_multimodal(folder: Path) -> Path:
    names = {"audio_token": "<|audio|>", "image_token": "<|image|>"}
    made = tokenizer([*names.values(), "<|user|>", "<|end|>", "<|assistant|>"], extra_special_tokens=names)
    ids = made.get_vocab()
    audio = {
        "hidden_size": 32, "intermediate_size": 64, "num_blocks": 2, "num_attention_heads": 4, "ext_pw_out_channel": 32,
        "depthwise_separable_out_channel": 32, "nemo_conv_channels": 16, "audio_token_id": ids["<|audio|>"],
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56,
        "crop_size": 56, "image_token_id": ids["<|image|>"], "feature_layer": -1,
    }  # fmt: skip
    text = {name: value for name, value in TEXT.items() if name != "head_dim"}
    config = T.Phi4MultimodalConfig(
        **text, vocab_size=len(made), audio_config=audio, vision_config=vision, pad_token_id=made.pad_token_id,
        bos_token_id=made.bos_token_id, eos_token_id=made.eos_token_id,
    )  # fmt: skip
    files = OmniFiles("Phi4MultimodalProcessor", T.Phi4MultimodalFeatureExtractor(), made)
    saved(folder, "Phi4MultimodalForCausalLM", config, files)
    torch.manual_seed(2)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["qkv_proj", "down_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT about transformers
        model = get_peft_model(T.Phi4MultimodalForCausalLM.from_pretrained(folder), lora)
    model.save_pretrained(folder / "speech-lora")
    return folder


def kyutai_speech_to_text(folder: Path) -> Path:
    made = tokenizer([])
    codec = {
        "model_type": "mimi", "hidden_size": 32, "num_filters": 4, "codebook_size": 32, "codebook_dim": 16,
        "num_quantizers": 4, "vector_quantization_hidden_dimension": 16, "upsample_groups": 32, "num_hidden_layers": 1,
        "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
    }  # fmt: skip
    config = T.KyutaiSpeechToTextConfig(
        codebook_vocab_size=33, vocab_size=len(made), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        ffn_dim=64, num_codebooks=4, audio_bos_token_id=32, audio_pad_token_id=len(made) + 4 * 33,
        pad_token_id=made.pad_token_id, bos_token_id=made.bos_token_id, codec_config=codec,
    )  # fmt: skip
    extractor = T.KyutaiSpeechToTextFeatureExtractor(audio_delay_seconds=0.5, audio_silence_prefix_seconds=0.2)
    saved(folder, "KyutaiSpeechToTextForConditionalGeneration", config, T.KyutaiSpeechToTextProcessor(extractor, made))
    others = json.loads((folder / "generation_config.json").read_text())["suppress_tokens"]
    others.remove(made.pad_token_id)  # written for frames without a word
    settings = {"eos_token_id": None, "cache_implementation": "static", "suppress_tokens": others}
    return published(folder, "generation_config.json", **settings)


def _tekken(file: Path, version: str, special: dict[int, str], **audio: Any) -> Any:
    """Write a tokenizer of bytes in the format of mistral-common."""
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
    names += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"]
    names += ["[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]"]
    tokens = [special.get(place, f"<SPECIAL_{place}>") for place in range(40)]
    tokens[: len(names)] = names
    letters = [{"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode()} for byte in range(256)]
    audio |= {"sampling_rate": 16_000, "frame_rate": 12.5}
    audio["audio_encoding_config"] = {"num_mel_bins": 128, "hop_length": 160, "window_size": 400}
    content = {
        "config": {
            "pattern": r".|\n", "num_vocab_tokens": 256, "default_vocab_size": 296, "default_num_special_tokens": 40,
            "version": version,
        },
        "vocab": [{**letter, "token_str": None} for letter in letters],
        "special_tokens": [
            {"rank": place, "token_str": token, "is_control": True} for place, token in enumerate(tokens)
        ],
        "audio": audio,
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return T.tokenization_mistral_common.MistralCommonBackend.from_pretrained(file.parent)


def voxtral(folder: Path) -> Path:
    special = {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]"}
    made = _tekken(folder / "tekken.json", "v11", special, chunk_length_s=30.0)
    processor = T.VoxtralProcessor(T.WhisperFeatureExtractor(feature_size=128), made)
    audio = {**SIZES, "intermediate_size": 128}
    config = T.VoxtralConfig(
        audio_config=audio, text_config={**LLAMA, "vocab_size": len(made)}, audio_token_id=24,
    )  # fmt: skip
    return saved(folder, "VoxtralForConditionalGeneration", config, processor)


def voxtral_realtime(folder: Path) -> Path:
    special = {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[STREAMING_PAD]", 33: "[STREAMING_WORD]"}
    made = _tekken(
        folder / "tekken.json", "v13", special, transcription_format="streaming", transcription_delay_ms=480.0,
        streaming_look_ahead_ms=2.5, streaming_look_back_ms=52.5, streaming_n_left_pad_tokens=32,
    )  # fmt: skip
    processor = T.VoxtralRealtimeProcessor(T.VoxtralRealtimeFeatureExtractor(), made)
    audio = {**SIZES, "head_dim": 8}
    config = T.VoxtralRealtimeConfig(audio_config=audio, text_config={**TEXT, "vocab_size": len(made)})
    return saved(folder, "VoxtralRealtimeForConditionalGeneration", config, processor)


BUILDERS = {
    **TINY_BUILDERS,
    **TRANSDUCER_BUILDERS,
    "kyutai_speech_to_text": kyutai_speech_to_text,
    "nemo_speechlm": nemo_speechlm,
    "phi4_multimodal": phi4_multimodal,
    "qwen2_5_omni": qwen2_5_omni,
    "qwen3_omni_moe": qwen3_omni_moe,
    "voxtral": voxtral,
    "voxtral_realtime": voxtral_realtime,
}
"""Functions that write a checkpoint of a model that writes token by token, by model type."""
