"""`Speakers`: embeddings of recordings, which are near each other for the same speaker."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.capabilities import Capability
from raysp.errors import PlanError
from raysp.models.auto import AutoConfig, AutoModelForAudioXVector
from raysp.models.base.placing import without_weights
from raysp.models.encoder.heads import AM_SCALE, am_softmax_losses
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.classifying import Classifying
from raysp.ops.forward import Forward, OutputOp, Selected
from raysp.ops.speakers.speaker_space import SPEAKERS_FILE, SpeakerSpace
from raysp.specs.outputs.classes import Classes
from raysp.specs.outputs.embedding import Embedding
from raysp.specs.outputs.output import columns_of
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.passes import Passes, evaluation_mode, single_targets
from raysp.training.objectives.task import ClassTask
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Speakers

PART_SECONDS = 1.0
"""Length of the parts of rows whose vectors make the space of speakers: about a window of `Turns`."""
PARTS = 2
"""Consecutive parts of a row."""


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
class SpeakersTask(ClassTask):
    """Task of `Speakers`.

    Attributes:
        shortest: samples of the shortest input of the model.
    """

    AUTO: ClassVar = AutoModelForAudioXVector
    COMPARED = "verification"
    DESCRIBED_ROWS: ClassVar = 3000  # 100 minutes, without a GPU too

    spec: Speakers
    shortest: int

    @classmethod
    def of(cls, spec: Speakers, plan: TrainingPlan) -> "SpeakersTask":
        """Return the task before its corpus is indexed.

        Raises:
            PlanError: recordings would be cut to less than the shortest input of the model.
        """
        config = AutoConfig.from_pretrained(plan.checkpoint.path)
        with without_weights():
            shortest = cls.AUTO.from_config(config).min_samples
        least = shortest / plan.checkpoint.sample_rate
        if spec.crop_seconds is not None and spec.crop_seconds < least:
            raise PlanError(
                f"found objective.crop_seconds={spec.crop_seconds:g}; expected at least {least:g}, the shortest "
                "input of the model"
            )
        return cls(spec, spec.classes, shortest)

    def label_ops(self, loaded: LoadedCheckpoint) -> list[OutputOp]:
        """Return the ops of the most probable speaker of the training, and of the embedding."""
        schema = Classes(name="speaker").schema(loaded.summary)
        staged = columns_of("speaker", logits=pa.list_(pa.float32()), weight=pa.int32())
        model: Any = loaded.model
        weight_EN = model.objective.weight
        known = KnownSpeakers(schema, staged, self.names, top_k=1, problem_type=None, weight_EN=weight_EN)
        return [known, Embedding(pooling="xvector").op(loaded.summary, loaded)]

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the number of samples of the shortest input of the model with its x-vector layers."""
        return self.shortest

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        """Return the AM-softmax loss over speakers (Wang et al. 2018), summed over rows, each cut at a drawn place."""
        speakers_B = single_targets(batch, passes.model.config.num_labels)
        model: Any = passes.model
        output, _ = passes(model, [self._cropped(wave, passes) for wave in batch.waves])
        margin = self.margin_at(batch.progress)
        return Losses.of(am_softmax_losses(output.logits.float(), model.objective.weight, speakers_B, margin))

    def margin_at(self, progress: float) -> float:
        """Return the margin at a share of the training."""
        spec = self.spec
        return spec.margin * min(1.0, progress / spec.margin_warmup) if spec.margin_warmup else spec.margin

    def _cropped(self, wave: np.ndarray, passes: Passes) -> np.ndarray:
        if self.spec.crop_seconds is None or not passes.model.training:
            return wave
        size = round(self.spec.crop_seconds * passes.feature_extractor.sampling_rate)
        if len(wave) <= size:
            return wave
        start = np.random.randint(len(wave) - size + 1)
        return wave[start : start + size]

    def files(self, passes: Passes, batches: Iterable[MicroBatch]) -> Mapping[str, str]:
        """Return the file of the space of the vectors, by which `Turns` compares them; none for too few speakers."""
        size = max(self.shortest, round(PART_SECONDS * passes.feature_extractor.sampling_rate))
        vectors: list[np.ndarray] = []
        speakers: list[int] = []
        for batch in batches:
            rows = zip(batch.waves, single_targets(batch, len(self.names)).tolist(), strict=True)
            parts = [(speaker, part) for wave, speaker in rows for part in _parts(wave, size, self.shortest)]
            if parts:
                with torch.inference_mode(), evaluation_mode(passes.model):
                    output, _ = passes(passes.model, [part for _, part in parts])
                vectors.append(output.embeddings.float().cpu().numpy())
                speakers += [speaker for speaker, _ in parts]
        space = SpeakerSpace.of(np.concatenate(vectors), np.array(speakers)) if vectors else None
        return {} if space is None else {SPEAKERS_FILE: space.text}


def _parts(wave: np.ndarray, size: int, shortest: int) -> Iterator[np.ndarray]:
    """Yield the first parts of a size; a shorter wave is one part, if it has half of the size and is not too short."""
    for start in range(0, max(1, min(len(wave) // size, PARTS)) * size, size):
        if len(part := wave[start : start + size]) >= max(size // 2, shortest):
            yield part
