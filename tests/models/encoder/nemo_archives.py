"""Small .nemo archives of a random FastConformer CTC model."""

import io
import tarfile
from pathlib import Path

import sentencepiece
import torch
import yaml

from raysp.models import ParakeetCTCConfig, ParakeetForCTC
from raysp.models.nemo import FIELDS, HEAD, NAMES
from tests.models.oracles import fields_of

TEXTS = ["the cat sat on the mat", "a cat is on a mat", "hello there", "that hat is his", "she sells sea shells"] * 4
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


def sentencepiece_model(kind: str = "bpe") -> bytes:
    """Return a small sentencepiece model."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=file, vocab_size=40, model_type=kind, bos_id=-1, eos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return file.getvalue()


def random_model(num_pieces: int, **flags: object) -> ParakeetForCTC:
    """Return a random model with a class for each piece and the blank."""
    torch.manual_seed(0)
    flags = {"intermediate_size": 64, "layerdrop": 0.0, "dropout": 0.2, "initializer_range": 1.0, **flags}
    flags |= {"vocab_size": num_pieces + 1, "pad_token_id": num_pieces, "activation_dropout": 0.2}
    model = ParakeetForCTC(ParakeetCTCConfig(**fields_of("ParakeetForCTC", flags))).eval()
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    return model


def config_of(model: ParakeetForCTC) -> dict:
    """Return the content of model_config.yaml for a model."""
    values = model.encoder_config.to_dict()
    encoder = {theirs: values[ours] for theirs, ours in FIELDS.items()}
    return {
        "target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE",
        "preprocessor": dict(PREPROCESSOR),
        "encoder": {**ENCODER, **encoder},
        "decoder": {"num_classes": model.config.vocab_size - 1},
        "tokenizer": {"type": "bpe", "model_path": "nemo:0123_tokenizer.model"},
    }


def weights_of(model: ParakeetForCTC, decoder: str = "decoder.") -> dict[str, torch.Tensor]:
    """Return the weights by their names in NeMo."""
    found = {"preprocessor.featurizer.window": torch.ones(400), "preprocessor.featurizer.fb": torch.ones(1, 16, 257)}
    for name, tensor in model.state_dict().items():
        for theirs, ours in NAMES:
            name = name.replace(ours, theirs)
        found[name.replace("ctc_head.", decoder + HEAD)] = tensor
    return found


def saved(weights: object) -> bytes:
    """Return the content of a file of `torch.save`."""
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


def write_archive(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """Write a tar archive of named contents, in NeMo's way below "./"."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members_of(model: ParakeetForCTC, tokenizer: bytes, **changes: bytes) -> dict[str, bytes]:
    """Return the members of an archive of a model."""
    return {
        "./model_config.yaml": yaml.safe_dump(config_of(model)).encode(),
        "./0123_tokenizer.model": tokenizer,
        "./model_weights.ckpt": saved(weights_of(model)),
    } | changes
