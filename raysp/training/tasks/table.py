"""Tasks by the classes of their specs."""

from raysp.planning.training.plans import TrainingPlan
from raysp.specs.objectives import CTC, Classify, ClassifyFrames, Pretrain, Seq2Seq, Speakers
from raysp.training.objectives.models import check_lora
from raysp.training.tasks.classes import ClassesTask
from raysp.training.tasks.ctc import CTCTask
from raysp.training.tasks.frames import FramesTask
from raysp.training.tasks.pretraining import PretrainingTask
from raysp.training.tasks.seq2seq import Seq2SeqTask
from raysp.training.tasks.speakers import SpeakersTask
from raysp.training.tasks.task import Task


def task_of(plan: TrainingPlan) -> Task:
    """Return the task of a recipe before its corpus is known.

    Raises:
        PlanError, CheckpointError: its vocabulary, tokenizer or LoRA cannot be used.
    """
    check_lora(plan)
    match plan.recipe.objective:
        case CTC() as objective:
            return CTCTask.of(objective, plan)
        case Seq2Seq() as objective:
            return Seq2SeqTask.of(objective, plan)
        case Classify() as objective:
            return ClassesTask.of(objective, plan)
        case Speakers() as objective:
            return SpeakersTask.of(objective, plan)
        case ClassifyFrames() as objective:
            return FramesTask.of(objective, plan)
        case Pretrain() as objective:
            return PretrainingTask.of(objective, plan)
