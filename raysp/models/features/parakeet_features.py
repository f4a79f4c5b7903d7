"""Feature extractor and processor of Parakeet models: log-mel energies as NeMo computes them.

The waveform is pre-emphasised and framed around every tenth millisecond, with zeros before its start and after its end.
Each bin of a row has zero mean and unit variance over the row's own frames.
`ParakeetFeatureExtractor.extract` serves raysp's own steps; calling the extractor behaves as in transformers.

Legend: B batch, S samples, M log-mel frames, N mel bins, K frequencies.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.base.batches import BatchFeature, on_host, tensors_of
from raysp.models.base.row_layout import Count
from raysp.models.features.log_mels import normalise
from raysp.models.features.processors import FeatureExtractor, Wav2Vec2Processor, waveforms_of
from raysp.models.tokenizers.described import BLANK
from raysp.models.tokenizers.pieces import ParakeetTokenizer

ENERGY_FLOOR = 2.0**-24  # added to energies
DEVIATION_FLOOR = 1e-5  # added to deviations
LINEAR_HERTZ, LINEAR_MELS = 1000.0, 15.0  # where Slaney's scale turns from linear to logarithmic
MEL_RATIO = math.log(6.4) / 27  # of frequencies one mel apart above that
SUBSAMPLING = 8
"""Log-mel frames for each frame of an encoder: of all published models, and in transformers."""
MARKS = frozenset("?'¡¿-:,%/.!")
"""Punctuation that takes no time."""


def slaney_filters(num_bins: int, num_frequencies: int, sample_rate: int) -> Tensor:
    """Return triangular filters (K, N), float32, of equal areas, linear in hertz and equally wide in mels.

    The scale follows Slaney (1998, Auditory Toolbox): linear below 1 kHz, logarithmic above.
    """
    top = sample_rate / 2
    highest = LINEAR_MELS + math.log(top / LINEAR_HERTZ) / MEL_RATIO if top >= LINEAR_HERTZ else _linear_mels(top)
    mels = torch.linspace(0.0, highest, num_bins + 2, dtype=torch.float64)
    above = LINEAR_HERTZ * torch.exp(MEL_RATIO * (mels - LINEAR_MELS))
    corners = torch.where(mels < LINEAR_MELS, mels * (LINEAR_HERTZ / LINEAR_MELS), above)
    hertz_K1 = torch.linspace(0.0, sample_rate // 2, num_frequencies, dtype=torch.float64)[:, None]
    rising = (hertz_K1 - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hertz_K1) / (corners[2:] - corners[1:-1])
    filters_KN = torch.minimum(rising, falling).clamp(min=0.0) * (2.0 / (corners[2:] - corners[:-2]))
    return filters_KN.float()


def _linear_mels(hertz: float) -> float:
    return hertz * LINEAR_MELS / LINEAR_HERTZ


@lru_cache(maxsize=8)
def _constants(settings: tuple[int, int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the window and the filters."""
    num_bins, transform, window, sample_rate = settings
    with torch.inference_mode(False):
        hann_S = torch.hann_window(window, periodic=False)
        return hann_S.to(device), slaney_filters(num_bins, transform // 2 + 1, sample_rate).to(device)


@dataclass(eq=False)
class ParakeetFeatureExtractor(FeatureExtractor):
    """Converts waveforms to normalised log-mel energies."""

    model_input_names: ClassVar[tuple[str, ...]] = ("input_features", "attention_mask")

    feature_size: int = 80
    sampling_rate: int = 16000
    hop_length: int = 160
    n_fft: int = 512
    win_length: int = 400
    preemphasis: float = 0.97
    padding_value: float = 0.0
    padding_side: str = "right"
    return_attention_mask: bool = True

    def __post_init__(self) -> None:
        self.check_counts("feature_size", "sampling_rate", "hop_length", "n_fft", "win_length")
        if self.n_fft < self.win_length or self.n_fft % 2 or self.win_length % 2:
            raise CheckpointError(
                f"n_fft is {self.n_fft} and win_length {self.win_length}, expected even numbers, n_fft the larger one"
            )

    def num_inputs(self, num_samples: Count) -> Count:
        """Return the number of log-mel frames of these numbers of samples."""
        return num_samples // self.hop_length

    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return `input_features` (B, M, N) and `attention_mask` (B, M) on the device of the waveforms.

        Args:
            waves_BT: float32, zero from each row's end on.
            num_samples_B: Number of samples of each row. Samples after the last tenth millisecond are not features.
        """
        most = max(1, waves_BT.shape[1] // self.hop_length)
        return self._features(waves_BT, num_samples_B, most)

    def __call__(
        self,
        raw_speech: Any,  # noqa: ANN401 - a waveform as array, tensor or list of floats, or a list of them
        padding: bool | str = "longest",
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """Return features of one waveform or several, padded, as tensors unless `return_tensors` is "np".

        Args:
            raw_speech: Samples in [-1, 1].
            padding: As for `pad`, in samples.
            max_length: As for `pad`, in samples.
            truncation: Cut at `max_length`.
            pad_to_multiple_of: As for `pad`, in samples.
            return_attention_mask: None: the setting of the extractor.
            return_tensors: "pt", "np" or None (tensors).
            sampling_rate: Checked against the checkpoint's.
        """
        self.check_rate(sampling_rate)
        padded = self.pad(
            {"input_features": waveforms_of(raw_speech, ("(T,)", "(B, T)"))},
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors="pt",
        )
        waves_BS, num_samples_B = padded["input_features"], padded["attention_mask"].sum(-1)
        features = BatchFeature(self._features(waves_BS, num_samples_B, waves_BS.shape[1] // self.hop_length + 1))
        if not (self.return_attention_mask if return_attention_mask is None else return_attention_mask):
            del features["attention_mask"]
        return tensors_of(features, return_tensors or "pt")

    @torch.no_grad()
    def _features(self, waves_BS: Tensor, num_samples_B: Tensor, num_frames: int) -> dict[str, Tensor]:
        """Return features padded to `num_frames`, zero after the last frame of each row."""
        num_mels_B = (num_samples_B // self.hop_length).clamp(max=num_frames).to(waves_BS.device)
        mels_BMN = waves_BS.new_zeros(len(waves_BS), num_frames, self.feature_size, dtype=torch.float32)
        valid_BM = torch.arange(num_frames, device=waves_BS.device) < num_mels_B[:, None]
        if waves_BS.device.type != "cpu":
            self._write(waves_BS, num_samples_B.to(waves_BS.device), mels_BMN)
            normalise(mels_BMN, num_mels_B, ~valid_BM[:, :, None], _deviation)
            return {"input_features": mels_BMN, "attention_mask": valid_BM}
        for row, count in enumerate(num_mels_B.tolist()):
            if count > 0:
                self._write(waves_BS[row : row + 1], num_samples_B[row : row + 1], mels_BMN[row : row + 1, :count])
                normalise(mels_BMN[row : row + 1, :count], num_mels_B[row : row + 1], None, _deviation)
        return {"input_features": mels_BMN, "attention_mask": valid_BM}

    def _write(self, waves_BS: Tensor, num_samples_B: Tensor, mels_BMN: Tensor) -> None:
        """Write log-mel energies of the first frames."""
        half = self.win_length // 2
        # The last frame is centred on its sample, so that it reads half a window more.
        used = (mels_BMN.shape[1] - 1) * self.hop_length + half
        emphasised_BS = self._emphasised(waves_BS[:, :used].float(), num_samples_B)
        padded_BS = torch.nn.functional.pad(emphasised_BS, (half, max(0, used - emphasised_BS.shape[1])))
        torch.log(self._energies(padded_BS), out=mels_BMN)

    def _energies(self, padded_BS: Tensor) -> Tensor:
        """Return the mel energies of each window of emphasised samples, and the floor."""
        settings = (self.feature_size, self.n_fft, self.win_length, self.sampling_rate)
        window_S, filters_KN = _constants(settings, padded_BS.device)
        frames_BMS = padded_BS.unfold(1, self.win_length, self.hop_length) * window_S
        spectrum_BMK = torch.fft.rfft(frames_BMS, n=self.n_fft)
        energies_BMK = torch.view_as_real(spectrum_BMK).square().sum(-1)
        return energies_BMK @ filters_KN + ENERGY_FLOOR

    def _emphasised(self, waves_BS: Tensor, num_samples_B: Tensor) -> Tensor:
        """Return each sample less a share of the previous sample (B, S), zero from each row's end on."""
        emphasised_BS = waves_BS.clone()
        emphasised_BS[:, 1:].sub_(waves_BS[:, :-1], alpha=self.preemphasis)
        out_BS = torch.arange(waves_BS.shape[1], device=waves_BS.device) >= num_samples_B[:, None]
        return emphasised_BS.masked_fill_(out_BS, 0.0)


def _deviation(variance: Tensor) -> Tensor:
    return variance.sqrt() + DEVIATION_FLOOR


class ParakeetProcessor(Wav2Vec2Processor):
    """The feature extractor and the tokenizer of a Parakeet checkpoint."""

    extractor_class = ParakeetFeatureExtractor
    defaults: ClassVar[Mapping[str, Any]] = {"padding": True, "return_tensors": "pt"}

    def decode(self, token_ids: Any, durations: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer; repeated tokens of a transducer stay.

        With `durations` (B, S) of a transducer's `generate` also return the tokens of each row with their times: dicts
        of `token`, and of `start` and `end` in seconds.
        """
        texts = super().decode(token_ids, **self._grouped(options))
        if durations is None:
            return texts
        ids_BS, spans_BS = (np.asarray(on_host(values), np.int64) for values in (token_ids, durations))
        vocabulary = self.tokenizer.get_vocab()
        is_token_BS = np.isin(ids_BS, [*{*vocabulary.values()} - {self.tokenizer.pad_token_id, vocabulary.get(BLANK)}])
        # Tokens of RNN-T take no frame: blanks alone go on to the next.
        has_spans = np.count_nonzero(spans_BS[is_token_BS]) > 0
        starts_BS = spans_BS.cumsum(-1) - spans_BS
        ends_BS = starts_BS + (spans_BS if has_spans else 1)
        rows = zip(ids_BS, starts_BS, ends_BS, is_token_BS, strict=True)
        timed = [self._timed(*np.stack([ids, starts, ends])[:, kept].tolist()) for ids, starts, ends, kept in rows]
        return texts, [_with_moved_marks(row) for row in timed] if has_spans else timed

    def _timed(self, ids: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> list[dict[str, Any]]:
        """Return the texts of tokens with their times."""
        extractor = cast(ParakeetFeatureExtractor, self.feature_extractor)
        seconds = extractor.hop_length * SUBSAMPLING / extractor.sampling_rate
        texts = cast(ParakeetTokenizer, self.tokenizer).added_texts(ids)
        return [
            {"token": text, "start": start * seconds, "end": end * seconds}
            for text, start, end in zip(texts, starts, ends, strict=True)
            if text is not None
        ]

    def batch_decode(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer; repeated tokens of a transducer stay."""
        return super().batch_decode(*args, **self._grouped(options))

    def _grouped(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"group_tokens": BLANK not in self.tokenizer.get_vocab(), **options}


def _with_moved_marks(timed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move each punctuation mark to the end of the token before it."""
    for before, after in itertools.pairwise(timed):
        if after["token"] in MARKS:
            after["start"] = after["end"] = before["end"]
    return timed
