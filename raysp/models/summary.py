"""Description of a checkpoint; importable without torch, for workers that only decode audio."""

from dataclasses import dataclass
from pathlib import Path

from raysp.capabilities import Capability
from raysp.errors import CheckpointError

MULTI_LABEL, REGRESSION = "multi_label_classification", "regression"
"""Values of `problem_type` other than single-label classification."""
OWN = "torch"
"""Name of the backend of the models of raysp."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSummary:
    """Facts about a checkpoint that are known without loading its weights.

    A model of another package gives those without a default, and those of its capabilities.
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
    finds_silence: bool = False
    """Whether its text decoder gives the probability that a window has no speech."""
    max_samples: int | None = None
    """Samples of the longest input, such as the 30 s of Whisper; None: any."""

    def require_language(
        self, language: object, remedy: str = "name a language in the outputs: Transcript(language=...)"
    ) -> None:
        """Check that a language is named where that of the tokenizer cannot be used.

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
