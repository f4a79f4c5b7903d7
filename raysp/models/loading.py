"""Loading of checkpoints: the model, further heads, feature extractor and tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysp.checkpoints.hub import local_checkpoint
from raysp.errors import CheckpointError
from raysp.models.base.capabilities import Capability
from raysp.models.base.modeling import Model, Padding
from raysp.models.checking import CheckpointSummary, check_checkpoint, load_feature_extractor
from raysp.models.encoder.heads import layer_weights_of
from raysp.models.encoder.several_heads import with_encoder_of
from raysp.models.features.processors import FeatureExtractor, TextOrCTCTokenizer, Wav2Vec2CTCTokenizer, read_tokenizer
from raysp.models.registry import model_classes
from raysp.models.tokenizers.pieces import ParakeetTokenizer
from raysp.models.tokenizers.written import CTCTokenizer


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with its feature extractor and tokenizer."""

    summary: CheckpointSummary
    model: Model
    feature_extractor: FeatureExtractor
    tokenizer: "TextOrCTCTokenizer | None"
    """None for a model without text output."""
    more_heads: tuple[Model, ...] = ()
    """Further heads over the model's encoder, if config.json names several architectures."""

    @property
    def sample_rate(self) -> int:
        """Samples per second that the model expects."""
        return self.feature_extractor.sampling_rate

    @property
    def layer_weights(self) -> torch.Tensor | None:
        """Learned weights (K,) of the hidden states, of the first head that reads their sum; None without one."""
        found = (layer_weights_of(model) for model in (self.model, *self.more_heads))
        return next((one for one in found if one is not None), None)

    @property
    def text_tokenizer(self) -> CTCTokenizer:
        """The tokenizer of a CTC head; that of a text decoder is `tokenizer`."""
        if not isinstance(self.tokenizer, Wav2Vec2CTCTokenizer | ParakeetTokenizer):
            raise CheckpointError(f"{type(self.model).__name__} has no CTC head: use a checkpoint with one for text")
        return self.tokenizer


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
) -> Model:
    """Load the model of a checkpoint folder or hub id in eval mode; the first of several heads.

    Arguments as for `Model.from_pretrained`.
    """
    return load_models(folder, dtype=dtype, device=device, padding=padding)[0]


def load_models(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
) -> list[Model]:
    """Load the model of a checkpoint and further heads over its encoder, as `load_model` does."""
    folder = local_checkpoint(folder)
    classes = model_classes(folder)
    options: dict[str, Any] = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    options |= {"dtype": dtype, "padding": padding, "strict": len(classes) == 1}
    if len(classes) > 1:
        check_checkpoint(folder)  # checks all weights against all classes; each class below ignores those of others
    model = classes[0].from_pretrained(folder, device=device, **options)
    return [model, *(with_encoder_of(model, cls.from_pretrained(folder, **options)) for cls in classes[1:])]


def load_checkpoint(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
) -> LoadedCheckpoint:
    """Load the model of a checkpoint folder or hub id with its feature extractor and its tokenizer."""
    folder = local_checkpoint(folder)
    model, *more_heads = load_models(folder, dtype=dtype, device=device, padding=padding)
    summary = check_checkpoint(folder)
    has_text = {Capability.CTC, Capability.TEXT_DECODER} & {*summary.gives}
    return LoadedCheckpoint(
        summary,
        model,
        load_feature_extractor(folder),
        read_tokenizer(folder) if has_text else None,
        tuple(more_heads),
    )
