"""`Speakers`: embeddings of recordings, which are near each other for the same speaker: loss and task."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.capabilities import Capability
from raysp.errors import PlanError
from raysp.evaluation.comparing import Task as Compared
from raysp.models.auto import AutoModelForAudioXVector
from raysp.models.encoder.encoder_heads import ForXVector
from raysp.models.encoder.heads import AM_MARGIN, AM_SCALE, am_softmax_losses
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import LoadedCheckpoint, load_feature_extractor
from raysp.ops.classifying import Classifying
from raysp.ops.forward import Forward, OutputOp, Selected
from raysp.ops.speakers.speaker_space import SPEAKERS_FILE, SpeakerSpace
from raysp.specs.outputs.classes import Classes
from raysp.specs.outputs.embedding import Embedding
from raysp.specs.outputs.output import columns_of
from raysp.training.data.micro_batches import Losses, MicroBatch, Objective
from raysp.training.objectives.objective_models import named_model
from raysp.training.objectives.passes import Passes, evaluation_mode, single_targets
from raysp.training.objectives.starting_model import shortest_input
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Speakers
from raysp.training.tasks.class_targets import ClassTargets, NamedClasses

DESCRIBED_ROWS = 3000
"""Rows of a training from which the space of its vectors is computed: 100 minutes, without a GPU too."""
PART_SECONDS = 1.0
"""Length of the parts of rows whose vectors are in it: about a window of `Turns`."""
PARTS = 2
"""Consecutive parts of a row."""


class SpeakerObjective:
    """AM-softmax loss over speakers (Wang et al. 2018), summed over rows.

    Args:
        model: a model with an x-vector head. The margin of its own loss is not used.
        feature_extractor: extractor of its checkpoint.
        margin: margin between the cosines of speakers.
        margin_warmup: share of the training over which the margin grows linearly from 0.
        crop_seconds: longer rows are cut to this length, at a place drawn from numpy's generator; None: never, as in
            evaluation mode.
        dtype: dtype of the arithmetic; weights and loss stay in float32.

    Raises:
        ValueError: the crops are shorter than the model's shortest input.
    """

    def __init__(
        self,
        model: ForXVector,
        feature_extractor: FeatureExtractor,
        *,
        margin: float = AM_MARGIN,
        margin_warmup: float = 0.2,
        crop_seconds: float | None = 3.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.margin = margin
        self.margin_warmup = margin_warmup
        self.sample_rate = rate = feature_extractor.sampling_rate
        self.crop_samples = None if crop_seconds is None else round(crop_seconds * rate)
        if self.crop_samples is not None and self.crop_samples < model.min_samples:
            least = model.min_samples / rate
            raise ValueError(f"crop_seconds is {crop_seconds}, expected at least {least:g}, the model's shortest input")

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        speakers_B = single_targets(batch, self.model.config.num_labels)
        output, _ = self.passes(self.model, [self._cropped(wave) for wave in batch.waves])
        margin = self.margin_at(batch.progress)
        rows_B = am_softmax_losses(output.logits.float(), self.model.objective.weight, speakers_B, margin)
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())

    @torch.inference_mode()
    def vectors(self, waves: Sequence[np.ndarray]) -> npt.NDArray[np.float32]:
        """Return the embeddings (B, E) of whole waves, float32, by the model in evaluation mode."""
        with evaluation_mode(self.model):
            output, _ = self.passes(self.model, waves)
        return np.asarray(output.embeddings.float().cpu().numpy())

    def margin_at(self, progress: float) -> float:
        """Return the margin at a share of the training."""
        return self.margin * min(1.0, progress / self.margin_warmup) if self.margin_warmup else self.margin

    def _cropped(self, wave: np.ndarray) -> np.ndarray:
        if self.crop_samples is None or not self.model.training or len(wave) <= self.crop_samples:
            return wave
        start = np.random.randint(len(wave) - self.crop_samples + 1)
        cropped: np.ndarray = wave[start : start + self.crop_samples]
        return cropped


@dataclass(eq=False, kw_only=True)
class KnownSpeakers(Classifying):
    """Op for the most probable speaker of the training, and its probability.

    Attributes:
        weight_EN: directions of the speakers, which the loss learns.
    """

    weight_EN: Tensor

    def select(self, forward: Forward) -> Selected:
        """Return the scaled cosines with the directions of the speakers."""
        logits_BE = forward.heads[Capability.XVECTOR].logits.float()
        return {"logits": AM_SCALE * (F.normalize(logits_BE, dim=1) @ F.normalize(self.weight_EN, dim=0))}


@dataclass(frozen=True)
class SpeakersTask(NamedClasses[Speakers]):
    """Task of `Speakers`."""

    tags = ("audio-classification", "raysp")
    compared: ClassVar[Compared] = "verification"

    @classmethod
    def of(cls, spec: Speakers, plan: TrainingPlan) -> "SpeakersTask":
        """Return the task before its corpus is indexed.

        Raises:
            PlanError: recordings would be cut to less than the shortest input of the model.
        """
        shortest = shortest_input(AutoModelForAudioXVector, plan.checkpoint.path)
        least = shortest / plan.checkpoint.sample_rate
        if spec.crop_seconds is not None and spec.crop_seconds < least:
            raise PlanError(
                f"found objective.crop_seconds={spec.crop_seconds:g}; expected at least {least:g}, the shortest "
                "input of the model"
            )
        return cls(None if spec.classes is None else tuple(spec.classes), shortest, spec)

    def targets(self) -> ClassTargets:
        """Return the numbers of speakers."""
        return ClassTargets(self.classes)

    def objective(self, plan: TrainingPlan) -> SpeakerObjective:
        """Return the loss with its model."""
        spec = self.spec
        model = named_model(AutoModelForAudioXVector, plan, spec, self.names)
        assert isinstance(model, ForXVector)
        return SpeakerObjective(
            model,
            load_feature_extractor(plan.checkpoint.path),
            margin=spec.margin,
            margin_warmup=spec.margin_warmup,
            crop_seconds=spec.crop_seconds,
            dtype=getattr(torch, plan.dtype),
        )

    def label_ops(self, loaded: LoadedCheckpoint) -> list[OutputOp]:
        """Return the ops of the most probable speaker of the training, and of the embedding."""
        schema = Classes(name="speaker").schema(loaded.summary)
        staged = columns_of("speaker", logits=pa.list_(pa.float32()), weight=pa.int32())
        assert isinstance(loaded.model, ForXVector)
        weight_EN = loaded.model.objective.weight
        known = KnownSpeakers(schema, staged, self.names, top_k=1, problem_type=None, weight_EN=weight_EN)
        return [known, Embedding(pooling="xvector").op(loaded.summary, loaded)]

    @property
    def described_rows(self) -> int:
        """Number of rows from which `files` are computed."""
        return DESCRIBED_ROWS

    def files(self, objective: Objective, batches: Iterable[MicroBatch]) -> Mapping[str, str]:
        """Return the file of the space of the vectors, by which `Turns` compares them; none for too few speakers."""
        assert isinstance(objective, SpeakerObjective)
        size = max(self.shortest, round(PART_SECONDS * objective.sample_rate))
        vectors: list[np.ndarray] = []
        speakers: list[int] = []
        for batch in batches:
            rows = zip(batch.waves, single_targets(batch, len(self.names)).tolist(), strict=True)
            parts = [(speaker, part) for wave, speaker in rows for part in _parts(wave, size, self.shortest)]
            if parts:
                vectors.append(objective.vectors([part for _, part in parts]))
                speakers += [speaker for speaker, _ in parts]
        space = SpeakerSpace.of(np.concatenate(vectors), np.array(speakers)) if vectors else None
        return {} if space is None else {SPEAKERS_FILE: space.text}


def _parts(wave: np.ndarray, size: int, shortest: int) -> Iterator[np.ndarray]:
    """Yield the first parts of a size; a shorter wave is one part, if it has half of the size and is not too short."""
    for start in range(0, max(1, min(len(wave) // size, PARTS)) * size, size):
        if len(part := wave[start : start + size]) >= max(size // 2, shortest):
            yield part
