"""Models with their losses, and models that trainings begin with, without a plan."""

from pathlib import Path
from types import SimpleNamespace

import torch

import raysp
from raysp.models import AutoConfig, SpeechEncoderDecoderModel, TextTokenizer
from raysp.training.objectives.classify_task import ClassifyTask
from raysp.training.objectives.ctc_task import CTCTask
from raysp.training.objectives.passes import Passes
from raysp.training.objectives.seq2seq_task import Seq2SeqTask, special_ids
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


def plan_of(folder: Path, *, decoder: Path | None = None, seed: int = 0) -> SimpleNamespace:
    """Return the parts of a plan that a model depends on."""
    checkpoint, recipe = SimpleNamespace(path=folder), SimpleNamespace(seed=seed)
    return SimpleNamespace(checkpoint=checkpoint, decoder=decoder, recipe=recipe)


def encoder_decoder(
    folder: Path, tokenizer: TextTokenizer, *, decoder: Path | None = None, seed: int = 0, **fields: object
) -> SpeechEncoderDecoderModel:
    """Return the model that a training of a `Seq2Seq` with these fields begins with."""
    config = AutoConfig.from_pretrained(decoder or folder)
    special = special_ids(tokenizer, config, getattr(config, "decoder", config))
    task = Seq2SeqTask(raysp.Seq2Seq(str(folder), **fields), tokenizer, special, 0)
    return task.model(plan_of(folder, decoder=decoder, seed=seed)).train()


def _names(model) -> tuple[str, ...]:
    return tuple(model.config.id2label.values())
