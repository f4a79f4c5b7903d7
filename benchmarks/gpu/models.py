"""Models of published sizes with random weights, made on the device without a checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as vocabularies

from raysp import models
from raysp.models.base.packs import EncodesPacks
from raysp.models.checking import reads_packs, shape_digest
from raysp.models.loading import LoadedCheckpoint
from raysp.models.summary import CheckpointSummary
from raysp.ops.labelling import Labelling

RATE = 16_000
LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'")
LAYER_NORM = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
Made = tuple[Any, Any, Any]
"""Class of the model, its configuration, and its feature extractor."""


def _waves(name: str, sizes: Mapping[str, Any], small: Mapping[str, Any], is_small: bool) -> Made:
    config = getattr(models, f"{name}Config")(**({**sizes, **small, **SMALL} if is_small else sizes))
    return getattr(models, f"{name}ForCTC"), config, models.Wav2Vec2FeatureExtractor(return_attention_mask=True)


FEW_CHANNELS = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


def _base(is_small: bool) -> Made:
    return _waves("Wav2Vec2", {}, FEW_CHANNELS, is_small)


def _large(is_small: bool) -> Made:
    return _waves("UniSpeech", {**LARGE, **LAYER_NORM}, FEW_CHANNELS, is_small)


def _sew_d(is_small: bool) -> Made:
    few = {"conv_dim": (32,) * 13, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return _waves("SEWD", {}, few, is_small)


def _bert(is_small: bool) -> Made:
    sizes: dict[str, Any] = {**SMALL, "output_hidden_size": 64} if is_small else {}
    config = models.Wav2Vec2BertConfig(vocab_size=len(LETTERS), **sizes)
    return models.Wav2Vec2BertForCTC, config, models.SeamlessM4TFeatureExtractor()


def _parakeet(layers: int, hidden_size: int) -> Callable[[bool], Made]:
    def make(is_small: bool) -> Made:
        sizes = {"hidden_size": hidden_size, "num_hidden_layers": layers, "intermediate_size": 4 * hidden_size}
        encoder = models.ParakeetEncoderConfig(**({**SMALL, "subsampling_conv_channels": 16} if is_small else sizes))
        vocab_size = 65 if is_small else 1025
        config = models.ParakeetCTCConfig(encoder_config=encoder, vocab_size=vocab_size, pad_token_id=vocab_size - 1)
        return models.ParakeetForCTC, config, models.ParakeetFeatureExtractor(feature_size=encoder.num_mel_bins)

    return make


PUBLISHED: Mapping[str, Callable[[bool], Made]] = {
    "wav2vec2-base 94M": _base,
    "unispeech-large 315M": _large,
    "w2v-bert 600M": _bert,
    "fastconformer 110M": _parakeet(17, 512),
    "sew-d 94M": _sew_d,
    "parakeet 600M": _parakeet(24, 1024),
}
MODELS = tuple(PUBLISHED)


def on_meta(name: str, dtype: str) -> tuple[Any, Any]:
    """Return a model of published size without memory, and its feature extractor."""
    cls, config, extractor = PUBLISHED[name](False)
    with torch.device("meta"):
        return cls(config).to(getattr(torch, dtype)).eval(), extractor


def make(name: str, device: str, dtype: str) -> LoadedCheckpoint:
    """Return a model with random weights, small unless it is for a card."""
    cls, config, extractor = PUBLISHED[name](device != "cuda")
    return loaded(cls, config, extractor, _tokenizer(config), device, dtype)


def loaded(cls: Any, config: Any, extractor: Any, tokenizer: Any, device: str, dtype: str) -> LoadedCheckpoint:
    """Return a model with random weights as one that was loaded from a checkpoint."""
    torch.manual_seed(0)
    # Parameters that are on the stand-in already keep their dtype, so its models are made on the CPU.
    with torch.device("cuda" if device == "cuda" else "cpu"):
        model = cls(config).init_weights()
    model = model.to(getattr(torch, dtype)).to(device).eval()
    summary = CheckpointSummary(
        path=Path("random"),
        model_type=config.model_type,
        architecture=cls.__name__,
        num_parameters=sum(one.numel() for one in model.parameters()),
        sample_rate=RATE,
        vocab_size=getattr(config, "vocab_size", None),
        min_samples=model.min_samples,
        frame_stride=model.frame_stride,
        gives=tuple(model.gives),
        receptive_samples=model.receptive_samples,
        hidden_stride=model.hidden_stride,
        output_size=model.output_size,
        takes_packs=isinstance(model.speech_encoder, EncodesPacks) and reads_packs(model),
        shapes=shape_digest([model]),
    )
    return LoadedCheckpoint(summary, model, extractor, tokenizer)


def _tokenizer(config: Any) -> Any:
    if config.model_type != "parakeet_ctc":
        return models.Wav2Vec2CTCTokenizer({token: number for number, token in enumerate(LETTERS)})
    pieces = ["<unk>", *(f"▁p{number}" for number in range(config.vocab_size - 2))]
    backend = Tokenizer(vocabularies.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens([AddedToken("<unk>", special=True), AddedToken("<pad>", special=True)])
    return models.ParakeetTokenizer(backend, "ParakeetTokenizer", unk_token="<unk>", pad_token="<pad>")


class InMemory:
    """A backend whose checkpoint is a model that is there already."""

    def __init__(self, found: LoadedCheckpoint) -> None:
        self.found = found

    def describe(self, folder: Path) -> CheckpointSummary:
        """Return the description of the model."""
        return self.found.summary

    def load(self, folder: Path, **_: object) -> LoadedCheckpoint:
        """Return the model."""
        return self.found


def labelling(
    found: LoadedCheckpoint,
    outputs: Sequence[Any],
    batch_seconds: float,
    device: str,
    *,
    certified: bool = False,
    graphs: bool = False,
) -> Labelling:
    """Return the op that labels blocks with a model, as an actor of a run has it; in packs if the card is certified."""
    return Labelling(
        "random",
        lambda one: [output.op(one) for output in outputs],
        batch_seconds=batch_seconds,
        dtype=str(found.dtype).removeprefix("torch."),
        device=device,
        backend=InMemory(found),
        certified=certified,
        graphs=graphs,
    )
