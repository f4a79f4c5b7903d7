"""A Whisper in CTranslate2's format, written as a checkpoint of Hugging Face: the same weights for both libraries."""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
PARTS = {
    "position_encodings/encodings": ["embed_positions.weight"],
    "embeddings/weight": ["embed_tokens.weight"],
    "self_attention/layer_norm": ["self_attn_layer_norm"],
    "self_attention/linear_0": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "self_attention/linear_1": ["self_attn.out_proj"],
    "attention/layer_norm": ["encoder_attn_layer_norm"],
    "attention/linear_0": ["encoder_attn.q_proj"],
    "attention/linear_1": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
    "attention/linear_2": ["encoder_attn.out_proj"],
    "ffn/layer_norm": ["final_layer_norm"],
    "ffn/linear_0": ["fc1"],
    "ffn/linear_1": ["fc2"],
}
"""Names of parts of a layer in CTranslate2's format, and those of the parts in Hugging Face's that they hold."""
LAST = {"gamma": "weight", "beta": "bias"}


def write(source: Path, target: Path) -> Path:
    """Write the checkpoint, and return its folder."""
    import transformers

    arrays = dict(_arrays((source / "model.bin").read_bytes()))
    weights = dict(_renamed(arrays))
    tokenizer = _tokenizer(source / "tokenizer.json")
    ids = {**tokenizer.get_vocab()}
    end = ids["<|endoftext|>"]
    encoder, decoder = ("model.encoder.layers.", "model.decoder.layers.")
    width, num_bins = weights["model.encoder.conv1.weight"].shape[:2]
    config = transformers.WhisperConfig(
        vocab_size=len(weights["model.decoder.embed_tokens.weight"]),
        num_mel_bins=num_bins,
        d_model=width,
        encoder_layers=_layers(weights, encoder),
        decoder_layers=_layers(weights, decoder),
        encoder_attention_heads=int(arrays["encoder/num_heads"]),
        decoder_attention_heads=int(arrays["decoder/num_heads"]),
        encoder_ffn_dim=len(weights[f"{encoder}0.fc1.weight"]),
        decoder_ffn_dim=len(weights[f"{decoder}0.fc1.weight"]),
        max_source_positions=len(weights["model.encoder.embed_positions.weight"]),
        max_target_positions=len(weights["model.decoder.embed_positions.weight"]),
        bos_token_id=end, eos_token_id=end, pad_token_id=end, decoder_start_token_id=ids["<|startoftranscript|>"],
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    found = model.load_state_dict(weights, strict=False)
    if found.unexpected_keys or [name for name in found.missing_keys if name != "proj_out.weight"]:
        raise ValueError(f"{source}: weights do not fit: {found}")
    theirs = json.loads((source / "config.json").read_text())
    model.generation_config = transformers.GenerationConfig(
        suppress_tokens=theirs["suppress_ids"],
        begin_suppress_tokens=theirs["suppress_ids_begin"],
        no_timestamps_token_id=ids["<|notimestamps|>"],
        alignment_heads=theirs["alignment_heads"],
        is_multilingual=False,
        max_length=config.max_target_positions,
        bos_token_id=end, eos_token_id=end, pad_token_id=end, decoder_start_token_id=config.decoder_start_token_id,
    )  # fmt: skip
    model.save_pretrained(target)
    extractor = transformers.WhisperFeatureExtractor(feature_size=num_bins)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(target)
    return target


def _arrays(content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a `model.bin`, as CTranslate2's `ModelSpec` writes them."""
    place = 4

    def take(form: str) -> tuple[int, ...]:
        nonlocal place
        found = struct.unpack_from(form, content, place)
        place += struct.calcsize(form)
        return found

    def name() -> str:
        nonlocal place
        [length] = take("<H")
        place += length
        return content[place - length : place].decode().rstrip("\0")

    name()
    _, count = take("<II")
    for _ in range(count):
        key = name()
        *shape, kind, num_bytes = take(f"<{take('<B')[0]}IBI")
        values = np.frombuffer(content, DTYPES[kind], num_bytes // np.dtype(DTYPES[kind]).itemsize, place)
        place += num_bytes
        yield key, values.reshape(shape)


def _renamed(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, values in arrays.items():
        if values.dtype != np.float16:
            continue
        side, *middle = name.split("/")
        layer = re.fullmatch(r"layer_(\d+)", middle[0])
        path = "/".join(middle[1:] if layer else middle)
        path, _, last = path.rpartition("/") if path not in PARTS else (path, "", "")
        targets = PARTS.get(path, [path])
        before = f"model.{side}." + (f"layers.{layer[1]}." if layer else "")
        after = f".{LAST.get(last, last)}" if last else ""
        for target, part in zip(targets, np.split(values.astype(np.float32), len(targets)), strict=True):
            if not (target.endswith("k_proj") and last == "bias"):  # keys have none, and zeros here
                yield f"{before}{target}{after}", torch.from_numpy(part.copy())


def _layers(weights: Mapping[str, object], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})


def _tokenizer(file: Path):
    import transformers

    content = json.loads(file.read_text())
    added = [one["content"] for one in content["added_tokens"]]
    merges = [tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in content["model"]["merges"]]
    vocabulary = {**content["model"]["vocab"], **{one["content"]: one["id"] for one in content["added_tokens"]}}
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": [one for one in added if one != "<|endoftext|>"]})
    return tokenizer
