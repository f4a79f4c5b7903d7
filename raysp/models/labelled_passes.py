"""Protocols of a loaded checkpoint of any library, as labelling uses it, and the results of a pass.

`LoadedCheckpoint` is the model of raysp. Models of other libraries and packages are the same to outputs and plans.

Legend: B batch, S samples, T frames, H hidden, V vocabulary, N classes, E speaker embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from raysp.capabilities import Capability
    from raysp.models.base.outputs import ModelOutput
    from raysp.models.summary import CheckpointSummary


@dataclass(frozen=True, kw_only=True)
class ModelPass:
    """Results of a model for a batch of waveforms; values of padded frames are undefined."""

    heads: Mapping["Capability", "ModelOutput"]
    """Outputs by capability. Each has `logits`: CTC (B, T, V), CLASSES (B, N), FRAME_CLASSES (B, T, N); XVECTOR has
    `embeddings` (B, E). Text decoders have none: their `writer` continues from `encoded`."""
    num_frames_B: "Tensor"
    """Number of frames of logits and of `last_hidden_state` of each row."""
    encoded: "ModelOutput | None" = None
    """`last_hidden_state` (B, T, H), and `hidden_states` if requested; None if the model gives no hidden states."""
    features: Mapping[str, "Tensor"] = field(default_factory=dict)
    """Input of the model."""
    hidden_frames_B: "Tensor | None" = None
    """Number of frames of `hidden_states`; None: as `num_frames_B`."""
    frames_a_hidden_frame: Fraction = Fraction(1)


class Lengths(NamedTuple):
    """Lengths of the windows of a batch."""

    samples: Sequence[int]
    frames: Sequence[int]
    """Numbers of frames of logits and of `last_hidden_state`."""
    hidden_frames: Sequence[int]
    """Numbers of frames of `hidden_states`."""


class LabellingModel(Protocol):
    """A loaded checkpoint."""

    @property
    def summary(self) -> "CheckpointSummary":
        """Description of the checkpoint, as its backend returns it."""
        ...

    @property
    def device(self) -> "torch.device":
        """Device on which `run` takes waveforms and returns results."""
        ...

    @property
    def dtype(self) -> "torch.dtype":
        """Data type of the weights."""
        ...

    def run(self, waves_BS: "Tensor", num_samples_B: "Tensor", *, hidden_states: bool) -> ModelPass:
        """Run the model over a batch.

        Args:
            waves_BS: float32 samples at the checkpoint's rate, zero from each row's end on; of rows of one length
                unless the summary has `takes_padding`.
            num_samples_B: number of samples of each row.
            hidden_states: whether an output reads the frames of single layers.
        """
        ...


@runtime_checkable
class PreparingModel(Protocol):
    """A loaded checkpoint whose inputs may be computed on the host."""

    def prepare(self, waves: "Sequence[np.ndarray]") -> "Mapping[str, Tensor] | None":
        """Return the inputs of the model for a batch, on the host, before the device is taken.

        Args:
            waves: samples of each row, all int16 or all float32.

        Returns:
            The inputs, which `run` takes as `prepared`; None: `run` computes them on the device.
        """
        ...

    def run(
        self,
        waves_BS: "Tensor",
        num_samples_B: "Tensor",
        *,
        hidden_states: bool,
        prepared: "Mapping[str, Tensor] | None" = None,
    ) -> ModelPass:
        """Run the model over a batch, as `LabellingModel` does."""
        ...


class SpeakingModel(LabellingModel, Protocol):
    """A loaded checkpoint with adapters of languages."""

    def use_language(self, language: str) -> None:
        """Exchange adapter layers and CTC head for those of a language; not while the model runs.

        Raises:
            CheckpointError: the checkpoint lacks the file of the language, or it does not match the model.
            StoreError: the file cannot be fetched.
        """
        ...


class TimedWord(NamedTuple):
    """A word of a text, with seconds from the start of its window."""

    word: str
    start: float
    end: float
    score: float
    """Mean probability of its tokens."""


class Written(NamedTuple):
    """A text that a decoder wrote for a window."""

    text: str
    log_prob: float
    """Sum over the tokens that count: those after the prompt, up to the first that ends the text."""
    num_tokens: int
    words: Sequence[TimedWord] = ()
    """Words of the text, if they are asked for."""
    languages: Sequence[float] = ()
    """Probability of each language of the summary, if they are asked for."""


class Writer(Protocol):
    """Text decoder of a loaded checkpoint, with the options of a transcript."""

    def __call__(
        self, encoded: "ModelOutput", features: Mapping[str, "Tensor"], places: Sequence[str]
    ) -> Sequence[Written]:
        """Return the text of each window of a pass.

        Args:
            encoded: `ModelPass.encoded`.
            features: `ModelPass.features`.
            places: names of the windows, which may seed random sampling.
        """
        ...


class HearingModel(LabellingModel, Protocol):
    """A loaded checkpoint whose text decoder gives the probability that there is no speech."""

    def no_speech(self, encoded: "ModelOutput") -> Sequence[float]:
        """Return the probability that each window of a pass has no speech.

        Args:
            encoded: `ModelPass.encoded`.
        """
        ...


class WritingModel(LabellingModel, Protocol):
    """A loaded checkpoint with a text decoder."""

    def writer(
        self,
        options: Mapping[str, object],
        *,
        language: str | None,
        task: str | None,
        words: bool = False,
        detect: bool = False,
    ) -> Writer:
        """Return the text decoder with the options of a transcript.

        Args:
            options: options of `generate`.
            language: language of the texts; None: as the checkpoint does.
            task: the same of a task.
            words: whether texts come with the times of their words; given only if the summary has `writes_times`.
            detect: whether texts come with the probabilities of languages; given only if the summary has `languages`.
        """
        ...
