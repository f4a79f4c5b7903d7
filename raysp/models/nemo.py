"""Conversion of NeMo archives of FastConformer CTC models to checkpoint folders.

A .nemo file is a tar archive with model_config.yaml, model_weights.ckpt and a sentencepiece model, which
files/nemo_archives.py reads.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.checking import check_checkpoint
from raysp.models.features.parakeet_features import ParakeetFeatureExtractor, ParakeetProcessor
from raysp.models.files.nemo_archives import CONFIG, WEIGHTS, read_archive, read_weights
from raysp.models.files.unweighted import without_weights
from raysp.models.files.weights import are_equal
from raysp.models.parakeet import ParakeetCTCConfig, ParakeetEncoderConfig, ParakeetForCTC
from raysp.models.summary import CheckpointSummary
from raysp.models.tokenizers.pieces import ParakeetTokenizer
from raysp.models.tokenizers.sentencepiece import BYTE_PAIRS, UNIGRAM, pieces_of, word_pieces

NAMES = (  # in NeMo, and in transformers
    ("encoder.pre_encode.conv.", "encoder.subsampling.layers."),
    ("encoder.pre_encode.out.", "encoder.subsampling.linear."),
    (".conv.batch_norm.", ".conv.norm."),
    (".self_attn.linear_q.", ".self_attn.q_proj."),
    (".self_attn.linear_k.", ".self_attn.k_proj."),
    (".self_attn.linear_v.", ".self_attn.v_proj."),
    (".self_attn.linear_out.", ".self_attn.o_proj."),
    (".self_attn.linear_pos.", ".self_attn.relative_k_proj."),
    (".self_attn.pos_bias_", ".self_attn.bias_"),
)
HEAD = "decoder_layers.0."
FIELDS = {  # of the encoder in model_config.yaml, and of ParakeetEncoderConfig
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "feat_in": "num_mel_bins",
    "conv_kernel_size": "conv_kernel_size",
    "subsampling_factor": "subsampling_factor",
    "subsampling_conv_channels": "subsampling_conv_channels",
    "pos_emb_max_len": "max_position_embeddings",
    "dropout": "dropout",
    "dropout_emb": "dropout_positions",
    "dropout_att": "attention_dropout",
    "xscaling": "scale_input",
    "use_bias": "attention_bias",
    "stochastic_depth_drop_prob": "layerdrop",
}
ENCODER: dict[str, tuple[object, ...]] = {  # settings that have no field, and the supported values
    "subsampling": ("dw_striding",),
    "self_attention_model": ("rel_pos",),
    "conv_norm_type": ("batch_norm",),
    "untie_biases": (True,),
    "causal_downsampling": (False,),
    "reduction": (None,),
    "att_context_style": ("regular",),
    "att_context_size": ([-1, -1], [[-1, -1]], None),
    "conv_context_size": (None,),
}
PREPROCESSOR: dict[str, tuple[object, ...]] = {
    "normalize": ("per_feature",),
    "window": ("hann",),
    "frame_splicing": (1,),
    "log": (True,),
}


def convert_nemo(archive: str | Path, folder: str | Path) -> CheckpointSummary:
    """Convert a .nemo archive to a checkpoint folder, which raysp and transformers read; return its description.

    Of a hybrid model with a transducer, the CTC head is taken.

    Args:
        archive: A .nemo file of a FastConformer with a CTC head over word pieces.
        folder: A new or empty folder.

    Raises:
        CheckpointError: The archive is damaged, unsafe or of another architecture, or the folder has files.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: is not empty, expected a new folder: give another one")
    with tempfile.TemporaryDirectory(prefix="raysp-nemo-") as scratch:
        config, tokenizer_model = read_archive(archive, Path(scratch) / WEIGHTS)
        weights = read_weights(Path(scratch) / WEIGHTS, archive)
        head = "ctc_decoder." if "aux_ctc" in config else "decoder."
        tensors = renamed(weights, head + HEAD)
        model = _built(config, tensors, archive)
        extractor = _extractor(config, archive)
        tokenizer = _tokenizer(tokenizer_model, model.ctc_head.out_features, archive)
        model.load_state_dict(tensors, assign=True)
        model.save_pretrained(folder)
        ParakeetProcessor(extractor, tokenizer).save_pretrained(folder)
    return check_checkpoint(folder)


