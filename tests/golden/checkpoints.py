"""Small checkpoints of every class that raysp opens itself, with weights made of the names of their tensors.

Weights are drawn by the name that a tensor has in the file, which is that of Hugging Face: no order of layers, and no
initialisation, changes them.
"""

import json
import math
import string
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from raysp import models as raysp_models
from tests.models.tokenizers.phonemes import PHONEMES, write_tokenizer
from tests.models.tokenizers.text_tokenizers import BERT_VOCAB, write_bert_tokenizer, write_byte_tokenizer
from tests.models.tokenizers.word_pieces import PIECES, backend

Write = Callable[[Path], object]
"""Write a checkpoint into a folder."""

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_uppercase]
HIDDEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SMALL = {**HIDDEN, "vocab_size": len(LETTERS), "id2label": {0: "cat", 1: "dog", 2: "owl"}}
WAVES = {
    "conv_dim": (16, 24, 24), "conv_stride": (10, 8, 4), "conv_kernel": (16, 8, 4), "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
TDNN = {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 14}
ENCODERS: dict[str, dict[str, Any]] = {
    "UniSpeech": WAVES,
    "Wav2Vec2": {**WAVES, **TDNN, **LAYER, "use_weighted_layer_sum": True},
    "Hubert": WAVES,
    "SEWD": {**WAVES, "position_buckets": 16, "max_position_embeddings": 40},
    "Wav2Vec2Bert": {**TDNN, "conv_depthwise_kernel_size": 7, "output_hidden_size": 32},
}
"""Fields of configurations by prefixes of classes."""
PARAKEET = {**HIDDEN, "subsampling_conv_channels": 8, "num_mel_bins": 16, "scale_input": False}
DECODER = {"vocab_size": 272, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
DECODERS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "bert": ("Bert", {**HIDDEN, "vocab_size": len(dict.fromkeys(BERT_VOCAB))}, (2, 3, 0)),
    "gpt2": ("GPT2", {"vocab_size": 268, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, (0, 0, 0)),
    "bart": ("Bart", DECODER, (2, 2, 1)),
    "mbart": ("MBart", DECODER, (2, 2, 1)),
}
"""Prefix of the class, fields, and the ids of start, end and padding."""
SHARP = {
    "lm_head": 6.0, "ctc_head": 6.0, "classifier": 6.0, "head": 4.0, "projector": 2.0, "encoder_projector": 3.0,
    "encoder_attn": 2.5, "crossattention": 2.5,
}  # fmt: skip
"""Factors of the weights of layers, so that results differ clearly from row to row."""

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings")
"""Layers of the embeddings of text decoders, which give their logits as well."""


def of_encoder(*names: str, **fields: Any) -> Write:
    """Return a function that writes a checkpoint of an encoder with one or several heads."""
    return partial(_write_encoder, names=names, fields=fields)


def parakeet(kind: str) -> Write:
    """Return a function that writes a Parakeet: "CTC", "RNNT" or "TDT"."""
    return partial(_write_parakeet, kind=kind)


def encoder_decoder(
    decoder: str, encoder: str = "Wav2Vec2", of_decoder: Mapping[str, Any] = MappingProxyType({}), **fields: Any
) -> Write:
    """Return a function that writes an encoder with a text decoder; `fields` are of the encoder."""
    return partial(_write_encoder_decoder, decoder=decoder, encoder=encoder, of_decoder=of_decoder, fields=fields)


def phonemes() -> Write:
    """Return a function that writes a checkpoint of phonemes."""
    return lambda folder: of_encoder("Wav2Vec2ForCTC", vocab_size=len(PHONEMES))(folder) or write_tokenizer(folder)


def languages(*names: str) -> Write:
    """Return a function that writes a checkpoint with adapters of languages, as MMS; the weights have the first one."""
    return partial(_write_languages, names=names)


def fill(folder: Path, file: str = "model.safetensors", seed: str = "", **factors: float) -> None:
    """Replace the weights of a file by those that the names of its tensors give; `factors` are as in SHARP."""
    path, factors = folder / file, {**SHARP, **factors}
    tensors = {name: _drawn(name, tensor, factors, seed) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _drawn(name: str, tensor: np.ndarray, factors: Mapping[str, float], seed: str) -> np.ndarray:
    if not np.issubdtype(tensor.dtype, np.floating):
        return tensor
    drawn = np.random.default_rng(zlib.crc32(f"{seed}{name}".encode())).standard_normal(tensor.shape)
    parts = name.split(".")
    if (
        "running_var" in name
        or name.endswith(("weight_g", "original0"))
        or (tensor.ndim == 1 and parts[-1] == "weight")
    ):
        return (1 + 0.1 * np.abs(drawn)).astype(tensor.dtype)
    if tensor.ndim < 2:
        return (0.1 * drawn).astype(tensor.dtype)
    if parts[-2] in EMBEDDINGS:  # texts are neither empty nor of special tokens
        drawn[:5] *= 0.05
    factor = max((factor for part, factor in factors.items() if part in parts), default=1.0)
    return (factor * drawn / math.sqrt(math.prod(tensor.shape[1:]))).astype(tensor.dtype)


def _write_encoder(folder: Path, names: tuple[str, ...], fields: Mapping[str, Any]) -> None:
    prefix = max((one for one in ENCODERS if names[0].startswith(one)), key=len)
    config = getattr(raysp_models, f"{prefix}Config")(**{**SMALL, **ENCODERS[prefix], **fields})
    heads = [getattr(raysp_models, name)(config) for name in names]
    if len(heads) == 1:
        heads[0].save_pretrained(folder)
    else:
        state = heads[0].state_dict()
        for head in heads[1:]:
            head.load_state_dict({**head.state_dict(), **{k: v for k, v in state.items() if k in head.state_dict()}})
        raysp_models.save_heads(heads, folder)
    fill(folder)
    _write_extractor(folder, prefix)
    if any("ForCTC" in name for name in names):
        (folder / "letters.json").write_text(json.dumps({token: index for index, token in enumerate(LETTERS)}))
        raysp_models.Wav2Vec2CTCTokenizer(folder / "letters.json").save_pretrained(folder)


def _write_languages(folder: Path, names: tuple[str, ...]) -> None:
    _write_encoder(folder, ("Wav2Vec2ForCTC",), {"adapter_attn_dim": 8})
    model = raysp_models.Wav2Vec2ForCTC.from_pretrained(folder)
    for name in names:
        model.save_adapter(folder, name)
        fill(folder, f"adapter.{name}.safetensors", seed=name)
    letters = {
        name: [*LETTERS[:5], *LETTERS[:4:-1][place:], *LETTERS[:4:-1][:place]] for place, name in enumerate(names)
    }
    ids = {name: {letter: index for index, letter in enumerate(tokens)} for name, tokens in letters.items()}
    (folder / "vocab.json").write_text(json.dumps(ids))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_lang": names[0]}))


def _write_extractor(folder: Path, prefix: str) -> None:
    if prefix == "Wav2Vec2Bert":
        raysp_models.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    else:
        raysp_models.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def _write_parakeet(folder: Path, kind: str) -> None:
    special = {"CTC": ("<pad>",), "RNNT": ("<blank>",), "TDT": ("<pad>", "<blank>")}[kind]
    size = len(PIECES) + len(special)
    fields: dict[str, Any] = {"vocab_size": size, "encoder_config": PARAKEET, "pad_token_id": len(PIECES)}
    if kind != "CTC":
        fields |= {"blank_token_id": size - 1, "decoder_hidden_size": 24, "num_decoder_layers": 2}
    if kind == "RNNT":
        fields |= {"pad_token_id": 0, "max_symbols_per_step": 3}
    config = getattr(raysp_models, f"Parakeet{kind}Config")(**fields)
    getattr(raysp_models, f"ParakeetFor{kind}")(config).save_pretrained(folder)
    fill(folder, layers=1.5, lstm=1.5)
    named = raysp_models.ParakeetTokenizer(
        backend(*special), "ParakeetTokenizer", unk_token="<unk>", pad_token=special[0]
    )
    extractor = raysp_models.ParakeetFeatureExtractor(feature_size=PARAKEET["num_mel_bins"])
    raysp_models.ParakeetProcessor(extractor, named).save_pretrained(folder)


def _write_encoder_decoder(
    folder: Path, decoder: str, encoder: str, of_decoder: Mapping[str, Any], fields: Mapping[str, Any]
) -> None:
    prefix, small, (start, end, pad) = DECODERS[decoder]
    encoder_config = getattr(raysp_models, f"{encoder}Config")(**{**SMALL, **ENCODERS[encoder], **fields})
    decoder_config = getattr(raysp_models, f"{prefix}Config")(
        **small, **of_decoder, is_decoder=True, add_cross_attention=True
    )
    config = raysp_models.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder_config, decoder_config, decoder_start_token_id=start, eos_token_id=end, pad_token_id=pad
    )
    raysp_models.SpeechEncoderDecoderModel(config).save_pretrained(folder)
    fill(folder)
    _write_text_tokenizer(folder, decoder)
    _write_extractor(folder, encoder)


def _write_text_tokenizer(folder: Path, decoder: str) -> None:
    if decoder == "bert":
        write_bert_tokenizer(folder)
    elif decoder == "gpt2":
        write_byte_tokenizer(folder, "GPT2Tokenizer", ["<|endoftext|>"])
    else:
        write_byte_tokenizer(folder, "BartTokenizer", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
