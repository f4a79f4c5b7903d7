"""Tiny random Voxtral checkpoints, whose tokenizers are those of mistral-common."""

import base64
import json
from pathlib import Path
from typing import Any

from tests.backends.recognisers.tiny import LLAMA, TEXT, saved
from tests.models.oracles import transformers as T


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
    audio = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
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
    audio = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    config = T.VoxtralRealtimeConfig(audio_config=audio, text_config={**TEXT, "vocab_size": len(made)})
    return saved(folder, "VoxtralRealtimeForConditionalGeneration", config, processor)


VOXTRAL_BUILDERS = {"voxtral": voxtral, "voxtral_realtime": voxtral_realtime}
