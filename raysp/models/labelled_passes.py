"""Description of a checkpoint of any library, protocols of the loaded one, and the results of a pass.

`LoadedCheckpoint` is the model of raysp. Models of other libraries and packages are the same to outputs and plans.
Importable without torch, for workers that only decode audio.

Legend: B batch, S samples, T frames, H hidden, V vocabulary, N classes, E speaker embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from raysp.capabilities import Capability
from raysp.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from raysp.models.base.outputs import ModelOutput

MULTI_LABEL, REGRESSION = "multi_label_classification", "regression"
"""Values of `problem_type` other than single-label classification."""
OWN = "torch"
"""Name of the backend of the models of raysp."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSummary:
    """Facts about a checkpoint that are known without loading its weights.

    A model of another package sets the fields without a default, and the fields of its capabilities.
    """

    path: Path
    model_type: str
    architecture: str
    """Class name, or names of several heads."""
    num_parameters: int
    sample_rate: int
    vocab_size: int | None = None
    """Size of the vocabulary of the CTC head or the text decoder; None without either."""
    min_samples: int
    """Samples of the shortest input."""
    frame_stride: int
    """Samples from one frame to the next."""
    hidden_size: int = 0
    """Width of the encoder's frames."""
    num_layers: int = 0
    """Number of layers of the encoder and the text decoder together."""
    gives: tuple[Capability, ...]
    """Results of its heads, and hidden states."""
    dtype: str = "float32"
    """Dtype of most of the stored weights."""
    weight_bytes: int = 0
    receptive_samples: int
    """n samples yield `(n - receptive_samples) // frame_stride + 1` frames."""
    hidden_stride: int = 0
    """Samples from one frame of `hidden_states` to the next; 0 without them."""
    activations_per_second: float = 16_000.0
    """Estimated peak number of activation values per second of audio, from the widths of layers."""
    output_size: int = 0
    """Width of `last_hidden_state`."""
    xvector_size: int | None = None
    """Width of speaker embeddings; None without such a head."""
    labels: tuple[str, ...] = ()
    """Class names of a classification head; empty without one."""
    problem_type: str | None = None
    """Problem type of a classification head, as in config.json."""
    num_hidden_states: int = 0
    """Number of hidden states of the encoder: the input of its first layer, and the output of each layer."""
    has_layer_weights: bool = False
    """Whether a head reads a learned sum of the hidden states."""
    backend: str = OWN
    """Name of the backend, or of the distribution of a model of another package."""
    unused: tuple[str, ...] = ()
    """Parts of the stored weights that labels do not read, such as the heads of pre-training."""
    takes_padding: bool = True
    """Whether a row of a padded batch has the results that it has alone; otherwise a pass has rows of one length."""
    padded_samples: int = 0
    """Length that the model pads shorter inputs to, and which they cost."""
    language: str | None = None
    """Language with which a checkpoint with adapters of languages is used."""
    adapter: str | None = None
    """Name of the file whose adapter layers and head are used in place of those among the weights."""
    contradiction: str = ""
    """Reason why it cannot be used in the language of its tokenizer, but in a named one; empty if it can be."""
    windows_together: int = 1
    """Windows that are decoded together at less cost than one by one, on a CPU."""
    searches: bool = False
    """Whether its text decoder searches with `Transcript.beams`."""
    writes_times: bool = False
    """Whether its text decoder gives the times of words."""
    languages: tuple[str, ...] = ()
    """Languages of a text decoder that takes or detects the language of each row; empty for any other model."""
    detects: bool = False
    """Whether its text decoder finds the language of a recording, with its probability."""
    takes: tuple[str, ...] = ()
    """Options of `Transcript` that its text decoder takes through a processor, such as "prompt"."""
    alone: str = ""
    """Reason why each window is a pass of its own; empty: windows share passes."""
    finds_silence: bool = False
    """Whether its text decoder gives the probability that a window has no speech."""
    max_samples: int | None = None
    """Samples of the longest input, such as the 30 s of Whisper; None: any."""

    def require_language(
        self, language: object, remedy: str = "name a language in the outputs: Transcript(language=...)"
    ) -> None:
        """Check that a language is named where the tokenizer's cannot be used.

        Raises:
            CheckpointError: it cannot be, and `language` is None; with the remedy.
        """
        if self.contradiction and language is None:
            raise CheckpointError(f"{self.contradiction}, or {remedy}")

    @property
    def writes_text(self) -> bool:
        """Whether text is written by a decoder (`generate`) rather than read from frames."""
        return Capability.TEXT_DECODER in self.gives

    @property
    def unused_words(self) -> str:
        """Line for users on `unused`; empty without any."""
        return f"{', '.join(self.unused)}: other heads of the checkpoint" if self.unused else ""

    @property
    def is_multi_label(self) -> bool:
        """Whether the classes of a classification head are independent of each other."""
        return self.problem_type == MULTI_LABEL

    @property
    def is_regression(self) -> bool:
        """Whether a classification head returns numbers; so does one of one output without a problem type."""
        return self.problem_type == REGRESSION or (self.problem_type is None and len(self.labels) == 1)

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a recording of `num_samples`."""
        return max(0, (num_samples - self.receptive_samples) // self.frame_stride + 1)

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.frame_stride / self.sample_rate


@dataclass(frozen=True, kw_only=True)
class ModelPass:
    """Results of a model for a batch of waveforms; values of padded frames are undefined."""

    heads: Mapping[Capability, "ModelOutput"]
    """Outputs by capability. Each has `logits`: CTC (B, T, V), CLASSES (B, N), FRAME_CLASSES (B, T, N); XVECTOR has
    `embeddings` (B, E). Text decoders have none: their `writer` continues from `encoded`."""
    num_frames_B: "Tensor"
    """Number of frames of logits and of `last_hidden_state` of each row."""
    frames: "Sequence[int] | None" = None
    """The same on the host; None: by the description of the checkpoint."""
    hidden_frames: "Sequence[int] | None" = None
    """Number of frames of `hidden_states` of each row on the host; None: as `frames`."""
    encoded: "ModelOutput | None" = None
    """`last_hidden_state` (B, T, H), and `hidden_states` if requested; None if the model gives no hidden states."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Input of the model: tensors, and a `Layout` in place of a mask."""


