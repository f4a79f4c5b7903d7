"""Models of transformers as labelling runs them.

Legend: B batch, S samples, T frames, H hidden.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from raysp.audio.waveforms import as_float32
from raysp.backends.hugging_face.checkpoint_kinds import DIRECT, Kind, extractor_of, features_of, kind_of, read
from raysp.backends.hugging_face.decoded_texts import Encoded, TextWriter
from raysp.backends.hugging_face.describing import WHISPER, describe
from raysp.backends.hugging_face.features import known_features
from raysp.capabilities import Capability
from raysp.crossing import fetch, sent
from raysp.errors import CheckpointError
from raysp.models.base.modeling import HEAD_PARTS
from raysp.models.base.outputs import CausalLMOutput, ModelOutput, XVectorOutput
from raysp.models.base.weights import read_safetensors
from raysp.models.labelled_passes import CheckpointSummary, ModelPass

NAMES_SHOWN = 5
IN_TRAINING = "masked_spec_embed"
"""Suffix of a weight that is used in training only, and that some checkpoints lack."""


class HuggingFaceModel:
    """A checkpoint of transformers: features of known extractors on the device of the model, others on the host."""

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        self.summary: CheckpointSummary = describe(folder)
        self.kind = kind_of(folder)
        self.extractor = extractor_of(folder)
        self._features = known_features(self.extractor)
        self.model = _load_weights(folder, self.kind, dtype)
        if self.summary.adapter is not None:
            _use_adapter(self.model, folder / self.summary.adapter)
        self.model = self.model.to(device).eval()
        self.device, self.dtype = torch.device(device), self.model.dtype
        self._of_thread = threading.local()
        self.encoder: Any = _encoder_of(self.kind, self.model)
        self.encoder.register_forward_hook(self._keep)
        self._check_frames()

    def _keep(self, _: object, __: object, output: Any) -> None:  # noqa: ANN401 - an output of transformers
        self._of_thread.encoded = output

    def prepare(self, waves: Sequence[np.ndarray]) -> Mapping[str, Tensor] | None:
        """Return the inputs of the model for a batch as `PreparingModel` says; None: they are computed on the device.

        They are those of each row alone.
        """
        if self._features is not None:
            return None
        rows = [features_of(self.extractor, as_float32(wave)) for wave in waves]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def run(
        self,
        waves_BS: Tensor,
        num_samples_B: Tensor,
        *,
        hidden_states: bool,
        prepared: Mapping[str, Tensor] | None = None,
    ) -> ModelPass:
        """Run the model, or the encoder of one that writes text, as `PreparingModel` says."""
        features = self._on_device(waves_BS, num_samples_B, prepared)
        first = self.encoder if self.summary.writes_text else self.model
        output = first(**self._inputs(first, features), output_hidden_states=hidden_states)
        heads = {} if self.kind.head in (None, Capability.TEXT_DECODER) else {self.kind.head: _of_head(output)}
        whole_B = torch.div(
            num_samples_B - self.summary.receptive_samples, self.summary.frame_stride, rounding_mode="floor"
        )
        return ModelPass(
            heads=heads,  # type: ignore[arg-type] # without None
            num_frames_B=(whole_B + 1).clamp(min=0).to(self.device),
            encoded=self._encoded(),
            features=features,
        )

    def _on_device(
        self, waves_BS: Tensor, num_samples_B: Tensor, prepared: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """Return the inputs of the model on its device, in its data type."""
        if self._features is not None:
            prepared = self._features(waves_BS, num_samples_B)
        elif prepared is None:  # without a labelling, which prepares batches
            waves, lengths = fetch(waves_BS, num_samples_B)
            prepared = self.prepare([wave[:length] for wave, length in zip(waves, lengths, strict=True)])
        return {
            name: sent(value, self.device).to(self.dtype if value.is_floating_point() else value.dtype)
            for name, value in (prepared or {}).items()
        }

    def writer(self, options: Mapping[str, object], *, language: str | None, task: str | None) -> TextWriter:
        """Return the text decoder with the options of a transcript."""
        return TextWriter(self.model, self.summary.path, self.kind, options, language=language, task=task)

    def _inputs(self, module: Any, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:  # noqa: ANN401
        """Return the features that a module takes: the encoder of Whisper has no mask."""
        if self.kind.model_type == WHISPER and module is self.encoder:
            return {"input_features": features["input_features"]}
        return features

    def _encoded(self) -> ModelOutput:
        """Return the last output of the encoder in this thread, which is no longer kept."""
        found = vars(self._of_thread).pop("encoded")
        return Encoded(last_hidden_state=found.last_hidden_state, hidden_states=found.hidden_states, original=found)

    @torch.inference_mode()
    def _check_frames(self) -> None:
        """Raise CheckpointError unless the model has the frames of its description."""
        if Capability.HIDDEN_STATES not in self.summary.gives or self.summary.max_samples is not None:
            return
        for samples in (self.summary.min_samples, self.summary.min_samples + 3 * self.summary.frame_stride + 1):
            wave = torch.zeros(1, samples, device=self.device)
            encoded = cast("Encoded", self.run(wave, torch.tensor([samples]), hidden_states=False).encoded)
            frames, expected = encoded.last_hidden_state.shape[1], self.summary.num_frames(samples)
            if frames != expected:
                raise CheckpointError(
                    f"{self.summary.path}: {self.summary.architecture} has {frames} frames of {samples} samples, and "
                    f"{expected} by its conv_kernel and conv_stride; raysp cannot label with it"
                )


def _use_adapter(model: Any, path: Path) -> None:  # noqa: ANN401 - of transformers
    """Make the weights of a language those of a model, as `load_adapter` of Wav2Vec2ForCTC does for all classes.

    Raises:
        CheckpointError: the model has no such weights, or of other shapes.
    """
    tensors = read_safetensors(path)
    places = {
        name: value
        for name, value in model.named_parameters()
        if ".adapter_layer." in name or name.startswith("lm_head.")
    }
    fit = [name in places and tensors[name].shape[1:] == places[name].shape[1:] for name in tensors]
    if tensors.keys() != places.keys() or not all(fit):
        raise CheckpointError(f"{path}: weights do not match the model's adapters: use an adapter of this checkpoint")
    for name, value in tensors.items():
        places[name].data = value.to(places[name].dtype, copy=True)
    model.lm_head.out_features = model.config.vocab_size = len(tensors["lm_head.weight"])


def _encoder_of(kind: Kind, model: Any) -> Any:  # noqa: ANN401 - of transformers
    """Return the module whose output are the frames of the audio."""
    if kind.head is Capability.TEXT_DECODER:
        return model.get_encoder()
    return model.encoder if kind.model_type == WHISPER else model.base_model


def _of_head(output: Any) -> ModelOutput:  # noqa: ANN401 - an output of transformers
    if "embeddings" in output:
        return XVectorOutput(logits=output.logits, embeddings=output.embeddings)
    return CausalLMOutput(logits=output.logits)


def _load_weights(folder: Path, kind: Kind, dtype: str) -> Any:  # noqa: ANN401 - a model of transformers
    """Return the model with the weights of a checkpoint.

    Raises:
        CheckpointError: names or shapes of its weights do not fit.
    """
    attention = "sdpa" if getattr(kind.model_class, "_supports_sdpa", False) else "eager"
    options = {
        **{name: value for name, value in DIRECT.items() if name != "trust_remote_code"},
        "config": kind.config,
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "attn_implementation": attention,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are refused below, by name; the error of transformers names none
    }
    model, info = read(folder, lambda: kind.model_class.from_pretrained(folder, **options))
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        named = (one for one in map(_shown, info.get(name) or ()) if not one.endswith(IN_TRAINING))
        others = HEAD_PARTS if kind.head is None and name == "unexpected_keys" else frozenset()
        if found := sorted(one for one in named if one.partition(".")[0] not in others):
            more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
            raise CheckpointError(
                f"{folder}: weights do not fit {kind.model_class.__name__}: {name} {', '.join(found[:NAMES_SHOWN])}"
                f"{more}; use the config.json that was saved with these weights"
            )
    return model


def _shown(key: str | tuple[str, Sequence[int], Sequence[int]]) -> str:
    """Return the name of a weight, with its shapes in file and model if these differ."""
    return key if isinstance(key, str) else f"{key[0]} {[*key[1]]} instead of {[*key[2]]}"
