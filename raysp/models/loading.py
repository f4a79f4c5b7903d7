"""Loading of checkpoints: the model, further heads, feature extractor and tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from raysp.capabilities import TEXT, Capability
from raysp.checkpoints.hub import local_checkpoint
from raysp.errors import CheckpointError
from raysp.models.base.modeling import Model, Padding
from raysp.models.base.outputs import ModelOutput
from raysp.models.checking import CheckpointSummary, check_checkpoint, load_feature_extractor
from raysp.models.encoder.encoder_heads import ForCTC
from raysp.models.encoder.heads import layer_weights_of
from raysp.models.encoder.languages import LanguageSwitch
from raysp.models.encoder.several_heads import encoded_before, encoded_by, with_encoder_of
from raysp.models.features.processors import FeatureExtractor
from raysp.models.labelled_passes import ModelPass
from raysp.models.registry import model_classes
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer, read_tokenizer
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
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.model.dtype

    @property
    def layer_weights(self) -> torch.Tensor | None:
        """Learned weights (K,) of the hidden states, of the first head that reads their sum; None without one."""
        found = (layer_weights_of(model) for model in (self.model, *self.more_heads))
        return next((one for one in found if one is not None), None)

    @property
    def text_tokenizer(self) -> CTCTokenizer:
        """The tokenizer of a CTC head; that of a text decoder is `tokenizer`."""
        if self.tokenizer is None or not self.tokenizer.is_of_ctc:
            raise CheckpointError(f"{type(self.model).__name__} has no CTC head: use a checkpoint with one for text")
        return cast(CTCTokenizer, self.tokenizer)

    @cached_property
    def _switch(self) -> LanguageSwitch:
        model = next(one for one in (self.model, *self.more_heads) if isinstance(one, ForCTC))
        return LanguageSwitch(model, self.summary.path, self.summary.language)

    def use_language(self, language: str) -> None:
        """Exchange adapter layers and CTC head for those of a language; not while the model runs.

        Raises:
            CheckpointError: the checkpoint lacks the file of the language, or it does not match the model.
            StoreError: the file cannot be fetched.
        """
        self._switch.use(language)

    def num_frames(self, num_samples: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the number of output frames of each row, and that of hidden states, from its number of samples."""
        samples_B = torch.tensor(num_samples, dtype=torch.int64)
        return self.model.num_frames(samples_B).tolist(), self.model.num_hidden_frames(samples_B).tolist()

    def run(self, waves_BS: torch.Tensor, num_samples_B: torch.Tensor, *, hidden_states: bool) -> ModelPass:
        """Run the encoder once, and all heads over it, as `LabellingModel` says."""
        model, weighs_layers = self.model, any(layer_weights_of(head) is not None for head in self.more_heads)
        features = self.feature_extractor.extract(waves_BS, num_samples_B)
        with encoded_by(model) as encoded:
            # Heads of pre-training, and text decoders, have no output of frames that a label is made of.
            first = model if model.gives and not self.summary.writes_text else model.speech_encoder
            output = first(**features, output_hidden_states=hidden_states or weighs_layers)
        heads: dict[Capability, ModelOutput] = {}
        if not self.summary.writes_text:
            heads |= {one: output for one in self.summary.gives if one is not Capability.HIDDEN_STATES}
        for head in self.more_heads:
            with encoded_before(model, encoded[0]):
                heads |= dict.fromkeys(head.gives, head(**features))
        return ModelPass(
            heads=heads,
            num_frames_B=model.num_frames(num_samples_B),
            encoded=encoded[0],
            features=features,
            hidden_frames_B=model.num_hidden_frames(num_samples_B),
            frames_a_hidden_frame=Fraction(model.hidden_stride, model.frame_stride),
        )


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
        # Checks all weights against all classes; each class below ignores those of others.
        check_checkpoint(folder, is_announced=False)
    model = classes[0].from_pretrained(folder, device=device, **options)
    return [model, *(with_encoder_of(model, cls.from_pretrained(folder, **options)) for cls in classes[1:])]


def load_checkpoint(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
    is_announced: bool = True,
) -> LoadedCheckpoint:
    """Load the model of a checkpoint folder or hub id with its feature extractor and its tokenizer.

    Arguments as for `Model.from_pretrained` and `check_checkpoint`; without `is_announced`, `use_language` follows.
    """
    folder = local_checkpoint(folder)
    model, *more_heads = load_models(folder, dtype=dtype, device=device, padding=padding)
    summary = check_checkpoint(folder, is_announced=is_announced)
    has_text = TEXT & {*summary.gives} and not summary.contradiction
    loaded = LoadedCheckpoint(
        summary,
        model,
        load_feature_extractor(folder),
        read_tokenizer(folder) if has_text else None,
        tuple(more_heads),
    )
    if summary.adapter is not None and summary.language is not None:
        loaded.use_language(summary.language)
    return loaded
