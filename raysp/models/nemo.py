"""Conversion of NeMo archives of FastConformer models with a CTC head or a transducer to checkpoint folders.

A .nemo file is a tar archive with model_config.yaml, model_weights.ckpt and a sentencepiece model, which
files/nemo_archives.py reads.
"""

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from raysp.checkpoints.new_folders import check_empty
from raysp.errors import CheckpointError
from raysp.models.base.modeling import Model
from raysp.models.base.nemo_archives import CONFIG, WEIGHTS, read_archive, read_weights
from raysp.models.base.placing import without_weights
from raysp.models.base.weights import are_equal
from raysp.models.features.parakeet_features import ParakeetFeatureExtractor, ParakeetProcessor
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import check_checkpoint
from raysp.models.parakeet import ParakeetCTCConfig, ParakeetEncoderConfig, ParakeetForCTC
from raysp.models.parakeet_transducers import ParakeetForRNNT, ParakeetForTDT, ParakeetRNNTConfig, ParakeetTDTConfig
from raysp.models.tokenizers.described import BLANK
from raysp.models.tokenizers.pieces import ParakeetTokenizer
from raysp.models.tokenizers.sentencepiece import BYTE_PAIRS, UNIGRAM, Pieces, pieces_of, word_pieces

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
PAD = "<pad>"
OF_TRANSDUCERS = (
    ("decoder.prediction.embed.", "decoder.embedding."),
    ("decoder.prediction.dec_rnn.lstm.", "decoder.lstm."),
    ("joint.enc.", "encoder_projector."),
    ("joint.pred.", "decoder.decoder_projector."),
    ("joint.joint_net.2.", "joint.head."),
)
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
PREDICTION: dict[str, tuple[object, ...]] = {
    "_target_": ("nemo.collections.asr.modules.RNNTDecoder",),
    "normalization_mode": (None,),
    "random_state_sampling": (False,),
    "blank_as_pad": (True,),
}
JOINT: dict[str, tuple[object, ...]] = {"_target_": ("nemo.collections.asr.modules.RNNTJoint",)}
MAX_SYMBOLS = 10
"""Tokens at one frame where an archive sets no limit."""
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
        archive: A .nemo file of a FastConformer with a CTC head or a transducer (RNN-T, TDT) over word pieces.
        folder: A new or empty folder.

    Raises:
        CheckpointError: The archive is damaged, unsafe or of another architecture, or the folder has files.
    """
    archive, folder = Path(archive), Path(folder)
    check_empty(folder)
    with tempfile.TemporaryDirectory(prefix="raysp-nemo-") as scratch:
        config, tokenizer_model = read_archive(archive, Path(scratch) / WEIGHTS)
        weights = read_weights(Path(scratch) / WEIGHTS, archive)
        pieces = pieces_of(tokenizer_model, f"{archive}: tokenizer.model", (UNIGRAM, BYTE_PAIRS))
        make = _ctc if "aux_ctc" in config or "joint" not in config else _transducer
        tensors, model, tokenizer = make(config, weights, pieces, archive)
        extractor = _extractor(config, archive)
        model.load_state_dict(tensors, assign=True)
        model.save_pretrained(folder)
        ParakeetProcessor(extractor, tokenizer).save_pretrained(folder)
    return check_checkpoint(folder)


def renamed(
    weights: Mapping[str, Tensor], parts: tuple[str, ...], names: Iterable[tuple[str, str]]
) -> dict[str, Tensor]:
    """Return the weights of some parts by their names in transformers.

    Args:
        weights: By their names in NeMo.
        parts: Beginnings of the names of the weights that are kept.
        names: Parts of names in NeMo, with those in transformers.
    """
    tensors = {}
    for name, tensor in weights.items():
        if name.startswith(parts) and not name.startswith("encoder.pos_enc."):
            for theirs, ours in names:
                name = name.replace(theirs, ours)
            tensors[name] = tensor
    return tensors


Parts = tuple[dict[str, Tensor], Model, ParakeetTokenizer]


def _ctc(config: Mapping[str, Any], weights: Mapping[str, Tensor], pieces: Pieces, archive: Path) -> Parts:
    """Return the weights by their names, a model without values, and the tokenizer, of a CTC or hybrid model."""
    beginning = ("ctc_decoder." if "aux_ctc" in config else "decoder.") + HEAD
    tensors = renamed(weights, ("encoder.", beginning), [*NAMES, (beginning, "ctc_head.")])
    head = tensors.get("ctc_head.weight")
    if head is None:
        raise CheckpointError(
            f"{archive}: {WEIGHTS} has no {HEAD}weight of a CTC decoder: use a CTC or hybrid model, such as "
            "nvidia/parakeet-ctc-1.1b"
        )
    size = head.shape[0]
    fields = {"vocab_size": size, "pad_token_id": size - 1}
    model = _built(
        config, tensors, archive, lambda encoder: ParakeetForCTC(ParakeetCTCConfig(**fields, encoder_config=encoder))
    )
    return tensors, model, _tokenizer(pieces, size, archive)


def _transducer(config: Mapping[str, Any], weights: Mapping[str, Tensor], pieces: Pieces, archive: Path) -> Parts:
    """Return the parts of an RNN-T or TDT model, as `_ctc`. Its blank is the token after the pieces."""
    tensors = renamed(weights, ("encoder.", "decoder.", "joint."), [*NAMES, *OF_TRANSDUCERS])
    names = [piece for piece, _ in pieces.scores]
    pad = PAD if PAD in names else BLANK
    fields = {"vocab_size": len(names) + 1, "blank_token_id": len(names)}
    fields |= {"pad_token_id": names.index(PAD) if PAD in names else len(names)}

    def make(encoder: ParakeetEncoderConfig) -> Model:
        head = tensors.get("joint.head.weight")
        num_durations = 0 if head is None else head.shape[0] - len(names) - 1
        values = {**fields, **_transducer_fields(config, num_durations), "encoder_config": encoder}
        if num_durations:
            return ParakeetForTDT(ParakeetTDTConfig(**values))
        return ParakeetForRNNT(ParakeetRNNTConfig(**values))

    model = _built(config, tensors, archive, make)
    backend = word_pieces(pieces, BLANK)
    return tensors, model, ParakeetTokenizer(backend, "ParakeetTokenizer", unk_token="<unk>", pad_token=pad)


def _transducer_fields(config: Mapping[str, Any], num_durations: int) -> dict[str, Any]:
    """Return the fields of the prediction and joint networks.

    Raises:
        CheckpointError: A setting is not supported.
        TypeError, KeyError, AttributeError: One is missing, or of another type.
    """
    decoder, joint, decoding = config["decoder"], config["joint"], config.get("decoding") or {}
    _check_settings("decoder", decoder, PREDICTION)
    _check_settings("joint", joint, JOINT)
    width, joined = decoder["prednet"]["pred_hidden"], joint["jointnet"]["joint_hidden"]
    if width != joined:
        raise CheckpointError(f"pred_hidden is {width!r} and joint_hidden {joined!r}, expected equal widths")
    fields = {
        "decoder_hidden_size": width,
        "num_decoder_layers": decoder["prednet"]["pred_rnn_layers"],
        "hidden_act": joint["jointnet"].get("activation", "relu"),
        "max_symbols_per_step": (decoding.get("greedy") or {}).get("max_symbols") or MAX_SYMBOLS,
    }
    durations = decoding.get("durations") or []
    if num_durations and len(durations) != num_durations:
        raise CheckpointError(
            f"decoding.durations is {durations!r}, and the joint network has {num_durations} outputs beside tokens, "
            "expected as many: multi-blank models are not supported"
        )
    return fields | ({"durations": durations} if num_durations else {})


def _built(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    archive: Path,
    make: Callable[[ParakeetEncoderConfig], Model],
) -> Model:
    """Return a model without values, made for an encoder, whose weights have the names and shapes of these."""
    try:
        encoder = encoder_config(config["encoder"])
        num_layers = len({match[0] for name in tensors if (match := re.match(r"encoder\.layers\.\d+\.", name))})
        if encoder.num_hidden_layers != num_layers:
            raise CheckpointError(f"n_layers is {encoder.num_hidden_layers}, but the weights have {num_layers}")
        with without_weights():
            model = make(encoder)
    except (CheckpointError, RuntimeError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        reason = f"{error} is not there" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise CheckpointError(f"{archive}: {CONFIG}: {reason}") from error
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
    derived = {"intermediate_size": width * factor, "convolution_bias": bias}
    dropout = fields.get("dropout", 0.1)
    return ParakeetEncoderConfig(**{"layerdrop": 0.0, **fields, **derived, "activation_dropout": dropout})


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


def _tokenizer(pieces: Pieces, vocab_size: int, archive: Path) -> ParakeetTokenizer:
    """Return the tokenizer of a sentencepiece model, with the blank as the last token."""
    if len(pieces.scores) + 1 != vocab_size or any(piece == PAD for piece, _ in pieces.scores):
        raise CheckpointError(
            f"{archive}: the tokenizer has {len(pieces.scores)} pieces, the head {vocab_size} classes, expected one "
            "more, the blank: use the archive as it was published"
        )
    return ParakeetTokenizer(word_pieces(pieces), "ParakeetTokenizer", unk_token="<unk>", pad_token=PAD)
