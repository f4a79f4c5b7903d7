"""Writers of whole checkpoints: those with tokenizers of word pieces, and those whose parts are several models."""

import io
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import sentencepiece
import torch

from tests.backends import theirs
from tests.backends.recognisers import tiny
from tests.models.encoder import many_languages as languages
from tests.models.oracles import transformers
from tests.models.tokenizers.word_pieces import save_parakeet, save_transducer
from tests.published.building import WAVEFORM, renamed
from tests.published.layout import PICKLE, SAFETENSORS, Layout

SENTENCES = [
    "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel.",
    "le matin, un lapin a tué un chasseur; c'était un lapin qui avait un fusil",
    "one two three four five six seven eight nine zero",
] * 4
PIECES = 55


def whisper(folder: Path, layout: Layout) -> None:
    """Write a Whisper for recordings of two seconds."""
    theirs.tiny_whisper(folder, multilingual=not layout.written.get("english"))
    config = json.loads((folder / "processor_config.json").read_text())["feature_extractor"]
    (folder / "preprocessor_config.json").write_text(json.dumps({**config, "processor_class": "WhisperProcessor"}))
    tokens = json.loads((folder / "tokenizer.json").read_text())
    added = {one["content"]: one["id"] for one in tokens["added_tokens"]}
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    for name, values in {
        "vocab.json": tokens["model"]["vocab"],
        "added_tokens.json": added,
        "normalizer.json": {"colour": "color"},
        "special_tokens_map.json": {**special, "additional_special_tokens": [*added]},
    }.items():
        (folder / name).write_text(json.dumps(values))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def many_languages(folder: Path, layout: Layout) -> None:
    """Write an MMS of several languages, in English."""
    languages.lay_out(folder, [*layout.vocab])


def parakeet(folder: Path, layout: Layout) -> None:
    """Write a Parakeet with a CTC head, its weights in half the width as published."""
    save_parakeet(folder)
    weights = safetensors.torch.load_file(folder / SAFETENSORS)
    halved = {name: value.bfloat16() if value.is_floating_point() else value for name, value in weights.items()}
    safetensors.torch.save_file(halved, folder / SAFETENSORS, metadata={"format": "pt"})


def parakeet_tdt(folder: Path, layout: Layout) -> None:
    """Write a Parakeet with a TDT head, whose search begins with the blank and takes no duration for a token."""
    config = save_transducer(folder, "TDT").config
    durations = [config.vocab_size + place for place in range(len(config.durations))]
    options = {"decoder_start_token_id": config.blank_token_id, "suppress_tokens": durations}
    transformers.GenerationConfig(**options).save_pretrained(folder)


def qwen3_asr(folder: Path, layout: Layout) -> None:
    """Write a Qwen3-ASR."""
    tiny.qwen3_asr(folder)


def cohere_asr(folder: Path, layout: Layout) -> None:
    """Write a Cohere Transcribe."""
    tiny.cohere_asr(folder)


def translation(folder: Path, layout: Layout) -> None:
    """Write an encoder with an adapter and an mBART-50 decoder, whose head and embedding are one tensor."""
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=pieces, vocab_size=PIECES, minloglevel=2
    )
    (folder / "sentencepiece.bpe.model").write_bytes(pieces.getvalue())
    size = PIECES + 1 + 52 + 1  # pieces, a padding token, languages, the mask
    model = transformers.SpeechEncoderDecoderModel(_translator(size)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "lm_head" not in name and tensor.is_floating_point():
                tensor += 0.1 * torch.randn_like(tensor)
        embedding = model.decoder.get_input_embeddings().weight
        embedding[:3] *= 0.01  # texts do not end at once
        embedding[PIECES:] *= 0.01  # nor do they consist of languages
    _write_weights(folder, layout, model.state_dict())
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    model.config.architectures = ["SpeechEncoderDecoderModel"]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def _translator(size: int) -> Any:
    encoder = transformers.Wav2Vec2Config(
        **WAVEFORM, add_adapter=True, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True
    )
    decoder = transformers.MBartConfig(
        vocab_size=size, d_model=32, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32, init_std=0.4,
        is_decoder=True, add_cross_attention=True, scale_embedding=True,
    )  # fmt: skip
    return transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder, decoder, decoder_start_token_id=2, eos_token_id=2, bos_token_id=0, pad_token_id=1, max_length=20
    )


def _write_weights(folder: Path, layout: Layout, state: dict[str, torch.Tensor]) -> None:
    weights = renamed(state)
    torch.save(weights, folder / PICKLE)
    del weights[str(layout.written["untied"])]  # the converter of the hub keeps one name of two
    safetensors.torch.save_file(weights, folder / SAFETENSORS, metadata={"format": "pt"})
