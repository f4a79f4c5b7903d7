"""Models of transformers as labelling runs them.

Features of the known extractors are computed for a whole batch on the device of its waveforms, others by the extractor
itself, on the host.

Legend: B batch, S samples, T frames, H hidden, K frequencies, M mel bins.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from raysp.audio.waveforms import as_float32
from raysp.backends.hugging_face.collating import collated
from raysp.backends.hugging_face.decoded_texts import TextWriter
from raysp.backends.hugging_face.describing import (
    WHISPER,
    Kind,
    describe,
    extractor_of,
    features_of,
    kind_of,
)
from raysp.backends.hugging_face.loaded_weights import load_weights
from raysp.backends.hugging_face.padded_batches import check_pair
from raysp.backends.on_ctranslate2.whisper_mels import ENERGY_FLOOR, RANGE
from raysp.capabilities import Capability
from raysp.crossing import fetch, fetch_recordings, sent
from raysp.errors import CheckpointError
from raysp.models.encoder.languages import LanguageSwitch
from raysp.models.features.processors import Wav2Vec2FeatureExtractor
from raysp.models.features.seamless import SeamlessM4TFeatureExtractor
from raysp.models.labelled_passes import CheckpointSummary, ModelPass

Features: TypeAlias = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Returns the inputs of a model from float32 waveforms (B, S), zero from each row's end on, and their lengths (B,)."""

OWN_EXTRACTORS: Mapping[type, type[Wav2Vec2FeatureExtractor] | type[SeamlessM4TFeatureExtractor]] = {
    transformers.Wav2Vec2FeatureExtractor: Wav2Vec2FeatureExtractor,
    transformers.SeamlessM4TFeatureExtractor: SeamlessM4TFeatureExtractor,
}
"""Extractors of raysp by those of transformers with the same features."""
OF_ENCODERS = {Capability.CTC, Capability.HIDDEN_STATES}
"""Capabilities that read the frames of an encoder."""


def known_features(extractor: Any) -> Features | None:  # noqa: ANN401 - a class of transformers
    """Return the function that computes an extractor's features for a batch; None if its class or settings are unknown.

    Rows without an attention mask are normalised with their padding, as by the original.
    """
    if getattr(extractor, "padding_side", "right") != "right":
        return None
    if type(extractor) is transformers.WhisperFeatureExtractor:
        is_usual = not (extractor.padding_value or extractor.dither or extractor.return_attention_mask)
        return _OfWhisper(extractor) if is_usual else None
    own = OWN_EXTRACTORS.get(type(extractor))
    return None if own is None else partial(_masked, own.of_settings(vars(extractor)))


def _masked(
    extractor: Wav2Vec2FeatureExtractor | SeamlessM4TFeatureExtractor, waves_BS: Tensor, num_samples_B: Tensor
) -> Mapping[str, Tensor]:
    """Return features with a mask of each row's own ones, if the extractor returns it."""
    has_mask = extractor.return_attention_mask
    if not has_mask and isinstance(extractor, Wav2Vec2FeatureExtractor):
        num_samples_B = torch.full_like(num_samples_B, waves_BS.shape[1])
    features = {**extractor.extract(waves_BS, num_samples_B)}
    mask = features.pop("attention_mask")
    return {**features, "attention_mask": mask.int()} if has_mask else features


