"""Description of a checkpoint; importable without torch, as workers that only decode receive it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckpointSummary:
    """What a checkpoint is, known without loading its weights."""

    path: Path
    model_type: str
    architecture: str
    """Name of the class, or of each where there are several heads."""
    num_parameters: int
    sample_rate: int
    vocab_size: int | None
    """Of the CTC head or of the text decoder; None without one."""
    min_samples: int
    """Samples of the shortest input."""
    frame_stride: int
    """Samples from one frame to the next."""
    hidden_size: int
    """Of the encoder."""
    num_layers: int
    """Of the encoder, and of the text decoder where there is one."""
    outputs: tuple[str, ...]
    """Names of the outputs that a `Label` step can ask for."""
    dtype: str
    """Of the stored weights; of most of them, where they differ."""
    weight_bytes: int
    receptive_samples: int
    """n samples give `(n - this) // frame_stride + 1` frames."""
    hidden_stride: int
    """Samples from one frame of `hidden_states` to the next."""
    writes_text: bool
    """Whether text comes from a decoder (`generate`) and not from frames."""
    activations_per_second: float
    """Numbers that a forward pass holds at once for a second of audio, as estimated from the widths of layers."""
    output_size: int
    """Width of `last_hidden_state`."""
    xvector_size: int | None
    """Width of a speaker's vector; None without a head for it."""
    labels: tuple[str, ...]
    """Names of the classes of a classification head; empty without one."""
    problem_type: str | None

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.frame_stride / self.sample_rate