def renamed(weights: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """Return the weights of encoder and head by their names in transformers.

    Args:
        weights: By their names in NeMo; those of the preprocessor, and of other decoders, are left out.
        head: Beginning of the names of the CTC head.
    """
    found = {}
    for name, tensor in weights.items():
        if name.startswith(head):
            found["ctc_head." + name.removeprefix(head)] = tensor
        elif name.startswith("encoder.") and not name.startswith("encoder.pos_enc."):
            for theirs, ours in NAMES:
                name = name.replace(theirs, ours)
            found[name] = tensor
    return found


def _built(config: Mapping[str, Any], tensors: Mapping[str, Tensor], archive: Path) -> ParakeetForCTC:
    """Return a model without values whose weights have the names and shapes of these."""
    head = tensors.get("ctc_head.weight")
    if head is None:
        raise CheckpointError(
            f"{archive}: {WEIGHTS} has no {HEAD}weight of a CTC decoder: use a CTC or hybrid model, such as "
            "nvidia/parakeet-ctc-1.1b"
        )
    try:
        encoder = encoder_config(config["encoder"])
        num_layers = len({match[0] for name in tensors if (match := re.match(r"encoder\.layers\.\d+\.", name))})
        if encoder.num_hidden_layers != num_layers:
            raise CheckpointError(f"n_layers is {encoder.num_hidden_layers}, the weights have {num_layers}")
        with without_weights():
            size = head.shape[0]
            model = ParakeetForCTC(ParakeetCTCConfig(vocab_size=size, pad_token_id=size - 1, encoder_config=encoder))
    except (CheckpointError, RuntimeError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"{archive}: {CONFIG}: {str(error).partition(chr(10))[0]}") from error
    model.fit(tensors, archive, are_equal=are_equal, strict=True).refused.check(archive)
    return model.eval()


def encoder_config(values: Mapping[str, Any]) -> ParakeetEncoderConfig:
    """Return the configuration of an encoder in model_config.yaml.

    Raises:
        CheckpointError: A setting is not supported.
    """
    _check_settings("encoder", values, ENCODER)
    fields = {ours: values[theirs] for theirs, ours in FIELDS.items() if values.get(theirs) is not None}
    width, factor = fields.get("hidden_size"), values.get("ff_expansion_factor", 4)
    if type(width) is not int or type(factor) is not int:
        raise CheckpointError(f"d_model is {width!r} and ff_expansion_factor {factor!r}, expected numbers")
    if fields.get("subsampling_conv_channels", -1) == -1:
        fields["subsampling_conv_channels"] = width
    bias = fields.setdefault("attention_bias", True)
    dropout = fields.get("dropout", 0.1)
    derived = {"intermediate_size": width * factor, "convolution_bias": bias, "activation_dropout": dropout}
    return ParakeetEncoderConfig(
        **{"layerdrop": 0.0, **fields, **derived, "activation_dropout": fields.get("dropout", 0.1)}
    )


def _check_settings(part: str, values: Mapping[str, Any], supported: Mapping[str, tuple[object, ...]]) -> None:
    for name, expected in supported.items():
        if name in values and values[name] not in expected:
            raise CheckpointError(f"{part}.{name} is {values[name]!r}, expected {expected[0]!r}: it is not supported")


def _extractor(config: Mapping[str, Any], archive: Path) -> ParakeetFeatureExtractor:
    values = config["preprocessor"]
    try:
        _check_settings("preprocessor", values, PREPROCESSOR)
        rate = values.get("sample_rate", 16000)
        return ParakeetFeatureExtractor(
            feature_size=values.get("features", 80),
            sampling_rate=rate,
            hop_length=round(float(values.get("window_stride", 0.01)) * rate),
            win_length=round(float(values.get("window_size", 0.025)) * rate),
            n_fft=values.get("n_fft") or 512,
            preemphasis=float(values.get("preemph", 0.97)),
        )
    except (CheckpointError, TypeError, ValueError) as error:
        raise CheckpointError(f"{archive}: {CONFIG}: {error}") from error


def _tokenizer(data: bytes, vocab_size: int, archive: Path) -> ParakeetTokenizer:
    """Return the tokenizer of a sentencepiece model, with the blank as the last token."""
    pieces = pieces_of(data, f"{archive}: tokenizer.model", (UNIGRAM, BYTE_PAIRS))
    if len(pieces.scores) + 1 != vocab_size or any(piece == "<pad>" for piece, _ in pieces.scores):
        raise CheckpointError(
            f"{archive}: the tokenizer has {len(pieces.scores)} pieces, the head {vocab_size} classes, expected one "
            "more, the blank: use the archive as it was published"
        )
    return ParakeetTokenizer(word_pieces(pieces), "ParakeetTokenizer", unk_token="<unk>", pad_token="<pad>")
