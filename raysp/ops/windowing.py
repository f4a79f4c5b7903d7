"""Division of recordings into windows for a checkpoint."""

from raysp.audio.window_cuts import Windowing
from raysp.models.summary import CheckpointSummary


def windowing_of(checkpoint: CheckpointSummary, *, window_seconds: float, overlap_seconds: float) -> Windowing:
    """Return the division of rows: at quiet points for checkpoints with a text decoder, else with overlaps.

    Raises:
        ValueError: a window would be shorter than one frame of the model.
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
