"""Tiny random recognisers of transformers with their whole processors, a folder for each model type."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.models.oracles import transformers as T

TEXT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "head_dim": 8, "max_position_embeddings": 4096,
}  # fmt: skip
CONFORMER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "subsampling_conv_channels": 16, "num_mel_bins": 80, "layerdrop": 0.0,
}  # fmt: skip
WAVEFORM = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "layerdrop": 0.0,
}  # fmt: skip
END = "<|endoftext|>"
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'audio' %}"
    "AUDIO{% else %}{{ c.text or (c.keywords or []) | join(' ') }}{% endif %}{% endfor %}"
    "{% if not (loop.last and continue_final_message) %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDS = {"pad_token_id": END, "eos_token_id": "<|im_end|>"}
LETTERS = [*"abcdefghijklmnopqrstuvwxyz .,"]


def tokenizer(special: Sequence[str], **fields: Any) -> Any:
    """Make a tokenizer of bytes with special tokens."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={one: place for place, one in enumerate(characters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END, "<unk>", "<|im_start|>", "<|im_end|>", *special])
    fields = {"pad_token": END, "eos_token": "<|im_end|>", "unk_token": "<unk>", "bos_token": "<|im_start|>", **fields}
    return T.PreTrainedTokenizerFast(tokenizer_object=made, **fields)


def saved(folder: Path, cls: str, config: Any, processor: Any, **generation: Any) -> Path:
    """Write a random model, whose texts are letters, and its processor."""
    torch.manual_seed(0)
    model = getattr(T, cls)(config)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():  # else texts of random models are one token
        if weight.ndim > 1 and "positional" not in name:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name or "lm_head" in name else 0.15)
    ids = processor.tokenizer.get_vocab()
    spoken = {ids[one] for one in (*LETTERS[:26], "Ġ" if "Ġ" in ids else " ", ".")} | {processor.tokenizer.eos_token_id}
    end = processor.tokenizer.eos_token_id
    start = getattr(config, "decoder_start_token_id", None)
    model.generation_config = T.GenerationConfig(
        decoder_start_token_id=start, bos_token_id=processor.tokenizer.bos_token_id,
        suppress_tokens=sorted({*range(max(ids.values()) + 1)} - spoken), max_new_tokens=24,
        eos_token_id=end, pad_token_id=processor.tokenizer.pad_token_id, **generation,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def canary(folder: Path) -> Path:
    made = tokenizer(["<|en|>", "<|de|>", "<|pnc|>", "<|start|>"])
    template = (
        "{% for m in messages %}{% for c in m.content %}{% if c.type == 'text' %}<|start|><|{{ c.source_language }}|>"
        "<|{{ c.target_language }}|><|pnc|>{% endif %}{% endfor %}{% endfor %}"
    )
    extractor = T.ParakeetFeatureExtractor(feature_size=80)
    decoder = {"vocab_size": len(made), **TEXT, "num_key_value_heads": 4, "max_position_embeddings": 200}
    config = T.CanaryConfig(
        vocab_size=len(made), encoder_config=CONFORMER, decoder_config=decoder, pad_token_id=made.pad_token_id,
        eos_token_id=made.eos_token_id, decoder_start_token_id=made.convert_tokens_to_ids("<|start|>"),
    )  # fmt: skip
    processor = T.CanaryProcessor(extractor, made, chat_template=template)
    return saved(folder, "CanaryForConditionalGeneration", config, processor)


def cohere_asr(folder: Path) -> Path:
    names = ["startofcontext", "startoftranscript", "emo:undefined", "en", "de", "pnc", "noitn", "notimestamp"]
    made = tokenizer(["▁", *(f"<|{name}|>" for name in [*names, "nodiarize"])])
    processor = T.CohereAsrProcessor(T.CohereAsrFeatureExtractor(feature_size=80), made)
    config = T.CohereAsrConfig(
        vocab_size=len(made), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=200, decoder_start_token_id=made.convert_tokens_to_ids("<|startoftranscript|>"),
        pad_token_id=made.pad_token_id, eos_token_id=made.eos_token_id, encoder_config=CONFORMER,
    )  # fmt: skip
    return saved(folder, "CohereAsrForConditionalGeneration", config, processor)


LLAMA = {"model_type": "llama", **TEXT}
QWEN3 = {"model_type": "qwen3", **TEXT}


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "d_model": 32}


def _of_chat(
    folder: Path, name: str, extractor: Any, audio: Any, text: Any, *tokens: str, template: str = "",
    key: str = "audio_token_id", ids: Mapping[str, str] = MappingProxyType({}), **fields: Any,
) -> Path:  # fmt: skip
    """Write a language model with an encoder, whose recordings replace the first token, between the next two."""
    made = tokenizer(tokens, padding_side="left", **fields)
    template = template or CHAT.replace("AUDIO", "".join([*tokens[1:2], tokens[0], *tokens[2:3]]))
    processor = getattr(T, f"{name}Processor")(extractor, made, chat_template=template)
    named = {field: made.convert_tokens_to_ids(token) for field, token in {key: tokens[0], **ids}.items()}
    text = {**text, "vocab_size": len(made)}
    config = getattr(T, f"{name}Config")(audio_config=audio, text_config=text, **named)
    return saved(folder, f"{name}ForConditionalGeneration", config, processor)


def qwen3_asr(folder: Path) -> Path:
    from transformers.models.qwen3_asr.feature_extraction_qwen3_asr import Qwen3ASRFeatureExtractor

    parts = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
    audio = {**ENCODER, "num_mel_bins": 128, "output_dim": 32, "downsample_hidden_size": 16}
    return _of_chat(
        folder, "Qwen3ASR", Qwen3ASRFeatureExtractor(feature_size=128), audio, QWEN3,
        *parts.values(), "<asr_text>", "<timestamp>", extra_special_tokens=parts,
        ids={**ENDS, "timestamp_token_id": "<timestamp>"},
    )  # fmt: skip


