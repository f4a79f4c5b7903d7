"""Small .nemo archives of random FastConformer models with a CTC head or a transducer."""

import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import yaml

from raysp import models as own
from tests.models.oracles import fields_of

TEXTS = ["the cat sat on the mat", "a cat is on a mat", "hello there", "that hat is his", "she sells sea shells"] * 4
CONFIG, TOKENIZER, WEIGHTS = "./model_config.yaml", "./0123_tokenizer.model", "./model_weights.ckpt"
"""Members of an archive, in NeMo's way below "./"."""
PREPROCESSOR = {
    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
    "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "window": "hann",
    "features": 16, "n_fft": 512, "log": True, "frame_splicing": 1, "dither": 1e-05, "pad_to": 0, "pad_value": 0.0,
}  # fmt: skip
ENCODER = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_out": -1, "subsampling": "dw_striding",
    "causal_downsampling": False, "ff_expansion_factor": 2, "self_attention_model": "rel_pos", "untie_biases": True,
    "att_context_size": [-1, -1], "att_context_style": "regular", "conv_norm_type": "batch_norm",
    "conv_context_size": None, "dropout_pre_encoder": 0.1, "reduction": None, "reduction_factor": 1,
}  # fmt: skip

FIELDS = {
    "d_model": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers",
    "feat_in": "num_mel_bins", "conv_kernel_size": "conv_kernel_size", "subsampling_factor": "subsampling_factor",
    "subsampling_conv_channels": "subsampling_conv_channels", "pos_emb_max_len": "max_position_embeddings",
    "dropout": "dropout", "dropout_emb": "dropout_positions", "dropout_att": "attention_dropout",
    "xscaling": "scale_input", "use_bias": "attention_bias", "stochastic_depth_drop_prob": "layerdrop",
}  # fmt: skip
"""Fields of the encoder in NeMo, and in transformers."""
NAMES = {
    r"^encoder_projector\.": "joint.enc.",
    r"^decoder\.decoder_projector\.": "joint.pred.",
    r"^joint\.head\.": "joint.joint_net.2.",
    r"^decoder\.embedding\.": "decoder.prediction.embed.",
    r"^decoder\.lstm\.": "decoder.prediction.dec_rnn.lstm.",
    r"subsampling\.layers\.": "pre_encode.conv.",
    r"subsampling\.linear\.": "pre_encode.out.",
    r"\.conv\.norm\.": ".conv.batch_norm.",
    r"\.relative_k_proj\.": ".linear_pos.",
    r"\.o_proj\.": ".linear_out.",
    r"\.([qkv])_proj\.": r".linear_\1.",
    r"\.bias_([uv])$": r".pos_bias_\1",
}
"""Names of weights in transformers, and in NeMo."""


def sentencepiece_model(kind: str = "bpe", **options: object) -> bytes:
    """Return a small sentencepiece model."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=file, vocab_size=40, model_type=kind, bos_id=-1, eos_id=-1,
        hard_vocab_limit=False, minloglevel=2, **options,
    )  # fmt: skip
    return file.getvalue()


def random_model(kind: str, num_pieces: int, pad: int) -> Any:
    """Return a random model of "CTC", "RNNT" or "TDT" with a class for each piece and the blank."""
    torch.manual_seed(0)
    flags = {"intermediate_size": 64, "layerdrop": 0.0, "dropout": 0.2, "activation_dropout": 0.2, "pad_token_id": pad}
    flags |= {"vocab_size": num_pieces + 1}
    if kind != "CTC":
        flags |= {"blank_token_id": num_pieces, "max_symbols_per_step": 7}
        flags |= {"durations": [0, 1, 2, 4]} if kind == "TDT" else {}
    name = f"ParakeetFor{kind}"
    model = getattr(own, name)(getattr(own, f"Parakeet{kind}Config")(**fields_of(name, flags))).eval()
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    return model


def config_of(model: Any) -> dict[str, Any]:
    """Return the content of model_config.yaml for a model."""
    config, encoder = model.config, model.encoder_config.to_dict()
    values = {
        "preprocessor": dict(PREPROCESSOR),
        "encoder": {**ENCODER, **{theirs: encoder[ours] for theirs, ours in FIELDS.items()}},
        "tokenizer": {"type": "bpe", "model_path": "nemo:0123_tokenizer.model"},
    }
    if hasattr(model, "ctc_head"):
        target = "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE"
        return {"target": target, **values, "decoder": {"num_classes": config.vocab_size - 1}}
    return {
        **values,
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder", "normalization_mode": None,
            "random_state_sampling": False, "blank_as_pad": True, "vocab_size": config.vocab_size - 1,
            "prednet": {
                "pred_hidden": config.decoder_hidden_size, "pred_rnn_layers": config.num_decoder_layers,
                "t_max": None, "dropout": 0.2,
            },
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint", "log_softmax": None, "preserve_memory": False,
            "jointnet": {"joint_hidden": config.decoder_hidden_size, "activation": "relu", "dropout": 0.2},
            "num_classes": config.vocab_size - 1, "num_extra_outputs": len(model.durations),
        },
        "decoding": {
            "strategy": "greedy_batch", "model_type": "tdt" if model.durations else "rnnt",
            "durations": [*model.durations], "greedy": {"max_symbols": config.max_symbols_per_step},
        },
    }  # fmt: skip


def weights_of(model: Any, decoder: str = "decoder.") -> dict[str, torch.Tensor]:
    """Return the weights by their names in NeMo."""
    found = {"preprocessor.featurizer.window": torch.ones(400), "preprocessor.featurizer.fb": torch.ones(1, 16, 257)}
    for name, tensor in model.state_dict().items():
        for ours, theirs in NAMES.items():
            name = re.sub(ours, theirs, name)
        found[name.replace("ctc_head.", f"{decoder}decoder_layers.0.")] = tensor
    return found


def saved(weights: object) -> bytes:
    """Return the content of a file of `torch.save`."""
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


def changed(config: dict[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """Change values of a configuration, which are named by part__field."""
    for name, value in changes.items():
        *parts, field = name.split("__")
        part = config
        for one in parts:
            part = part[one]
        part[field] = value
    return config


def members_of(model: Any, tokenizer: bytes, **changes: object) -> dict[str, bytes]:
    """Return the members of an archive of a model; `changes` are values of its configuration by part__field."""
    return {
        CONFIG: yaml.safe_dump(changed(config_of(model), changes)).encode(),
        TOKENIZER: tokenizer,
        WEIGHTS: saved(weights_of(model)),
    }


def write_archive(path: Path, members: Mapping[str, bytes | str], mode: str = "w") -> Path:
    """Write a tar archive of named contents; a string is the path to which a link leads."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
