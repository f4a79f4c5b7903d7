"""Models with their losses, and models that trainings begin with, without a plan."""

import torch

import raysp
from raysp.training.objectives.classify_task import ClassifyTask
from raysp.training.objectives.ctc_task import CTCTask
from raysp.training.objectives.passes import Passes
from raysp.training.objectives.seq2seq_task import Seq2SeqTask
from raysp.training.objectives.speakers_task import SpeakersTask
from raysp.training.objectives.task import Criterion


def ctc_criterion(model, extractor, *, dtype: torch.dtype = torch.float32) -> Criterion:
    return Criterion(CTCTask(raysp.CTC("model"), None), Passes(model, extractor, dtype))


def seq2seq_criterion(model, extractor, *, dtype: torch.dtype = torch.float32, **fields: object) -> Criterion:
    return Criterion(Seq2SeqTask(raysp.Seq2Seq("model", **fields), None, None, 0), Passes(model, extractor, dtype))


def classify_criterion(model, extractor, *, dtype: torch.dtype = torch.float32) -> Criterion:
    task = ClassifyTask(raysp.Classify("model", column="label"), _names(model))
    return Criterion(task, Passes(model, extractor, dtype))


def speakers_criterion(model, extractor, *, dtype: torch.dtype = torch.float32, **fields: object) -> Criterion:
    task = SpeakersTask(raysp.Speakers("model", column="speaker", **fields), _names(model), model.min_samples)
    return Criterion(task, Passes(model, extractor, dtype))


def _names(model) -> tuple[str, ...]:
    return tuple(model.config.id2label.values())