class _OfWhisper:
    """Log-mels (B, M, T) of recordings that are padded to one length, 30 s as a rule (Radford et al. 2022)."""

    def __init__(self, extractor: Any) -> None:  # noqa: ANN401
        self.extractor = extractor
        self._constants_of: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, waves_BS: Tensor, num_samples_B: Tensor) -> Mapping[str, Tensor]:
        samples, hop, bins = self.extractor.n_samples, self.extractor.hop_length, self.extractor.feature_size
        mels_BMT = waves_BS.new_full((len(waves_BS), bins, samples // hop), math.log10(ENERGY_FLOOR))
        if waves_BS.device.type == "cpu":  # a row at a time fits the caches, and costs its own length
            for wave_S, mels_MT, length in zip(waves_BS, mels_BMT, num_samples_B.tolist(), strict=True):
                self._write(wave_S[None, :length], mels_MT[None])
        else:
            self._write(waves_BS, mels_BMT)
        least_B11 = mels_BMT.amax((1, 2), keepdim=True) - RANGE
        return {"input_features": torch.maximum(mels_BMT, least_B11).add_(4.0).div_(4.0)}

    def _write(self, waves_BS: Tensor, mels_BMT: Tensor) -> None:
        """Write the logarithms of the frames that have samples of the recordings; those after them are silent."""
        window, hop, samples = self.extractor.n_fft, self.extractor.hop_length, self.extractor.n_samples
        needed = min(samples, -(-(waves_BS.shape[1] + window) // hop) * hop)
        padded_BS = functional.pad(waves_BS, (0, needed - waves_BS.shape[1]))  # a negative number cuts
        padded_BS = functional.pad(padded_BS, (window // 2, window // 2), mode="reflect")
        hann_S, filters_KM = self._constants(waves_BS.device)
        spectrum_BTK = torch.fft.rfft(padded_BS.unfold(1, window, hop)[:, : needed // hop] * hann_S)
        energies_BTM = torch.matmul(spectrum_BTK.abs().square().to(filters_KM.dtype), filters_KM).float()
        mels_BMT[:, :, : needed // hop] = energies_BTM.clamp_(min=ENERGY_FLOOR).log10_().mT

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the window and the filters; on a GPU those in float64, since float32 products may have ten bits."""
        if device not in self._constants_of:
            with torch.inference_mode(False):
                filters_KM = torch.from_numpy(self.extractor.mel_filters)
                dtype = torch.float32 if device.type == "cpu" else torch.float64
                window = torch.hann_window(self.extractor.n_fft)
                self._constants_of[device] = window.to(device), filters_KM.to(device, dtype)
        return self._constants_of[device]


class HuggingFaceModel:
    """A checkpoint of transformers: features of known extractors on the device of the model, others on the host."""

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        self.summary: CheckpointSummary = describe(folder)
        self.kind = kind_of(folder)
        self.extractor = extractor_of(folder)
        self._features = known_features(self.extractor)
        self.is_padded = self.summary.takes_padding and self.summary.max_samples is None
        self.model = load_weights(folder, self.kind, dtype)
        if self.summary.adapter is not None and self.summary.language is not None:
            LanguageSwitch(self.model, folder, None).use(self.summary.language)
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

        They are those of each row alone, padded if rows differ in length.
        """
        if self._features is not None:
            return None
        return collated([features_of(self.extractor, as_float32(wave), has_mask=self.is_padded) for wave in waves], 0)

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
        has_mask = self.kind.model_type != WHISPER or first is self.model  # the encoder of Whisper takes none
        inputs = features if has_mask else {"input_features": features["input_features"]}
        output = first(**inputs, output_hidden_states=hidden_states)
        heads = {} if self.kind.head in (None, Capability.TEXT_DECODER) else {self.kind.head: output}
        whole_B = torch.div(
            num_samples_B - self.summary.receptive_samples, self.summary.frame_stride, rounding_mode="floor"
        )
        return ModelPass(
            heads=heads,  # type: ignore[arg-type] # without None
            num_frames_B=(whole_B + 1).clamp(min=0).to(self.device),
            encoded=vars(self._of_thread).pop("encoded"),
            features=features,
        )

    def _on_device(
        self, waves_BS: Tensor, num_samples_B: Tensor, prepared: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """Return the inputs of the model on its device, in its data type."""
        if self._features is not None:
            prepared = self._features(waves_BS, num_samples_B)
        elif prepared is None:  # without a labelling, which prepares batches
            prepared = self.prepare(fetch_recordings(waves_BS, num_samples_B))
        return {
            name: sent(value, self.device).to(self.dtype if value.is_floating_point() else value.dtype)
            for name, value in (prepared or {}).items()
        }

    def writer(self, options: Mapping[str, object], **request: Any) -> TextWriter:  # noqa: ANN401
        """Return the text decoder with the options of a transcript."""
        return TextWriter(self.model, self.summary, options, **request)

    @torch.inference_mode()
    def check_padding(self) -> None:
        """Compare a recording alone and in a padded batch, as `check_pair`, if rows of a batch differ in length."""
        if self.is_padded:
            check_pair(self, self._first_scores)

    def _first_scores(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of the first row (T, V)."""
        lengths_B = torch.tensor([*map(len, waves)])
        waves_BS = pad_sequence([*map(torch.from_numpy, waves)], batch_first=True).to(self.device)
        output = self.run(waves_BS, lengths_B, hidden_states=False, prepared=self.prepare(waves))
        logits_BTV = output.heads[Capability.CTC]["logits"]
        [scores_TV] = fetch(logits_BTV[0, : self.summary.num_frames(len(waves[0]))].float())
        return scores_TV

    @torch.inference_mode()
    def _check_frames(self) -> None:
        """Raise CheckpointError unless the model has the frames of its description."""
        if not OF_ENCODERS & {*self.summary.gives} or self.summary.max_samples is not None:
            return
        least, later = self.summary.min_samples, self.summary.min_samples + 3 * self.summary.frame_stride
        for samples in (later, later - 1, least):
            wave = torch.zeros(1, samples, device=self.device)
            encoded: Any = self.run(wave, torch.tensor([samples]), hidden_states=False).encoded
            frames, expected = encoded.last_hidden_state.shape[1], self.summary.num_frames(samples)
            if frames != expected:
                raise CheckpointError(
                    f"{self.summary.path}: {self.summary.architecture} has {frames} frames of {samples} samples, and "
                    f"{expected} by its function for lengths; raysp cannot label with it"
                )


def _encoder_of(kind: Kind, model: Any) -> Any:  # noqa: ANN401 - of transformers
    """Return the module whose output are the frames of the audio."""
    if kind.head is Capability.TEXT_DECODER:
        return model.get_encoder()
    return model.encoder if kind.head and model.base_model is model else model.base_model
