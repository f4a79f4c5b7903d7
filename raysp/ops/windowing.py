"""How recordings are cut into windows for a checkpoint."""

from raysp.audio.windows import Windowing
from raysp.models.summary import CheckpointSummary


def windowing_of(checkpoint: CheckpointSummary, *, window_seconds: float, overlap_seconds: float) -> Windowing:
    """Say how rows are cut: at quiet points where a decoder writes the text, else with overlaps.

    Raises:
        ValueError: a window would not hold a frame of the model.
    """
    return Windowing.of(
        sample_rate=checkpoint.sample_rate,
        frame_stride=checkpoint.frame_stride,
        min_samples=checkpoint.receptive_samples,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        at_quiet_points=checkpoint.writes_text,
        group_frames=max(1, checkpoint.hidden_stride // checkpoint.frame_stride),
    )
