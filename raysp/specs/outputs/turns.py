"""Turns of the speakers of recordings."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.specs.outputs.output import SPEECH_MODEL, Output, OutputName, columns_of, spans_of
from raysp.specs.outputs.speech import Speech
from raysp.specs.values import Count, JsonValue, NotNegative, Positive, Url, spec
from raysp.words import count

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel
    from raysp.ops.speakers.frame_turning import FrameTurning
    from raysp.ops.speakers.speaker_frames import FrameDiarization
    from raysp.ops.speakers.speaker_space import SpeakerSpace
    from raysp.ops.speakers.speaker_turns import Diarization
    from raysp.ops.speakers.turning import Turning
    from raysp.ops.speakers.word_speakers import WordSpeakers


DISTANCE = 0.7
"""Default threshold of vectors without a space."""
PROBABILITY = 0.5
"""Default threshold of classes of frames."""
CHANGE_SECONDS = 0.375
"""Seconds of speech, times the difference of cosines in it, that a change of speaker must gain."""


@spec
class Turns(Output):
    """Turns of the speakers of a recording: column `<name>`.

    A turn has its start and end in seconds, its speaker, a number from 0 in the order in which speakers first speak in
    the recording, and a score. Words of the step's other outputs (`<name>_words`) get a field `speaker`, from the turn
    with the largest part of the word, else from the nearest turn; null without turns.

    A checkpoint with x-vectors compares the vectors of short windows, in the space of its `speakers.json` if it has
    one, and without the mean of their recording where that is of several speakers. Turns are where `Speech()` finds
    speech, and do not overlap; their score is the mean cosine of their windows to the mean vector of the speaker.

    A frame classifier has a class for each speaker, and several may speak at once. The score is the mean probability.
    In a recording longer than `Label(window_seconds=...)`, classes of a window are matched with the classes of the
    window before it, over `overlap_seconds`. There are at most as many speakers as classes.

    Needs `raysp[turns]`.

    Attributes:
        name: name of the column.
        checkpoint: a checkpoint with x-vectors or classes of frames, named as `Label.checkpoint`, of the same sample
            rate, and held by the same actors; None: the step's own. It is one of raysp's own models: a run records
            the backend and library of its step's checkpoint only.
        speakers: number of speakers, or (fewest, most); None: any number. A recording with little speech may have
            fewer. Of a frame classifier the classes with the most speech are kept.
        threshold: of vectors the mean distance, 1 less the cosine, above which groups of windows are different
            speakers. None: the `speakers.json` of the checkpoint, which `Speakers` writes, finds their number; without
            that file 0.7. Checkpoints differ in it: choose it on recordings of known speakers. Of a frame classifier
            the probability above which a speaker speaks, below 1; None: 0.5.
        window_seconds: length of the windows whose vectors are compared.
        step_seconds: time between the middles of windows.
        least_seconds: speech that a speaker has at least. Speakers with less join the nearest one; of a frame
            classifier they are left out, but for the one who speaks most.
        merge_seconds: turns of a speaker with a shorter pause between them are one.
    """

    MODELS: ClassVar = {SPEECH_MODEL: ""}  # the fields of `Speech` have its digest
    allows_gaps: ClassVar = True
    CHECKPOINTS: ClassVar = ("checkpoint",)

    name: OutputName = "pred_turns"
    _: KW_ONLY
    checkpoint: Url | None = None
    speakers: Count | tuple[Count, Count] | None = None
    threshold: Annotated[float, Field(gt=0, le=2)] | None = None
    window_seconds: Positive = 1.0
    step_seconds: Positive = 0.25
    least_seconds: NotNegative = 1.0
    merge_seconds: NotNegative = 0.5

    def __post_init__(self) -> None:
        """Check the checkpoint's name, and the order of bounds and lengths.

        Raises:
            ValueError: a setting is empty or contradicts another one.
        """
        if self.checkpoint == "":
            raise ValueError("checkpoint is empty; name a checkpoint, or leave it out")
        if isinstance(self.speakers, tuple) and self.speakers[0] > self.speakers[1]:
            raise ValueError(f"speakers={self.speakers!r}: the lower bound is above the upper one")
        if self.step_seconds > self.window_seconds:
            raise ValueError(
                f"step_seconds={self.step_seconds:g} is above window_seconds={self.window_seconds:g}: windows would "
                "leave out speech"
            )

    @property
    def needs(self) -> tuple[Capability, ...]:
        """The capabilities of speaker vectors and of classes of frames; empty with a `checkpoint` of its own."""
        return () if self.checkpoint else (Capability.XVECTOR, Capability.FRAME_CLASSES)

    def label_fields(self, digests: Mapping[str, str]) -> dict[str, JsonValue]:
        """Return the fields that can change a label, with the hash of the weights of the model of speech."""
        threshold = DISTANCE if self.threshold is None else self.threshold
        return {
            **super().label_fields(digests),
            # The default threshold of classes of frames differs, so an explicit one has a key of its own.
            **({"frame_threshold": threshold} if self.threshold == DISTANCE else {}),
            "threshold": threshold,
            "speech": self._speech.label_fields(digests),
            "change_seconds": CHANGE_SECONDS,
        }

    @property
    def _speech(self) -> Speech:
        return Speech(self.name)

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the packages are there, and that a checkpoint can tell speakers apart at the step's sample rate.

        Raises:
            CheckpointError: a package is not installed, or the checkpoint does not fit.
        """
        from raysp.checkpoints.hub import check_clustering

        speaker_model = self._checkpoint_of(checkpoint)
        if _has_vectors(speaker_model):
            self._speech.check(checkpoint)
            _space(speaker_model)
        elif Capability.FRAME_CLASSES in speaker_model.gives:
            self._check_classes(speaker_model)
        else:
            raise CheckpointError(
                f"{speaker_model.path}: {speaker_model.architecture} has neither x-vectors nor a speaker "
                "for each frame, which Turns needs; set checkpoint=... to a checkpoint of a ...ForXVector or "
                "...ForAudioFrameClassification model"
            )
        if speaker_model.sample_rate != checkpoint.sample_rate:
            raise CheckpointError(
                f"{speaker_model.path}: Turns' checkpoint takes {speaker_model.sample_rate} Hz, the checkpoint of the "
                f"step {checkpoint.sample_rate}, {checkpoint.path}; use one of the same rate"
            )
        check_clustering()

    def _check_classes(self, frames: "CheckpointSummary") -> None:
        least, _ = self._bounds
        if least > len(frames.labels):
            raise CheckpointError(
                f"{frames.path}: found {count(len(frames.labels), 'class')} of frames, and "
                f"Turns(speakers={self.speakers!r}); each speaker needs a class; give fewer speakers, or a checkpoint "
                "with x-vectors"
            )
        if self.threshold is not None and self.threshold >= 1:
            raise CheckpointError(
                f"{frames.path}: found Turns(threshold={self.threshold:g}), which no probability of a class of frames "
                "exceeds; give one below 1, or leave it out"
            )

    def check_gaps(self, checkpoint: "CheckpointSummary") -> None:
        """Check that windows may leave out silence: a frame classifier needs frames that two windows share.

        Raises:
            CheckpointError: the speakers come from a frame classifier.
        """
        speaker_model = self._checkpoint_of(checkpoint)
        if not _has_vectors(speaker_model):
            raise CheckpointError(
                f"{speaker_model.path}: Turns matches the speakers of windows by frames that they share, and those of "
                "Label(windows='speech') share none; use windows='even', or a checkpoint with x-vectors"
            )

    def _checkpoint_of(self, checkpoint: "CheckpointSummary") -> "CheckpointSummary":
        """Return the description of the checkpoint of the speakers; a `checkpoint` is a local folder by now."""
        from raysp.models.loading import check_checkpoint

        if self.checkpoint is None:
            return checkpoint
        try:
            return check_checkpoint(Path(self.checkpoint))
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}. Turns(checkpoint=...) takes raysp's own models alone, since a run records the backend and "
                "library of its step's checkpoint only: run other ones with Label(..., backend='transformers', "
                "outputs=[raysp.Turns()])"
            ) from error

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column with its type."""
        import pyarrow as pa

        return pa.schema([(self.name, spans_of("speaker", pa.int32()))])

    def completed(self, schema: "pa.Schema") -> "pa.Schema":
        """Return the columns of the step, with the speaker in words."""
        import pyarrow as pa

        from raysp.ops.speakers.word_speakers import with_speaker

        words = spans_of("word")
        return pa.schema([f.with_type(with_speaker(f.type)) if f.type == words else f for f in schema])

    def row_op(self, outputs: Sequence[Output], checkpoint: "CheckpointSummary") -> "WordSpeakers | None":
        """Return the op that adds speakers to the words of other outputs; None without words."""
        from raysp.ops.speakers.word_speakers import WordSpeakers

        columns = [column for output in outputs for column in output.schema(checkpoint)]
        words = [column for column in columns if column.type == spans_of("word")]
        return WordSpeakers(self.schema(checkpoint).field(0), words) if words else None

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "Turning | FrameTurning":
        """Return the op that computes the column; with a model it loads `checkpoint`, if there is one."""
        import pyarrow as pa

        from raysp.models.loading import load_checkpoint
        from raysp.ops.speakers.frame_turning import FrameTurning
        from raysp.ops.speakers.turning import Turning

        other = loaded
        if loaded is not None and self.checkpoint is not None:
            other = load_checkpoint(Path(self.checkpoint), dtype=loaded.dtype, device=loaded.device)
        speaker_model = other.summary if other is not None else self._checkpoint_of(checkpoint)
        if _has_vectors(speaker_model):
            speaking, rate = self._speech.op(checkpoint, loaded), checkpoint.sample_rate
            staged = columns_of(self.name, middles=pa.list_(pa.int64()), vectors=pa.list_(pa.float32()))
            return Turning(
                self.schema(checkpoint),
                pa.schema([*speaking.staged, *staged]),
                speaking,
                self._diarization(_space(speaker_model)),
                other,
                window_samples=round(self.window_seconds * rate),
                step_samples=max(1, round(self.step_seconds * rate)),
                frame_stride=checkpoint.frame_stride,
            )
        return FrameTurning(
            self.schema(checkpoint),
            columns_of(self.name, probabilities=pa.list_(pa.float32()), before=pa.int64(), owned=pa.int64()),
            self._frame_diarization(speaker_model),
            len(speaker_model.labels),
            step_stride=checkpoint.frame_stride,
            frame_stride=speaker_model.frame_stride,
            classifier=None if other is loaded else other,
        )

    def _frame_diarization(self, speaker_model: "CheckpointSummary") -> "FrameDiarization":
        from raysp.ops.speakers.speaker_frames import FrameDiarization

        return FrameDiarization(
            threshold=PROBABILITY if self.threshold is None else self.threshold,
            most=self._bounds[1],
            least_seconds=self.least_seconds,
            merge_seconds=self.merge_seconds,
            frame_seconds=speaker_model.frame_seconds,
        )

    def _diarization(self, space: "SpeakerSpace | None") -> "Diarization":
        from raysp.ops.speakers.speaker_turns import Diarization

        return Diarization(
            threshold=DISTANCE if self.threshold is None and space is None else self.threshold,
            bounds=self._bounds,
            least_seconds=self.least_seconds,
            merge_seconds=self.merge_seconds,
            step_seconds=self.step_seconds,
            window_seconds=self.window_seconds,
            change_seconds=CHANGE_SECONDS,
            space=space,
        )

    @property
    def _bounds(self) -> tuple[int, int | None]:
        if self.speakers is None:
            return 1, None
        return self.speakers if isinstance(self.speakers, tuple) else (self.speakers, self.speakers)


def _has_vectors(checkpoint: "CheckpointSummary") -> bool:
    return Capability.XVECTOR in checkpoint.gives


def _space(checkpoint: "CheckpointSummary") -> "SpeakerSpace | None":
    """Return the space in which the vectors of a checkpoint are compared; None: as they are."""
    from raysp.ops.speakers.speaker_space import SpeakerSpace

    assert checkpoint.xvector_size is not None
    return SpeakerSpace.load(checkpoint.path, checkpoint.xvector_size)