class LabellingModel(Protocol):
    """A loaded checkpoint."""

    @property
    def summary(self) -> CheckpointSummary:
        """Description of the checkpoint, as its backend returns it."""

    @property
    def device(self) -> "torch.device":
        """Device on which `run` takes waveforms and returns results."""

    @property
    def dtype(self) -> "torch.dtype":
        """Data type of the weights."""

    def run(self, waves_BS: "Tensor", num_samples_B: "Tensor", *, hidden_states: bool) -> ModelPass:
        """Run the model over a batch.

        Args:
            waves_BS: float32 samples at the checkpoint's rate, zero from each row's end on; of rows of one length
                unless the summary has `takes_padding`.
            num_samples_B: number of samples of each row.
            hidden_states: whether an output reads the frames of single layers.
        """


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

    def run(
        self,
        waves_BS: "Tensor",
        num_samples_B: "Tensor",
        *,
        hidden_states: bool,
        prepared: "Mapping[str, Tensor] | None" = None,
    ) -> ModelPass:
        """Run the model over a batch, as `LabellingModel` does."""


@runtime_checkable
class ComparingModel(Protocol):
    """A loaded checkpoint of which windows in a padded batch are compared with those alone before it labels."""

    def check_padding(self) -> None:
        """Compare a recording alone and in a padded batch.

        Raises:
            CheckpointError: results differ by more than rounding.
        """


class SpeakingModel(LabellingModel, Protocol):
    """A loaded checkpoint with adapters of languages."""

    def use_language(self, language: str) -> None:
        """Switch adapter layers and CTC head to a language; not while the model runs.

        Raises:
            CheckpointError: the checkpoint lacks the file of the language, or it does not match the model.
            StoreError: the file cannot be fetched.
        """


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
    """Words of the text, if requested."""
    languages: Sequence[float] = ()
    """Probability of each language of the summary, if requested."""


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


class HearingModel(LabellingModel, Protocol):
    """A loaded checkpoint whose text decoder gives the probability that there is no speech."""

    def no_speech(self, encoded: "ModelOutput") -> Sequence[float]:
        """Return the probability that each window of a pass has no speech.

        Args:
            encoded: `ModelPass.encoded`.
        """


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
        prompt: str | None = None,
        keywords: Sequence[str] = (),
    ) -> Writer:
        """Return the text decoder with the options of a transcript.

        Args:
            options: options of `generate`.
            language: language of the texts; None: as the checkpoint does.
            task: the same of a task.
            words: whether texts come with the times of their words; set only if the summary has `writes_times`.
            detect: whether texts come with the probabilities of languages; set only if the summary has `detects`.
            prompt: words before the recording; set only if the summary has it in `takes`.
            keywords: words that are likely; set only if the summary has them in `takes`.
        """