def omniasr(folder: Path) -> Path:
    template = (
        "{% for m in messages %}{% set said = namespace(language='auto') %}{% for c in m.content %}"
        "{% if c.type == 'audio' %}<extra_id_1>{% elif c.type == 'language' %}{% set said.language = c.language %}"
        "{% endif %}{% endfor %}<|lang:{{ said.language }}|><|im_start|>{% endfor %}"
    )
    return _of_chat(
        folder, "OmniASR", T.OmniASRFeatureExtractor(), WAVEFORM, LLAMA, "<extra_id_1>", "<|lang:auto|>",
        "<|lang:eng_latn|>", "<|lang:deu_latn|>", template=template, ids=ENDS,
    )  # fmt: skip


def glmasr(folder: Path) -> Path:
    audio = {**SMALL, "intermediate_size": 128, "num_mel_bins": 32}
    return _of_chat(folder, "GlmAsr", T.WhisperFeatureExtractor(feature_size=32), audio, LLAMA, "<|pad|>")


def audioflamingo3(folder: Path) -> Path:
    text = {**TEXT, "model_type": "qwen2"}
    audio = {**SMALL, "num_mel_bins": 32}
    return _of_chat(folder, "AudioFlamingo3", T.WhisperFeatureExtractor(feature_size=32), audio, text, "<sound>")


def moss_transcribe_diarize(folder: Path) -> Path:
    tokens = ("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>")
    extractor = T.MossTranscribeDiarizeFeatureExtractor()
    return _of_chat(folder, "MossTranscribeDiarize", extractor, SMALL, QWEN3, *tokens)


def qwen2_audio(folder: Path) -> Path:
    tokens = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    text = {**TEXT, "model_type": "qwen2"}
    extractor, audio = T.WhisperFeatureExtractor(feature_size=32), {**ENCODER, "num_mel_bins": 32}
    return _of_chat(folder, "Qwen2Audio", extractor, audio, text, *tokens, key="audio_token_index")


def moonshine_streaming(folder: Path) -> Path:
    made = tokenizer([])
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = T.MoonshineStreamingConfig(
        vocab_size=len(made), intermediate_size=64, decoder_start_token_id=made.bos_token_id,
        pad_token_id=made.pad_token_id, bos_token_id=made.bos_token_id, eos_token_id=made.eos_token_id,
        encoder_config={**sizes, "intermediate_size": 64, "sliding_windows": [[16, 4], [16, 0]]}, **sizes,
    )  # fmt: skip
    extractor = T.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    processor = T.MoonshineStreamingProcessor(extractor, made)
    return saved(folder, "MoonshineStreamingForConditionalGeneration", config, processor)


def _seamless(folder: Path, cls: str, config_cls: str) -> Path:
    made = tokenizer(["__deu__", "__eng__"])
    ids = made.get_vocab()
    tokens = {"pad_token_id": made.pad_token_id, "bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id}
    heads = {f"{part}_attention_heads": 4 for part in ("encoder", "decoder", "speech_encoder")}
    layers = {f"{part}_layers": 2 for part in ("encoder", "decoder", "speech_encoder")}
    widths = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "speech_encoder_intermediate_size": 64, "hidden_size": 32}
    config = getattr(T, config_cls)(
        vocab_size=len(made), decoder_start_token_id=made.eos_token_id, **tokens, **heads, **layers, **widths
    )
    codes = {"text_decoder_lang_to_code_id": {name: ids[f"__{name}__"] for name in ("deu", "eng")}}
    processor = T.SeamlessM4TProcessor(T.SeamlessM4TFeatureExtractor(), made)
    return saved(folder, cls, config, processor, **codes)


def seamless_m4t(folder: Path) -> Path:
    return _seamless(folder, "SeamlessM4TForSpeechToText", "SeamlessM4TConfig")


def seamless_m4t_v2(folder: Path) -> Path:
    return _seamless(folder, "SeamlessM4Tv2ForSpeechToText", "SeamlessM4Tv2Config")


def speecht5(folder: Path) -> Path:
    made = tokenizer([])
    sizes = {"hidden_size": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "conv_dim": [16] * 7}
    heads = {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
    layers = {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    config = T.SpeechT5Config(
        vocab_size=len(made), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, apply_spec_augment=False,
        decoder_start_token_id=made.eos_token_id, pad_token_id=made.pad_token_id, bos_token_id=made.bos_token_id,
        eos_token_id=made.eos_token_id, **sizes, **heads, **layers,
    )  # fmt: skip
    processor = T.SpeechT5Processor(T.SpeechT5FeatureExtractor(return_attention_mask=True), made)
    return saved(folder, "SpeechT5ForSpeechToText", config, processor)


TINY_BUILDERS: dict[str, Callable[[Path], Path]] = {
    "canary": canary,
    "cohere_asr": cohere_asr,
    "glmasr": glmasr,
    "moonshine_streaming": moonshine_streaming,
    "moss_transcribe_diarize": moss_transcribe_diarize,
    "omniasr": omniasr,
    "qwen2_audio": qwen2_audio,
    "qwen3_asr": qwen3_asr,
    "seamless_m4t": seamless_m4t,
    "seamless_m4t_v2": seamless_m4t_v2,
    "speecht5": speecht5,
}
"""Functions that write a checkpoint into a folder, by model type."""
